"""What is loaded: the configuration of the cluster with the probe in its API, and the API alone."""

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import yaml

from serve.client import Client
from serve.commands import EXAMPLES, LOCAL_CONFIG

_START_S = 60.0


def probed_config(folder: Path) -> Path:
    """cluster/local.yaml, with the probe in the API."""
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    (application,) = document["applications"]
    application["import_path"] = "benchmarks.load.probe:build_app"
    application["args"]["default_model"] = application["args"]["model"]["name"]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def api_without_serve(config: Path) -> Iterator[str]:
    """Its URL. It finds the stores of the cluster that runs, in the environment."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.load.bare", str(config), str(port)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                httpx2.get(f"{url}/healthz", trust_env=False).raise_for_status()
                break
            except httpx2.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def one_clip(url: str) -> str:
    """The id of a completed job, made by the service itself."""
    with Client(url) as client:
        photo = EXAMPLES / "apparel-beanie.jpg"
        video = client.create(photo, prompt="a beanie turns", num_inference_steps=2)
        ended = client.wait(video["id"], lambda _: None)
    if ended["status"] != "completed":
        raise RuntimeError(f"the service failed: {ended['error']}")
    return str(ended["id"])


def free_port() -> int:
    """Below those that the kernel hands out."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
