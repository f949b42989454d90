"""How an attempt ends, and the write of it: however long the job table is away, nothing that was
paid for is lost."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat

from deployments.dispatch.results import Results
from monitoring import metrics
from storage.errors import (
    IllegalTransition,
    ResultPurged,
    StaleAttempt,
    StorageError,
    StoreUnavailable,
)
from storage.job_contract import JobStore
from storage.jobs import Attempt, Job, JobEvent, VideoFile

log = logging.getLogger(__name__)

_WAITS_S = (0.5, 1, 2, 4, 8, 8, 8, 8)
"""Between two tries to write an end; the last one again and again."""
_WITH_RESULT = ("completed", "reused")


@dataclass(frozen=True, slots=True)
class End:
    outcome: str  # as metrics.ATTEMPTS counts it
    write: Callable[..., Job]  # JobStore.complete, fail or release, waiting for (attempt, events=…)


class Ends:
    """`events` are those of an attempt that are not in the table yet. `linger` hears of an attempt
    whose result is just being purged, `forget` of a job that has ended."""

    def __init__(
        self,
        jobs: JobStore,
        results: Results,
        events: Callable[[Attempt], Sequence[JobEvent]],
        linger: Callable[[Job, ResultPurged], object],
        forget: Callable[[str], object],
    ):
        self._jobs, self._results = jobs, results
        self._events, self._linger, self._forget = events, linger, forget

    def completed(self, video: VideoFile, outcome: str = "completed") -> End:
        return End(outcome, partial(self._jobs.complete, video=video))

    def failed(self, code: str, message: str) -> End:
        return End("failed", partial(self._jobs.fail, code=code, message=message))

    def released(self, reason: str, charge: bool) -> End:
        return End("released", partial(self._jobs.release, reason=reason, charge=charge))

    async def write(self, job: Job, end: End) -> str:
        """Returns the outcome as it stands in the table."""
        outcome = await self._written(job, end)
        metrics.ATTEMPTS.inc(tags={"outcome": outcome})
        log.info("job %s attempt %d: %s", job.id, job.attempt, outcome, extra={"outcome": outcome})
        return outcome

    async def _written(self, job: Job, end: End) -> str:
        attempt = job.current_attempt
        for tried, wait_s in enumerate(chain(_WAITS_S, repeat(_WAITS_S[-1]))):
            try:
                if tried and end.outcome in _WITH_RESULT:
                    end = await self._look_again(job, end)
                stands = await asyncio.to_thread(end.write, attempt, events=self._events(attempt))
            except StaleAttempt:  # what is remembered of the job is for the attempt that has it now
                return "stale"
            except IllegalTransition:
                self._forget(job.id)
                return "stale"
            except ResultPurged as purged:
                self._linger(job, purged)
            except StoreUnavailable:
                log.exception("the end of %s is not written yet", job.id)
                if end.outcome == "released" and tried >= len(_WAITS_S):
                    return "unrecorded"  # its lease will run out: the same, only later
            except StorageError:
                log.exception("the end of %s cannot be written; its lease will run out", job.id)
                return "unrecorded"
            else:
                if stands.status.is_terminal:
                    self._forget(job.id)
                return end.outcome
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _look_again(self, job: Job, end: End) -> End:
        """The end as it is now: a result may have been purged since it was found or made, and the
        table know nothing of that any more. Raises StoreUnavailable and StoreMisconfigured."""
        video = await self._results.find(job.request)
        if video is None:
            return self.released("purged", charge=False)
        return self.completed(video, end.outcome)
