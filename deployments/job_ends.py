"""Jobs that have ended, as metrics: counted once, from the table, whoever ended them."""

from collections.abc import Sequence

from monitoring import metrics
from storage.jobs import Job, JobStatus


def begin_counting_ends(tiers: Sequence[str]) -> None:
    metrics.begin(metrics.JOBS, metrics.JOB_FAILURES, tier=[*tiers, metrics.NO_TIER])


def count_end(job: Job) -> None:
    """Hears of each end that is recorded."""
    rated = job.feedback is not None  # and recorded anew for that: it was counted before
    if rated or job.request.candidates > 1:  # these count for themselves
        return
    tier = job.tier or metrics.NO_TIER
    metrics.JOBS.inc(tags={"tier": tier, "outcome": job.status.value})
    if job.status is JobStatus.FAILED:
        metrics.JOB_FAILURES.inc(tags={"code": job.error_code or "internal"})
    elif job.status is JobStatus.COMPLETED and job.completed_at is not None:
        labels = {"tier": tier, "priority": job.request.priority.value}
        metrics.JOB_SECONDS.observe(max(0.0, job.completed_at - job.created_at), tags=labels)
