"""What attempts left behind that nobody ended: their Dispatcher is gone, or was kept from the job
table for longer than a lease. A result that was committed is recorded, and not lost or made again.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

from deployments.dispatch.results import Results
from monitoring import metrics
from storage.errors import IllegalTransition, ResultPurged, StaleAttempt, StorageError
from storage.job_contract import JobStore
from storage.jobs import Job, JobStatus

log = logging.getLogger(__name__)


async def adopt(jobs: JobStore, results: Results, waiting: Iterable[Job]) -> set[str]:
    """Completes those of `waiting` that are in progress, their lease run out, and whose result
    stands. Returns the ids of those of them of which nothing came: they may fail. Where a store
    does not answer there is no telling, and the job is in neither lot."""
    lost = [job for job in waiting if job.status is JobStatus.IN_PROGRESS]
    empty = await asyncio.gather(*(_came_to_nothing(jobs, results, job) for job in lost))
    return {job.id for job, nothing in zip(lost, empty, strict=True) if nothing}


async def _came_to_nothing(jobs: JobStore, results: Results, job: Job) -> bool:
    try:
        video = await results.find(job.request)
        if video is None:
            return True
        with suppress(StaleAttempt, IllegalTransition, ResultPurged):  # it is somebody's again
            await asyncio.to_thread(jobs.complete, job.current_attempt, video)
            metrics.ATTEMPTS.inc(tags={"outcome": "adopted"})
            metrics.LEASE_EXPIRATIONS.inc()
            log.info("job %s attempt %d: its result stood already", job.id, job.attempt)
    except StorageError:
        log.exception("there is no telling what came of job %s", job.id)
    return False
