"""Runs as Ray jobs. The run's id is the submission id, so Ray itself refuses a second driver; the
drivers after the first one count on from there, because what watches over a job that was killed
still writes under its id for a while."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from catalog.run.options import RunOptions

STOPPED = 3
"""Exit code of a driver that ended before its run, and knows why."""

AWAY = 4
"""Exit code of a driver that found nobody to work with; another one may."""

_KIND = "shopreel-catalog"


@dataclass(frozen=True, slots=True)
class DriverJob:
    """The Ray job that drives a run, or did."""

    run_id: str
    status: JobStatus
    message: str  # Ray's
    manifest_uri: str
    output_uri: str
    tenant: str
    started_at: float | None  # Unix seconds
    ended_at: float | None  # Unix seconds
    exit_code: int | None
    number: int = 1  # of the run's drivers, in the order of their starts

    @property
    def submission_id(self) -> str:
        return _submission_id(self.run_id, self.number)

    @property
    def has_succeeded(self) -> bool:
        return self.status is JobStatus.SUCCEEDED

    @property
    def is_lost(self) -> bool:
        """It was killed, or the node under it, or was AWAY: another one would go on where it
        was."""
        return self.status is JobStatus.FAILED and self.exit_code not in (1, STOPPED)

    @property
    def is_at_work(self) -> bool:
        return not self.status.is_terminal()

    @property
    def standing(self) -> str:
        """For people. To Ray a driver that keeps to its orders and leaves has FAILED."""
        if self.is_at_work:
            return "at work"
        if self.is_lost:
            return "lost"
        if self.exit_code == STOPPED:
            return "stopped"
        return "done" if self.has_succeeded else "failed"


class DriverJobs:
    """Those of one Ray cluster. Every method raises RuntimeError where its dashboard refuses, and
    ConnectionError where it does not answer."""

    def __init__(self, address: str):
        """`address`: of its dashboard, http://HOST:PORT, or of its GCS, HOST:PORT, which knows the
        dashboard's."""
        self._client = JobSubmissionClient(address)

    @classmethod
    def of_this_cluster(cls) -> "DriverJobs":
        """For processes that Ray runs."""
        return cls(ray.get_runtime_context().gcs_address)

    @property
    def dashboard_url(self) -> str:
        url: str = self._client.get_address()
        return url

    def start(self, options: RunOptions, tenant: str, command: Sequence[str]) -> bool:
        """Whether a driver was started: False where one is at work on this run already."""
        last = self.find(options.run_id)
        if last is not None and last.is_at_work:
            return False
        about = {
            "kind": _KIND,
            "manifest": options.manifest_uri,
            "output": options.output_uri,
            "tenant": tenant,
        }
        try:
            with _reaching():
                self._client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=_submission_id(options.run_id, last.number + 1 if last else 1),
                    metadata=about,
                )
        except RuntimeError:  # somebody else's was quicker
            found = self.find(options.run_id)
            if found is None or not found.is_at_work:
                raise
            return False
        return True

    def find(self, run_id: str) -> DriverJob | None:
        """Its last driver."""
        return next((job for job in self.list() if job.run_id == run_id), None)

    def list(self) -> Sequence[DriverJob]:
        """The last driver of each run, the newest first."""
        with _reaching():
            found = [_driver(job) for job in self._client.list_jobs() if _is_ours(job)]
        last = {job.run_id: job for job in sorted(found, key=lambda job: job.number)}
        return sorted(last.values(), key=lambda job: job.started_at or float("inf"), reverse=True)

    def stop(self, run_id: str) -> None:
        """By SIGTERM, by SIGKILL some seconds later; returns when that is asked for."""
        if (last := self.find(run_id)) is not None:
            with _reaching():
                self._client.stop_job(last.submission_id)

    def logs(self, run_id: str) -> str:
        """What its last driver has printed."""
        last = self.find(run_id)
        with _reaching():
            printed: str = "" if last is None else self._client.get_job_logs(last.submission_id)
        return printed


@contextmanager
def _reaching() -> Iterator[None]:
    """Raises ConnectionError: what `requests` raises has that name, and is none."""
    try:
        yield
    except OSError as e:
        raise ConnectionError(f"the Ray dashboard does not answer: {e}") from e


def _submission_id(run_id: str, number: int) -> str:
    return run_id if number == 1 else f"{run_id}-{number}"


def _is_ours(job: JobDetails) -> bool:
    return job.submission_id is not None and (job.metadata or {}).get("kind") == _KIND


def _driver(job: JobDetails) -> DriverJob:
    about = job.metadata
    run_id, _, number = job.submission_id.partition("-")
    return DriverJob(
        run_id,
        job.status,
        job.message or "",
        about["manifest"],
        about["output"],
        about["tenant"],
        _seconds(job.start_time),
        _seconds(job.end_time),
        job.driver_exit_code,
        int(number or 1),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if not milliseconds else milliseconds / 1e3
