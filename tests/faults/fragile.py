"""A one-machine cluster with fail points, and its stores, which outlive it."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.cost import CostModel
from cluster.embedded_s3 import EmbeddedS3
from cluster.ladder import Floor
from cluster.local import APP_NAME
from deployments.dispatcher import Dispatcher
from diffusion.memory import Architecture
from diffusion.model_folder import ModelFolder
from serve.client import Client, Video
from serve.config import load
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, JobStatus
from storage.object_store import S3ObjectStore
from tests.faults import RAY_TOKEN, fail_points
from tests.faults.head import PHOTO, TENANT
from tests.faults.ledger import account
from tests.faults.report import FaultLog
from tests.integration.live import LiveCluster, write_config

LEASE_S = 5.0
PATIENCE_S = 90.0
RECOVERED_WITHIN_S = 30.0
"""After the end of one process. It takes about 5 s here; what hangs takes Serve 30 s at the least,
three health checks that time out the more."""
CLIP: dict[str, Any] = {"size": "64x64", "num_frames": 8, "num_inference_steps": 20}
LONG: dict[str, Any] = {"size": "128x128", "num_frames": 16, "num_inference_steps": 150}


class _Second(Dispatcher):
    def __del__(self) -> None:  # type: ignore[override]
        """Serve awaits the real one; this one ends with its event loop."""


class FragileCluster:
    def __init__(self, folder: Path, s3: EmbeddedS3, model: Path, faults: FaultLog, **changes: Any):
        """`changes` of the configuration are as in `write_config`."""
        self.points = folder / "points"
        self.points.mkdir()
        self.objects = S3ObjectStore(s3.config)
        self._table = folder / "jobs.sqlite"
        jobs = JobStoreConfig(url=f"sqlite:///{self._table}", lease_s=LEASE_S)
        self.jobs = SqlJobStore(jobs)
        self.config = write_config(
            folder / "config.yaml",
            **{
                "import_path": "tests.faults.fail_points:build_app",
                "model.source": str(model),
                "job_store": jobs.model_dump(),
                "object_store": {
                    "endpoint": s3.config.endpoint,
                    "bucket": s3.config.bucket,
                    "access_key": s3.config.access_key,
                    "secret_key": s3.config.secret_key.get_secret_value(),
                },
                **changes,
            },
        )
        self.live = LiveCluster(folder / "data", self.config)
        self.live.data.mkdir()
        (self.live.data / "ray-token").write_text(RAY_TOKEN.read_text())
        self._faults = faults
        self._seed = 0

    # Orders.

    def create(self, order: dict[str, Any] = CLIP, act: str = "", **fields: Any) -> str:
        """A video of its own; the job's id. What `act` does stands in tests.faults.fail_points."""
        self._seed += 1
        given = {"prompt": f"a watch turns {act}", "seed": self._seed, **order, **fields}
        with Client(self.live.url) as client:
            video_id: str = client.create(PHOTO, **given)["id"]
        return video_id

    def video(self, job_id: str) -> Video:
        with Client(self.live.url) as client:
            return client.get(job_id)

    def cancel(self, job_id: str) -> Video:
        with Client(self.live.url) as client:
            return client.cancel(job_id)

    def job(self, job_id: str) -> Job:
        return self.jobs.get(TENANT, job_id)

    def job_ids(self) -> set[str]:
        return {job.id for job in self.jobs.list_jobs(TENANT, limit=10_000)}

    def charged(self, job_id: str) -> int:
        """Tries that count against the job, as one does whose lease ran out."""
        with closing(sqlite3.connect(self._table)) as db:
            ((failures,),) = db.execute("SELECT failures FROM jobs WHERE id = ?", [job_id])
        return int(failures)

    def reached(self, job_id: str, what: str) -> int:
        return fail_points.reached(self.points, job_id, what)

    def let_go(self, *job_ids: str) -> None:
        for job_id in job_ids:
            fail_points.let_go(self.points, job_id)

    # Faults.

    def kill(self, *deployments: str, number: signal.Signals = signal.SIGKILL) -> float:
        """A signal to the one replica of each; when that was (monotonic)."""
        for victim in [self.live.replica(deployment) for deployment in deployments]:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
        return time.monotonic()

    def stop_dispatcher(self) -> psutil.Process:
        """SIGSTOP, at a moment when it holds no lock of the job table; the process."""
        dispatcher = self.live.replica("Dispatcher")
        while True:
            dispatcher.suspend()
            with suppress(sqlite3.OperationalError), sqlite3.connect(self._table, timeout=1) as db:
                db.execute("BEGIN IMMEDIATE")
                return dispatcher
            dispatcher.resume()

    async def dispatch_until_ended(
        self, handle: Callable[[str], DeploymentHandle], job_id: str
    ) -> None:
        """A second Dispatcher, here, over the same table and the same replicas."""
        config = load(self.config).app
        assert config.job_store is not None
        cost = CostModel(
            Architecture.of(ModelFolder.open(config.model)), config.tiers, config.model, {}
        )
        stages = ("TextEncoder", "ImageEncoder", "Decoder", "VideoEncoder")
        second = _Second.__new__(_Second)
        await second.__init__(  # type: ignore[misc]
            config.stages.dispatcher,
            config.job_store,
            config.tiers,
            cost,
            Floor(area_px=64 * 64, num_frames=8, size_multiple=16),
            self.objects,
            [handle(tier.deployment_name) for tier in config.tiers],
            [handle(stage) for stage in stages],
        )
        async with asyncio.timeout(PATIENCE_S):
            while not self.job(job_id).status.is_terminal:
                await asyncio.sleep(0.1)

    @contextmanager
    def connected(self) -> Iterator[Callable[[str], DeploymentHandle]]:
        """This process as a driver of the cluster: handles of its deployments, by name."""
        ray.init(self.live.endpoints.ray_address, log_to_driver=False)
        try:
            yield lambda name: serve.get_deployment_handle(name, APP_NAME)
        finally:
            ray.shutdown()

    # Waiting.

    def until(self, met: Callable[[], Any], *job_ids: str, patience_s: float = PATIENCE_S) -> float:
        """Wait for the condition; when that was (monotonic)."""
        deadline = time.monotonic() + patience_s
        while not met():
            assert time.monotonic() < deadline, [self.job(job_id) for job_id in job_ids]
            time.sleep(0.02)
        return time.monotonic()

    def until_reached(self, job_id: str, what: str, times: int = 1) -> float:
        return self.until(lambda: self.reached(job_id, what) >= times, job_id)

    def until_step(self, job_id: str, step: int) -> float:
        return self.until(lambda: self.job(job_id).step >= step, job_id)

    def until_ended(self, *job_ids: str) -> float:
        def all_ended() -> bool:
            return all(job.status.is_terminal for job in self.jobs.get_many(job_ids))

        return self.until(all_ended, *job_ids)

    def is_ready(self) -> bool:
        """The service says itself that it would run a job."""
        with suppress(httpx2.TransportError):
            answer = httpx2.get(f"{self.live.url}/readyz", timeout=5, trust_env=False)
            return answer.status_code == 200
        return False

    # The end.

    def settle(
        self,
        row: int,
        fault: str,
        job_ids: Collection[str],
        *,
        injected: int = 1,
        recovery_s: float | None = None,
        otherwise: Collection[str] = (),
    ) -> dict[str, Job]:
        """Wait for the end of the jobs, record what the fault cost, and hold that it cost nothing:
        every job completed once, those apart that were meant to end `otherwise`."""
        self.until_ended(*job_ids)
        lost, duplicates = account(self.jobs, self.objects, job_ids)
        jobs = {job.id: job for job in self.jobs.get_many(job_ids)}
        lost += [
            f"{job.id}: {job.status} {job.error_code}, {[e.kind for e in job.events]}"
            for job in jobs.values()
            if job.status is not JobStatus.COMPLETED and job.id not in otherwise
        ]
        self._faults.record(
            row,
            fault,
            injected=injected,
            accepted=len(job_ids),
            lost=len(lost),
            duplicates=len(duplicates),
            recovery_s=recovery_s,
        )
        assert (lost, duplicates) == ([], [])
        return jobs


@contextmanager
def running(
    folder: Path, model: Path, faults: FaultLog, **changes: Any
) -> Iterator[FragileCluster]:
    """The cluster up and ready."""
    with EmbeddedS3(folder / "s3") as s3, pytest.MonkeyPatch.context() as environment:
        cluster = FragileCluster(folder, s3, model, faults, **changes)
        environment.setitem(os.environ, fail_points.FOLDER_VARIABLE, str(cluster.points))
        try:
            with cluster.live:
                cluster.until(cluster.is_ready)
                yield cluster
        finally:
            cluster.jobs.close()
