"""The HTTP API under load, on loopback: creates, gets, pages, listeners; with Serve and without.

Goals on two cores: create (photo of 200 kB) p95 at most 80 ms at 20/s, get p95 at most 25 ms at
100/s. Those two cores carry everything: the load generator, Serve's proxy, the API, its photo
decoders and the S3 server. No clip is made meanwhile (benchmarks.load.table).
"""

import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import yaml

from benchmarks.load.generator import MEASURED_S, WARM_UP_S, Users, load, percentile
from benchmarks.machine import median_seconds, spread
from benchmarks.processes import cpu_seconds
from serve.client import Client
from serve.commands import EXAMPLES, LOCAL_CONFIG
from serve.commands.up import cluster_up
from storage.job_store import JobStoreConfig, SqlJobStore

REPEATS, LISTENERS = 3, 200
CREATES_PER_S, GETS_PER_S, LISTS_PER_S = 20, 100, 10
AT_ONCE = 8  # callers who create as fast as they are answered
GOALS_MS = {"create": 80.0, "get": 25.0}
_POINTS: Mapping[str, tuple[Users, int]] = {
    "create": ("Create", CREATES_PER_S),
    "get": ("Get", GETS_PER_S),
    "list": ("List", LISTS_PER_S),
    "create, as many as it takes": ("CreateAtOnce", AT_ONCE),
}
_WITHOUT_SERVE = ("create", "get")
_START_S = 60.0

Run = Mapping[str, Any]


def measure() -> dict[str, Any]:
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp)
        config, port = _config(folder), _free_port()
        with (
            cluster_up(config, port, folder / "data", None, None, lambda _: None) as (running, _),
            _bare(config) as bare_url,
        ):
            # Late: what they import must find the environment that `cluster_up` has made.
            from benchmarks.load.fan_out import fan_out
            from benchmarks.load.table import ROWS, fill, place_of_the_dispatcher

            database = folder.resolve() / "data" / "jobs.sqlite"
            store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{database}"))
            done = _one_clip(running.base_url)
            with place_of_the_dispatcher(store) as epoch:
                filled = fill(store, "default", done)
                queued, any_ids = folder / "queued.txt", folder / "any.txt"
                queued.write_text("\n".join(filled.queued[LISTENERS * REPEATS :]))
                any_ids.write_text("\n".join(filled.queued + filled.ended))
                runs: dict[str, list[Run]] = {}
                watched: list[Run] = []
                for repeat in range(REPEATS):
                    for name, (users, number) in _POINTS.items():
                        ids = {"get": queued, "list": any_ids}.get(name)
                        runs.setdefault(name, []).append(
                            _run(running.base_url, users, number, folder, ids)
                        )
                        if name in _WITHOUT_SERVE:
                            runs.setdefault(f"{name}, without Serve", []).append(
                                _run(bare_url, users, number, folder, ids)
                            )
                    ids = filled.queued[repeat * LISTENERS : (repeat + 1) * LISTENERS]
                    watched.append(
                        fan_out(running.base_url, store, epoch, "cpu", ids, folder)
                    )
                last = filled.queued[-1]
                in_table = {
                    "queue_position of the last": median_seconds(
                        lambda: store.queue_position(last), 9
                    ),
                }
    return {"rows": ROWS, "runs": runs, "watched": watched, "in_table": in_table}


def _run(url: str, users: Users, number: int, folder: Path, ids: Path | None) -> Run:
    """One point: what the callers saw, and what the processes did meanwhile."""
    _probe(url)
    out, cpu, begun = folder / "answers.json", cpu_seconds(), time.perf_counter()
    out.unlink(missing_ok=True)
    answers = load(url, users, number, out, ids)
    seconds, probed = time.perf_counter() - begun, _probe(url)
    lag_ms = sorted(probed["lag_ms"])
    return {
        **answers.figures(),
        "loop_lag_p95_ms": percentile(lag_ms, 0.95),
        "loop_lag_longest_ms": lag_ms[-1],
        "loop_cores": probed["loop_cores"],
        "calls_ms": {
            label: 1e3 * spent["wall_s"] / spent["calls"]
            for label, spent in probed["calls"].items()
        },
        "cores": {
            name: (after - cpu.get(name, 0.0)) / seconds for name, after in cpu_seconds().items()
        },
    }


def _probe(url: str) -> Run:
    answer = httpx2.get(f"{url}/_probe", timeout=30, trust_env=False)
    answer.raise_for_status()
    said: Run = answer.json()
    return said


def _one_clip(url: str) -> str:
    """The id of a completed job, made by the service itself."""
    with Client(url) as client:
        photo = EXAMPLES / "apparel-beanie.jpg"
        video = client.create(photo, prompt="a beanie turns", num_inference_steps=2)
        ended = client.wait(video["id"], lambda _: None)
    if ended["status"] != "completed":
        raise RuntimeError(f"the service failed: {ended['error']}")
    return str(ended["id"])


def _config(folder: Path) -> Path:
    """cluster/local.yaml with the probe in the API, and room for what is created."""
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    (application,) = document["applications"]
    application["import_path"] = "benchmarks.load.probe:build_app"
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def _bare(config: Path) -> Iterator[str]:
    port = _free_port()
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


def _free_port() -> int:
    while True:
        port = random.randint(20_000, 32_000)  # below those that the kernel hands out
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
