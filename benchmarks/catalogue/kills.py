"""kill -9 at given moments of a run: its driver, the S3 server, the denoiser."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from benchmarks.catalogue.command import CatalogRun
from catalog.results.commit import finished_shards, read_markers
from catalog.results.output import RunOutput
from storage.errors import StoreUnavailable
from storage.job_store import SqlJobStore
from storage.jobs import Job, JobStatus

_PATIENCE_S = 180.0
_POLL_S = 0.05
_TENANT, _MOST_JOBS = "default", 100_000


class Victim(StrEnum):
    DRIVER = "driver"
    S3 = "S3 server"
    DENOISER = "denoiser"


_MARKS: Mapping[Victim, Callable[[list[str]], bool]] = {
    Victim.DRIVER: lambda line: line[1:3] == ["-m", "serve.catalog_driver"],
    Victim.S3: lambda line: Path(line[0]).name == "weed",
    Victim.DENOISER: lambda line: "ServeReplica:shopreel:Denoiser-" in line[0],
}

AT: Sequence[tuple[float, Victim]] = (
    (0.15, Victim.DRIVER),
    (0.35, Victim.S3),
    (0.55, Victim.DENOISER),
    (0.75, Victim.DRIVER),
)
"""When so much of the run's jobs is completed."""


class NothingHappens(Exception):
    """The run did not get to where the next kill belongs."""


@dataclass(frozen=True, slots=True)
class Kill:
    victim: Victim
    completed: Mapping[str, int]  # id of every job that had ended well -> its attempt
    under_way: int  # jobs that were in a stage
    shards: Mapping[int, str]  # that were committed -> digest of their part
    replaced_s: float  # until another process of the kind ran


class Killer:
    """Of processes below `pid`, which is the cluster's."""

    def __init__(self, pid: int, jobs: SqlJobStore, output: RunOutput, run: CatalogRun):
        self._pid, self._jobs, self._output, self._run = pid, jobs, output, run

    def run(self, of_jobs: int, at: Sequence[tuple[float, Victim]] = AT) -> list[Kill]:
        """Raises NothingHappens."""
        return [self._kill(victim, max(1, round(share * of_jobs))) for share, victim in at]

    def _kill(self, victim: Victim, after: int) -> Kill:
        self._until(lambda: self._jobs.counts()[JobStatus.COMPLETED] >= after, f"{after} jobs")
        self._until(lambda: self._find(victim), f"a {victim}")
        jobs, shards = all_jobs(self._jobs), self._shards()
        (process,) = self._find(victim)
        process.kill()
        killed_at = time.monotonic()
        self._until(
            lambda: any(found.pid != process.pid for found in self._find(victim)),
            f"another {victim}",
        )
        return Kill(
            victim,
            {job.id: job.attempt for job in jobs if job.status is JobStatus.COMPLETED},
            sum(job.status is JobStatus.IN_PROGRESS for job in jobs),
            shards,
            time.monotonic() - killed_at,
        )

    def _shards(self) -> Mapping[int, str]:
        """The store may be away still, from the kill before."""
        while True:
            with suppress(StoreUnavailable):
                markers = read_markers(self._output, finished_shards(self._output).values())
                return {marker.shard: marker.sha256 for marker in markers}
            time.sleep(_POLL_S)

    def _find(self, victim: Victim) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self._pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if (line := process.cmdline()) and _MARKS[victim](line):
                    found.append(process)
        return found

    def _until(self, reached: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not reached():
            if self._run.is_over or time.monotonic() > deadline:
                raise NothingHappens(f"no {what}: {self._run.said()[-3000:]}")
            time.sleep(_POLL_S)


def all_jobs(jobs: SqlJobStore) -> list[Job]:
    return list(jobs.list_jobs(_TENANT, limit=_MOST_JOBS))
