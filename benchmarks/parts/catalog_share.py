"""How long a person waits while a catalogue run saturates the denoiser, against an idle cluster.

Goal: at most 1.5 times as long, one step of batch work aside. Once with a paced UNet, which sleeps
an A100's step and leaves two cores to the rest, and once with the tiny model, where the person's
clip, the run's clips and everything around them share those cores.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.catalogue.call_log import between
from benchmarks.catalogue.cluster import Running, apart, config_file, cores_used, running
from benchmarks.catalogue.command import CatalogRun, following, output_of
from benchmarks.catalogue.products import write_products
from benchmarks.machine import spread
from benchmarks.processes import cpu_seconds
from catalog.run.cancel import ask_to_cancel
from serve.client import Client
from serve.commands import EXAMPLES
from storage.jobs import Job, JobStatus

GOAL = 1.5
OUTPUT = "s3://shopreel/catalog/share"
REQUESTS = 15
_ROWS, _UNDER_WAY = 200, 6  # jobs of the run done before a person comes
_THINK_S = 0.5
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    unet: str
    application: str
    batch: Mapping[str, int]
    interactive: Mapping[str, Any]


CASES = (
    Case(
        "sleeps an A100's step at 512x512, at an assumed 125 TFLOP/s",
        "benchmarks.catalogue.denoisers:build_paced",
        {"area_px": 64 * 64, "num_frames": 16, "fps": 8, "num_inference_steps": 6},
        {"size": "64x64", "num_frames": 8, "num_inference_steps": 12},
    ),
    Case(
        "tiny model; batch 128x128, 16 frames; interactive 96x96, 8 frames",
        "benchmarks.catalogue.denoisers:build_timed",
        {"area_px": 128 * 128, "num_frames": 16, "fps": 8, "num_inference_steps": 50},
        {"size": "96x96", "num_frames": 8, "num_inference_steps": 30},
    ),
)


def measure() -> dict[str, Any]:
    return {
        "goal": GOAL,
        "requests": REQUESTS,
        "think_s": _THINK_S,
        "cases": [apart(_measured, case) for case in CASES],
    }


def _measured(case: Case) -> dict[str, Any]:
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        products = write_products(folder / "products", _ROWS)
        with (
            running(config_file(folder, case.batch, case.application)) as cluster,
            Client(cluster.endpoints.base_url) as client,
        ):
            person = Person(client, cluster, case.interactive)
            person.waits(2)
            idle = _phase(person)
            with following(cluster.data, products.manifest, OUTPUT) as run:
                saturated_at = _saturate(cluster, run)
                step_s = _step_s(cluster, saturated_at)
                loaded = _phase(person)
                if run.is_over:
                    raise RuntimeError(f"the run was too short to saturate: {run.said()[-2000:]}")
                made = _batch_per_hour(cluster, saturated_at)
                _cancel(cluster, run)
    return {"unet": case.unet, **_figures(idle, loaded, step_s), "run's videos per hour": made}


@dataclass
class Person:
    """Orders one clip after the other, each with a seed of its own."""

    client: Client
    cluster: Running
    fields: Mapping[str, Any]
    _seed: int = 0

    def waits(self, times: int) -> list[Job]:
        return [self._wait() for _ in range(times)]

    def _wait(self) -> Job:
        self._seed += 1
        photo = EXAMPLES / "watch-steel.jpg"
        fields = {"prompt": "a watch turns", "seed": self._seed, **self.fields}
        video = self.client.create(photo, **fields)
        self.client.wait(video["id"], lambda _: None, poll_s=0.5)
        job = self.cluster.jobs.get("default", video["id"])
        if job.status is not JobStatus.COMPLETED or job.completed_at is None:
            raise RuntimeError(f"{job.status}: {job.error_message}")
        time.sleep(_THINK_S)
        return job


@dataclass(frozen=True, slots=True)
class Phase:
    """What a person's clips came to while the cluster was in one state."""

    jobs: Sequence[Job]
    cores: Mapping[str, float]

    @property
    def waits_s(self) -> list[float]:
        """From a clip's row in the table to its end there: how often somebody asks is nobody's
        business here."""
        return [job.completed_at - job.created_at for job in self.jobs if job.completed_at]

    @property
    def eta_errors(self) -> list[float]:
        """How far the end that was foreseen at the lease was from the end, as a share of the time
        between the two."""
        return [
            abs(job.completed_at - job.predicted_at) / (job.completed_at - job.started_at)
            for job in self.jobs
            if job.completed_at and job.predicted_at and job.started_at
        ]


def _phase(person: Person) -> Phase:
    before, begun = cpu_seconds(), time.perf_counter()
    jobs = person.waits(REQUESTS)
    return Phase(jobs, cores_used(before, cpu_seconds(), time.perf_counter() - begun))


def _saturate(cluster: Running, run: CatalogRun) -> float:
    """When that was, in Unix seconds: every batch slot is taken and more jobs wait."""
    done = cluster.jobs.counts()[JobStatus.COMPLETED]
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        counts = cluster.jobs.counts()
        if counts[JobStatus.COMPLETED] >= done + _UNDER_WAY and counts[JobStatus.QUEUED]:
            return time.time()
        if run.is_over or time.monotonic() > deadline:
            raise RuntimeError(f"the run does not saturate: {run.said()[-2000:]}")
        time.sleep(0.1)


def _step_s(cluster: Running, since: float) -> float:
    """What one UNet call over the run's clips takes."""
    time.sleep(5)
    return median(ended - began for began, ended in between(cluster.unet_calls(), since))


def _batch_per_hour(cluster: Running, since: float) -> float:
    jobs = cluster.jobs.list_jobs("default", limit=1000, status=JobStatus.COMPLETED)
    ends = [j.completed_at for j in jobs if j.request.batch_id and j.completed_at is not None]
    return round(3600 * sum(end >= since for end in ends) / (time.time() - since), 1)


def _cancel(cluster: Running, run: CatalogRun) -> None:
    ask_to_cancel(output_of(cluster.objects, OUTPUT))
    deadline = time.monotonic() + _PATIENCE_S
    while not run.is_over and time.monotonic() < deadline:
        time.sleep(0.2)
    run.end()


def _figures(idle: Phase, loaded: Phase, step_s: float) -> dict[str, Any]:
    def over_idle(percent: int, less_s: float) -> float:
        during = float(np.percentile(loaded.waits_s, percent))
        return round((during - less_s) / float(np.percentile(idle.waits_s, percent)), 2)

    ratios = {f"p{percent}": over_idle(percent, step_s) for percent in (50, 95)}
    return {
        "one step of batch work, s": round(step_s, 3),
        "idle_s": spread(idle.waits_s),
        "during the run_s": spread(loaded.waits_s),
        "over idle": {f"p{percent}": over_idle(percent, 0.0) for percent in (50, 95)},
        "less a step, over idle": ratios,
        "goal_reached": max(ratios.values()) <= GOAL,
        "cores used, of 2": {"idle": idle.cores, "during the run": loaded.cores},
        "eta error, share of the clip's time": {
            "idle": spread(idle.eta_errors),
            "during the run": spread(loaded.eta_errors),
        },
    }
