"""What watching costs: a scrape of each target, the metrics of a job, its log lines.

Goal: emitting metrics takes at most 1 % of the CPU of a job of the tiny model. The claim stands on
the CPU time of every emission, measured inside the replicas that make the job: in comparisons of
whole jobs so little is lost in the noise, and they stand beside it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.interleave import paired_ratio
from benchmarks.load.servers import free_port
from benchmarks.machine import spread
from benchmarks.observability.log_volume import added, sizes
from benchmarks.observability.scrapes import scraped, targets
from benchmarks.observability.switch import Mode, Switch
from benchmarks.processes import cpu_seconds
from serve.client import Client
from serve.commands import EXAMPLES, LOCAL_CONFIG
from serve.commands.up import cluster_up

GOAL = 0.01
JOBS: Mapping[str, Mapping[str, Any]] = {
    "standard: 128x128, 16 frames, 50 steps": {"size": "128x128"},
    "smallest: 64x64, 8 frames, 2 steps": {
        "size": "64x64",
        "num_frames": 8,
        "num_inference_steps": 2,
    },
}
COUNTED, PAIRS, LOGGED = 5, 10, 10
_IDLE_S, _FLUSHED_S = 60.0, 3.0  # Ray's daemons write their statistics once a minute
_EMISSIONS = 20_000


def measure() -> dict[str, Any]:
    load_before = os.getloadavg()
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        switch, data = Switch(folder / "emissions"), folder / "data"
        config = _config(folder)
        with (
            cluster_up(config, free_port(), data, None, None, lambda _: None) as (running, _),
            Client(running.base_url) as client,
        ):
            shop = Shop(client)
            for fields in JOBS.values():  # what is slow the first time, and the caches of prompts
                shop.job(fields)
            idle = _idle(switch)
            metrics = {name: _metrics(switch, shop, fields) for name, fields in JOBS.items()}
            logs = _logs(data, shop)
            scrapes = [scraped(target) for target in targets(data)]
            alone_us = _in_a_worker()
    return {
        "machine_load_1_5_15_min_before": [round(load, 2) for load in load_before],
        "goal": GOAL,
        "metrics": metrics,
        "goal_reached": all(job["share_of_cpu"] <= GOAL for job in metrics.values()),
        "at rest": idle,
        "us of an emission in a worker that does nothing else": alone_us,
        "scrapes": {figures.pop("process"): figures for figures in scrapes},
        "scrape of all targets": {
            name: round(sum(float(figures[name]) for figures in scrapes), 4)
            for name in ("bytes", "cpu_s", "series", "series_of_ours")
        },
        "logs": logs,
    }


class Shop:
    def __init__(self, client: Client):
        self._client = client
        self._seed = 0

    def job(self, fields: Mapping[str, Any]) -> tuple[float, float]:
        """Seconds of wall, and of CPU of all replicas, of a job that nobody has made yet."""
        self._seed += 1
        photo, before, begun = EXAMPLES / "watch-steel.jpg", _replicas_cpu(), time.perf_counter()
        asked = {"prompt": "a steel watch turns slowly", "seed": self._seed, **fields}
        video = self._client.create(photo, **asked)
        ended = self._client.wait(video["id"], lambda _: None, poll_s=0.1)
        wall = time.perf_counter() - begun
        if ended["status"] != "completed":
            raise RuntimeError(f"the service failed: {ended['error']}")
        return wall, _replicas_cpu() - before


def _metrics(switch: Switch, shop: Shop, fields: Mapping[str, Any]) -> dict[str, Any]:
    switch.turn(Mode.COUNTED)
    before = switch.emitted()
    counted = [shop.job(fields) for _ in range(COUNTED)]
    emitted = switch.emitted() - before
    cpu_s = sum(cpu for _, cpu in counted)
    runs: dict[Mode, list[tuple[float, float]]] = {Mode.SHIPPED: [], Mode.MUTED: []}
    for pair in range(PAIRS):
        for mode in (*runs,) if pair % 2 else (*runs,)[::-1]:
            switch.turn(mode)
            runs[mode].append(shop.job(fields))
    switch.turn(Mode.SHIPPED)
    return {
        "jobs counted": COUNTED,
        "emissions": round(emitted.calls / COUNTED, 1),
        "us_of_cpu_each": round(1e6 * emitted.cpu_s / emitted.calls, 2),
        "ms_of_cpu": round(1e3 * emitted.cpu_s / COUNTED, 3),
        "job_cpu_s": round(cpu_s / COUNTED, 3),
        "share_of_cpu": round(emitted.cpu_s / cpu_s, 6),
        "whole jobs, with over without": {
            "pairs": PAIRS,
            "wall": _compared([[run[0] for run in runs[mode]] for mode in runs]),
            "cpu": _compared([[run[1] for run in runs[mode]] for mode in runs]),
        },
    }


def _compared(seconds: Sequence[Sequence[float]]) -> dict[str, Any]:
    shipped, muted = seconds
    ratios = [a / b for a, b in zip(shipped, muted, strict=True)]
    return {
        "ratio": round(paired_ratio(shipped, muted), 4),
        "ratios": spread(ratios),
        "with_s": spread(shipped),
        "without_s": spread(muted),
    }


def _idle(switch: Switch) -> dict[str, Any]:
    """What is told though nothing happens, gauges above all, and who uses the CPU meanwhile."""
    switch.turn(Mode.COUNTED)
    emitted, before = switch.emitted(), cpu_seconds()
    time.sleep(_IDLE_S)
    emitted, after = switch.emitted() - emitted, cpu_seconds()
    switch.turn(Mode.SHIPPED)
    shares = {name: (after[name] - before.get(name, 0.0)) / _IDLE_S for name in after}
    busiest = sorted(shares.items(), key=lambda item: -item[1])
    return {
        "emissions_per_s": round(emitted.calls / _IDLE_S, 2),
        "of_a_core": round(emitted.cpu_s / _IDLE_S, 6),
        "cores of each process": {n: round(share, 4) for n, share in busiest if share >= 0.002},
    }


def _logs(data: Path, shop: Shop) -> dict[str, Any]:
    time.sleep(_FLUSHED_S)
    before = sizes(data)
    time.sleep(_IDLE_S)
    at_rest, before = added(data, before), sizes(data)
    name, fields = next(iter(JOBS.items()))
    begun = time.monotonic()
    for _ in range(LOGGED):
        shop.job(fields)
    time.sleep(_FLUSHED_S)
    took_s, logged = time.monotonic() - begun, added(data, before)
    return {
        "job": name,
        "jobs": LOGGED,
        "per job": logged.figures(LOGGED),
        "of ours, lines per job": logged.lines_of_ours(LOGGED),
        "per minute at rest": at_rest.figures(_IDLE_S / 60),
        "seconds_of_a_job": round(took_s / LOGGED, 1),
    }


def _in_a_worker() -> dict[str, float]:
    # Late, as all that imports Ray.
    import ray

    from benchmarks.observability.metered import emission_us

    work = ray.remote(num_cpus=0.1)(emission_us)
    costs: dict[str, float] = ray.get(work.remote(_EMISSIONS))
    return costs


def _replicas_cpu() -> float:
    return sum(seconds for name, seconds in cpu_seconds().items() if name in _REPLICAS)


_REPLICAS = {
    *("VideoAPI", "Dispatcher", "Housekeeper", "TextEncoder", "ImageEncoder"),
    *("Denoiser-cpu", "Decoder", "VideoEncoder"),
}


def _config(folder: Path) -> Path:
    """cluster/local.yaml with replicas whose emissions can be counted."""
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    (application,) = document["applications"]
    application["import_path"] = "benchmarks.observability.metered:build_app"
    application["args"]["default_model"] = application["args"]["model"]["name"]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
