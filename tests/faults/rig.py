"""`shopreel up` in a process of its own, its job table beside it, and a caller's HTTP client."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, JobStatus
from tests.faults.head import PHOTO, TENANT
from tests.integration.live import LiveCluster

PATIENCE_S = 90.0
SHORT: dict[str, Any] = {"preset": "preview", "num_inference_steps": 5}
LONG: dict[str, Any] = {"preset": "preview", "num_inference_steps": 200}


def until(
    reached: Callable[[], object], told: Callable[[], object], patience_s: float = PATIENCE_S
) -> float:
    """Seconds that it took. Raises AssertionError with what `told` says after `patience_s`."""
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < patience_s, told()
        time.sleep(0.05)
    return time.monotonic() - begun


class Rig:
    def __init__(self, cluster: LiveCluster):
        self.cluster = cluster
        database = cluster.data.resolve() / "jobs.sqlite"
        self.jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{database}"))
        self.http = httpx2.Client(base_url=cluster.url, timeout=60, trust_env=False)
        self._seed = 1000  # beyond those that a test names

    def order(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """A create; a seed of its own unless one is given, so that nobody else's result fits."""
        self._seed += 1
        form = {"prompt": "a watch turns", "seed": self._seed, **fields}
        return self.http.post(
            "/v1/videos",
            data={name: str(value) for name, value in form.items()},
            files={"input_reference": (PHOTO.name, PHOTO.read_bytes())},
            headers=headers,
        )

    def accepted(self, **fields: Any) -> str:
        answer = self.order(**fields)
        assert answer.status_code == 202, answer.text
        video_id: str = answer.json()["id"]
        return video_id

    def job(self, job_id: str) -> Job:
        return self.jobs.get(TENANT, job_id)

    def broken(self) -> list[str]:
        """What /readyz names."""
        answer = self.http.get("/readyz")
        named: list[str] = answer.json()["broken"]
        assert answer.status_code == (503 if named else 200)
        return named

    def until(self, reached: Callable[[], object], patience_s: float = PATIENCE_S) -> float:
        return until(reached, self.told, patience_s)

    def until_denoising(self, job_id: str) -> None:
        self.until(lambda: self.job(job_id).step > 5)

    def until_ended(self, *job_ids: str) -> float:
        return self.until(lambda: all(self.job(j).status.is_terminal for j in job_ids))

    def until_well(self) -> float:
        return self.until(lambda: not self.broken())

    def all_completed(self, job_ids: list[str]) -> bool:
        return all(self.job(job_id).status is JobStatus.COMPLETED for job_id in job_ids)

    def told(self) -> str:
        """For a failed test: what /readyz says and how the last jobs stand."""
        jobs = self.jobs.list_jobs(TENANT, limit=8)
        return "\n".join(
            [
                f"{self.broken()}",
                *(f"{j.id} {j.status} {j.stage} {j.step} {j.attempt} {j.events}" for j in jobs),
            ]
        )


@contextmanager
def up(folder: Path, config: Path) -> Iterator[Rig]:
    with LiveCluster(folder, config) as cluster:
        rig = Rig(cluster)
        try:
            yield rig
        finally:
            rig.http.close()
            rig.jobs.close()
