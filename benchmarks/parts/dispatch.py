"""Jobs per second that one Dispatcher walks through stages that do nothing, and what bounds it.

Goal: 30 jobs/s on two cores, what 600 cards finish at 20 seconds a clip.
"""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine import spread
from cluster.local import prepare_environment
from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig, ModelFolder
from storage.job_store import JobStoreConfig

GOAL_PER_S = 30
JOBS, REPEATS = 300, 3
SLOTS = 64  # sixteen cards with four clips each
SYNC_S = {"disk as it is": 0.0, "10 ms more per commit": 0.010}
_PATIENCE_S = 300

Race = Mapping[str, Any]
"""What benchmarks.stopwatch.StopwatchDispatcher.race returns."""


def measure() -> dict[str, Any]:
    with TemporaryDirectory(prefix="reel-") as temp:
        prepare_environment(Path(temp))
        architecture = _architecture(Path(temp) / "model")
        config = JobStoreConfig(url=f"sqlite:///{temp}/alone.sqlite")
        alone = asyncio.run(_alone(config, architecture))
        config = JobStoreConfig(url=f"sqlite:///{temp}/serve.sqlite")
        served = _on_serve(config, architecture, temp)
    return {
        "goal_per_s": GOAL_PER_S,
        "jobs": JOBS,
        "repeats": REPEATS,
        "slots": SLOTS,
        "in one process, without Ray": alone,
        "on Ray Serve": served,
    }


async def _alone(jobs: JobStoreConfig, architecture: Architecture) -> dict[str, Any]:
    from benchmarks.noop_stages import dispatcher_args, start_alone

    dispatcher = await start_alone(dispatcher_args(jobs, architecture, SLOTS))
    await dispatcher.race(JOBS, 0.0)
    return {
        disk: _figures([await dispatcher.race(JOBS, sync_s) for _ in range(REPEATS)])
        for disk, sync_s in SYNC_S.items()
    }


def _on_serve(jobs: JobStoreConfig, architecture: Architecture, temp: str) -> dict[str, Any]:
    import ray
    from ray import serve

    from benchmarks.noop_stages import build, dispatcher_args
    from benchmarks.processes import cpu_seconds

    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 << 20,
        _temp_dir=temp,
    )
    try:
        serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False})
        app = build(dispatcher_args(jobs, architecture, SLOTS))
        dispatcher = serve.run(app, name="shopreel", route_prefix=None)

        def race(sync_s: float) -> Race:
            before = cpu_seconds()
            spent: dict[str, Any] = dispatcher.race.remote(JOBS, sync_s).result(
                timeout_s=_PATIENCE_S
            )
            after = cpu_seconds()
            cpu = {name: _per_job_ms(s - before.get(name, 0.0)) for name, s in after.items()}
            return spent | {"cpu_ms_of": {name: ms for name, ms in cpu.items() if ms >= 0.1}}

        race(0.0)
        return {
            disk: _figures([race(sync_s) for _ in range(REPEATS)])
            for disk, sync_s in SYNC_S.items()
        }
    finally:
        serve.shutdown()
        ray.shutdown()


def _figures(races: Sequence[Race]) -> dict[str, Any]:
    """Jobs per second of all races; where the time went in the middle one."""
    per_s = [JOBS / race["seconds"] for race in races]
    middle = sorted(races, key=lambda race: race["seconds"])[len(races) // 2]
    table: Mapping[str, Any] = middle["table"]
    table_cpu_s = sum(spent["cpu_s"] for spent in table.values())
    rest_s = middle["process_cpu_s"] - middle["loop_cpu_s"] - table_cpu_s
    return {
        "jobs_per_s": spread(per_s),
        "goal_reached": statistics.median(per_s) >= GOAL_PER_S,
        "ms_per_job": {
            "wall": _per_job_ms(middle["seconds"]),
            "cpu of the Dispatcher's process": {
                "its event loop": _per_job_ms(middle["loop_cpu_s"]),
                "of that, placement": _per_job_ms(middle["placement"]["cpu_s"]),
                "job table, in threads": _per_job_ms(table_cpu_s),
                "Serve's router, Ray and the rest": _per_job_ms(rest_s),
            },
            "cpu of every process": dict(
                sorted(middle.get("cpu_ms_of", {}).items(), key=lambda item: -item[1])
            ),
        },
        "job_table": {
            name: {
                "calls_per_job": round(spent["calls"] / JOBS, 3),
                "wall_ms_each": round(spent["wall_s"] / spent["calls"] * 1e3, 2),
                "longest_ms": round(spent["longest_s"] * 1e3, 2),
            }
            for name, spent in {**table, "COMMIT": middle["commits"]}.items()
        },
    }


def _architecture(folder: Path) -> Architecture:
    from diffusion.tiny import write_tiny_model

    write_tiny_model(folder)
    return Architecture.of(ModelFolder.open(ModelConfig(source=str(folder))))


def _per_job_ms(seconds: float) -> float:
    return round(seconds / JOBS * 1e3, 2)
