"""The HTTP API under load, on loopback: creates, gets, pages, listeners; on Serve and without it.

Goals on two cores: create (photo of 200 kB) p95 at most 80 ms at 20/s, get p95 at most 25 ms at
100/s. Those two cores carry everything: the load generator, Serve's proxy, the API, its photo
decoders and the S3 server. No clip is made meanwhile (benchmarks.load.table).
"""

import os
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from benchmarks.load.generator import MEASURED_S, WARM_UP_S, Load, load, percentile
from benchmarks.load.servers import api_without_serve, free_port, one_clip, probed_config
from benchmarks.machine import median_seconds, spread
from benchmarks.processes import cpu_seconds
from serve.commands.up import cluster_up
from storage.job_store import JobStoreConfig, SqlJobStore

REPEATS, LISTENERS = 3, 200
POINTS: Mapping[str, Load] = {
    "create, 20/s": Load("Create", rate=20),
    "get, 100/s": Load("Get", rate=100),
    "list of 20, 10/s": Load("List", rate=10),
    "create, 8 callers without a pause": Load("Create", callers=8),
}
GOALS_P95_MS = {"create, 20/s": 80.0, "get, 100/s": 25.0}
PROXIED = "get, 100/s"
WITHOUT_SERVE = f"{PROXIED}, without Serve"

Run = Mapping[str, Any]


def measure() -> dict[str, Any]:
    load_before = os.getloadavg()
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        config, data = probed_config(folder), folder / "data"
        with (
            cluster_up(config, free_port(), data, None, None, lambda _: None) as (running, _),
            api_without_serve(config) as without_serve,
        ):
            store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{data / 'jobs.sqlite'}"))
            runs = _runs(running.base_url, without_serve, store, folder)
    figures = {name: _figures(of_point) for name, of_point in runs["points"].items()}
    return {
        "machine_load_1_5_15_min_before": [round(load, 2) for load in load_before],
        "sharing the cores": "load generator, Serve's proxy, API, photo decoders, S3 server",
        "measured_s": MEASURED_S,
        "warm_up_s": WARM_UP_S,
        "repeats": REPEATS,
        "table": runs["table"],
        "points": figures,
        "goals": {
            name: {
                "p95_ms": goal,
                "measured_p95_ms": figures[name]["p95_ms"]["median"],
                "reached": figures[name]["p95_ms"]["median"] <= goal
                and figures[name]["refused"]["max"] == 0,
            }
            for name, goal in GOALS_P95_MS.items()
        },
        "get on Serve over get without, in turns": {
            share: round(
                figures[PROXIED][share]["median"] / figures[WITHOUT_SERVE][share]["median"], 2
            )
            for share in ("p50_ms", "p95_ms")
        },
        "listeners": _figures(runs["listeners"]),
    }


def _runs(url: str, without_serve: str, store: SqlJobStore, folder: Path) -> dict[str, Any]:
    # Late: it imports what must find the environment that `cluster_up` has made.
    from benchmarks.load.fan_out import fan_out
    from benchmarks.load.table import QUEUED, ROWS, fill, place_of_the_dispatcher

    points: dict[str, list[Run]] = {}
    listeners: list[Run] = []
    made = one_clip(url)
    with place_of_the_dispatcher(store) as epoch:
        filled = fill(store, made)
        watched, polled = filled.queued[: REPEATS * LISTENERS], filled.queued[REPEATS * LISTENERS :]
        ids = {
            "Get": _kept(folder / "polled.txt", polled),
            "List": _kept(folder / "all.txt", filled.ended + filled.queued),
        }
        for repeat in range(REPEATS):
            for name, what in POINTS.items():
                run = _run(url, what, folder, ids.get(what.users))
                points.setdefault(name, []).append(run)
                if name == PROXIED:
                    run = _run(without_serve, what, folder, ids.get(what.users))
                    points.setdefault(WITHOUT_SERVE, []).append(run)
            theirs = watched[repeat * LISTENERS : (repeat + 1) * LISTENERS]
            listeners.append(fan_out(url, store, epoch, "cpu", theirs, folder))
        calls: Mapping[str, Callable[[], object]] = {
            "get": lambda: store.get("default", polled[-1]),
            "queue_position of the last": lambda: store.queue_position(polled[-1]),
            "list of 21": lambda: store.list_jobs("default", limit=21),
        }
        alone = {name: round(1e3 * median_seconds(call, 9), 2) for name, call in calls.items()}
    table = {"rows": ROWS, "of them queued": QUEUED, "ms of a call without load": alone}
    return {"points": points, "listeners": listeners, "table": table}


def _run(url: str, what: Load, folder: Path, ids: Path | None) -> Run:
    """One point: what the callers saw, and what the processes did meanwhile."""
    _probe(url)
    out, before = folder / "answers.json", _cpu_seconds()
    out.unlink(missing_ok=True)
    answers = load(url, what, out, ids)
    after, probed = _cpu_seconds(), _probe(url)
    lag_ms = sorted(probed["lag_ms"])
    return {
        **answers.figures(),
        "event_loop_lag_p95_ms": percentile(lag_ms, 0.95),
        "event_loop_lag_longest_ms": round(lag_ms[-1], 2),
        "mean_ms_of": {
            label: 1e3 * spent["wall_s"] / spent["calls"]
            for label, spent in probed["calls"].items()
        },
        "cpu_ms_per_call_of": {
            name: 1e3 * (seconds - before.get(name, 0.0)) / answers.calls
            for name, seconds in after.items()
        },
    }


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Minimum, median and maximum of every number; of what is broken down further, medians."""
    first, *_ = runs
    return {
        name: _medians([run[name] for run in runs])
        if isinstance(value, Mapping)
        else spread([run[name] for run in runs])
        for name, value in first.items()
    }


def _medians(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest first, less what does not count."""
    names = {name for part in parts for name in part}
    medians = {n: statistics.median(part.get(n, 0.0) for part in parts) for n in names}
    return {n: round(v, 2) for n, v in sorted(medians.items(), key=lambda i: -i[1]) if v >= 0.05}


def _cpu_seconds() -> dict[str, float]:
    """By process; of the generators, which have ended, together."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**cpu_seconds(), "locust, its start included": ended.ru_utime + ended.ru_stime}


def _probe(url: str) -> Run:
    answer = httpx2.get(f"{url}/_probe", timeout=30, trust_env=False)
    answer.raise_for_status()
    said: Run = answer.json()
    return said


def _kept(path: Path, ids: Sequence[str]) -> Path:
    path.write_text("\n".join(ids))
    return path
