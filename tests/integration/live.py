"""A one-machine cluster as a user starts it: `shopreel up` in a process of its own."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from cluster.local import Endpoints
from serve.client import Client

ROOT = Path(__file__).parents[2]
SHOPREEL = Path(sys.executable).with_name("shopreel")


def free_port() -> int:
    """A port that was free just now: above Ray's worker range, and below the one that the kernel
    hands out, from which a daemon may take it before we do."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def write_config(path: Path, **changes: Any) -> Path:
    """cluster/local.yaml with tiny random weights, guided as the published ones are, and some of
    the application's args changed: dotted names to values. A request that names no model gets the
    served weights, random or not, unless `default_model` is among them."""
    document = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    (application,) = document["applications"]
    application["args"]["model"] = {"name": "tiny-random", "source": "tiny"}
    for preset in application["args"]["presets"].values():
        del preset["guidance_scale"]
    for name, value in changes.items():
        if name == "import_path":
            application["import_path"] = value
            continue
        section = application["args"]
        *parents, leaf = name.split(".")
        for parent in parents:
            section = section[int(parent)] if parent.isdigit() else section.setdefault(parent, {})
        section[leaf] = value
    args = application["args"]
    args.setdefault("default_model", args["model"]["name"])
    path.write_text(yaml.safe_dump(document))
    return path


def _command(process: psutil.Process) -> str:
    """Its command line; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class LiveCluster:
    """`shopreel up` over `data`, by `write_config` unless a file is given; a context that ends it
    with SIGTERM. `page`: with the web page, whose start takes as long as that of all the rest."""

    def __init__(self, data: Path, config: Path | None = None, *, page: bool = False):
        self.data = data
        self._page = page
        self.url = ""
        self._config = config
        self._port: int | None = None  # kept for as long as there is this object
        self._process: subprocess.Popen[str] | None = None
        self._family: list[psutil.Process] = []

    def start(self, timeout_s: float = 240) -> Self:
        config = self._config or write_config(self.data.with_suffix(".yaml"))
        self._port = self._port or free_port()
        command = [str(SHOPREEL), "up", "--data", str(self.data), "--port", str(self._port)]
        command += ["--config", str(config)]
        self.data.mkdir(parents=True, exist_ok=True)
        log = (self.data / "up.log").open("a")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SHOPR"))}
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={
                **environment,
                "PYTHONPATH": str(ROOT),
                "SHOPREEL_WEB__ENABLED": str(self._page).lower(),
            },
        )
        assert self._process.stdout is not None
        too_late = threading.Timer(timeout_s, self._process.terminate)
        too_late.start()
        try:
            line = self._process.stdout.readline()  # `up` prints one line: ready URL
        finally:
            too_late.cancel()
        assert line.startswith("ready "), f"{line}{(self.data / 'up.log').read_text()}"
        self.url = line.split()[1]
        self._family = psutil.Process(self._process.pid).children(recursive=True)
        return self

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints.read(self.data)

    def client(self) -> Client:
        return Client(self.url)

    def replica(self, deployment: str) -> psutil.Process:
        """The one process of a deployment; for tests that end it."""
        assert self._process is not None
        (found,) = (
            process
            for process in psutil.Process(self._process.pid).children(recursive=True)
            if f"ServeReplica:shopreel:{deployment}" in _command(process)
        )
        return found

    def embedded_s3(self) -> psutil.Process:
        assert self._process is not None
        (found,) = (
            process
            for process in psutil.Process(self._process.pid).children(recursive=True)
            if "weed" in Path(_command(process).partition(" ")[0]).name
        )
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 150) -> int:
        """End it by a signal; its exit code."""
        assert self._process is not None
        self._family += psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(number)
        return self._process.wait(timeout_s)

    def left_behind(self, patience_s: float = 30) -> list[str]:
        """What still runs of all that the cluster ever started, after it has ended."""
        _, alive = psutil.wait_procs(self._family, timeout=patience_s)
        return [f"{p.pid} {_command(p)[:120]}" for p in alive if p.is_running()]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
