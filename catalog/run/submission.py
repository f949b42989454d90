"""Runs as Ray jobs. The run's id is the submission id: Ray itself refuses a second driver."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from catalog.run.options import RunOptions

STOPPED = 3
"""Exit code of a driver that ended before its run, and knows why."""

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

    @property
    def has_succeeded(self) -> bool:
        return self.status is JobStatus.SUCCEEDED

    @property
    def is_lost(self) -> bool:
        """It was killed, or the node under it: another one would go on where it was."""
        return self.status is JobStatus.FAILED and self.exit_code not in (1, STOPPED)

    @property
    def is_at_work(self) -> bool:
        return not self.status.is_terminal()


class DriverJobs:
    """Those of one Ray cluster. Every method raises RuntimeError where its dashboard refuses, and
    ConnectionError where it does not answer."""

    def __init__(self, dashboard_url: str):
        self._client = JobSubmissionClient(dashboard_url)

    def start(self, options: RunOptions, tenant: str, command: Sequence[str]) -> bool:
        """Whether a driver was started: False where one is at work on this run already."""
        found = self.find(options.run_id)
        if found is not None:
            if found.is_at_work:
                return False
            self._client.delete_job(options.run_id)  # it has ended; its id is wanted again
        about = {
            "kind": _KIND,
            "manifest": options.manifest_uri,
            "output": options.output_uri,
            "tenant": tenant,
        }
        try:
            self._client.submit_job(
                entrypoint=shlex.join(command), submission_id=options.run_id, metadata=about
            )
        except RuntimeError:  # somebody else's was quicker
            found = self.find(options.run_id)
            if found is None or not found.is_at_work:
                raise
            return False
        return True

    def find(self, run_id: str) -> DriverJob | None:
        return next((job for job in self.list() if job.run_id == run_id), None)

    def list(self) -> Sequence[DriverJob]:
        """The newest first."""
        found = [_driver(job) for job in self._client.list_jobs() if _is_ours(job)]
        return sorted(found, key=lambda job: job.started_at or float("inf"), reverse=True)

    def stop(self, run_id: str) -> None:
        """By SIGTERM, by SIGKILL some seconds later; returns when that is asked for."""
        self._client.stop_job(run_id)

    def logs(self, run_id: str) -> str:
        printed: str = self._client.get_job_logs(run_id)
        return printed


def _is_ours(job: JobDetails) -> bool:
    return job.submission_id is not None and (job.metadata or {}).get("kind") == _KIND


def _driver(job: JobDetails) -> DriverJob:
    about = job.metadata
    return DriverJob(
        job.submission_id,
        job.status,
        job.message or "",
        about["manifest"],
        about["output"],
        about["tenant"],
        _seconds(job.start_time),
        _seconds(job.end_time),
        job.driver_exit_code,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if not milliseconds else milliseconds / 1e3
