"""One poll of the job table for all who watch jobs on this API replica."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from storage.job_contract import JobStore
from storage.jobs import Job

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Topic:
    """A job, and those who watch it. They all see this one state: who is slow misses some, and
    nothing piles up."""

    listeners: int = 0
    job: Job | None = None  # the newest seen
    gone: bool = False  # deleted
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def has_news(self, seen_rev: int | None) -> bool:
        return self.gone or (
            self.job is not None and (self.job.rev != seen_rev or self.job.status.is_terminal)
        )


class Watch:
    def __init__(self, jobs: JobStore, poll_s: float = 0.5):
        self._jobs, self._poll_s = jobs, poll_s
        self._topics: dict[str, _Topic] = {}
        self._polling: asyncio.Task[None] | None = None
        self._closed = False

    async def close(self) -> None:
        """All that is followed ends where it stands, now and from now on: this replica leaves, and
        who comes back to another one goes on there."""
        self._closed = True
        for topic in list(self._topics.values()):
            async with topic.changed:
                topic.changed.notify_all()

    async def follow(
        self, job_id: str, after_rev: int | None = None, silence_s: float | None = None
    ) -> AsyncGenerator[Job]:
        """The job's states as they come, the newest only where several came at once. The first is
        one whose `rev` is not `after_rev`; after `silence_s` without a new one, the last is told
        again. Ends after a terminal state, which is yielded whatever its `rev`, and when the job
        is deleted or this is closed. A table that is away is waited for."""
        topic = self._topics.setdefault(job_id, _Topic())
        topic.listeners += 1
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        seen = after_rev
        try:
            while True:
                with suppress(TimeoutError):
                    async with topic.changed, asyncio.timeout(silence_s):
                        while not (self._closed or topic.has_news(seen)):
                            await topic.changed.wait()
                if topic.gone or self._closed:
                    return
                if (job := topic.job) is None:  # not read yet
                    continue
                yield job
                if job.status.is_terminal:
                    return
                seen = job.rev
        finally:
            topic.listeners -= 1
            if not topic.listeners and self._topics.get(job_id) is topic:
                del self._topics[job_id]

    async def wait(self, job_id: str, wait_s: float) -> bool:
        """For the job's end, `wait_s` at most. False: cut short, as this is closed or the job was
        deleted."""
        ended = False
        try:
            async with asyncio.timeout(wait_s), aclosing(self.follow(job_id)) as states:
                async for job in states:
                    ended = job.status.is_terminal
        except TimeoutError:
            return True
        return ended

    async def _poll(self) -> None:
        while self._topics:
            known = {
                job_id: None if topic.job is None else topic.job.rev
                for job_id, topic in self._topics.items()
            }
            try:
                await self._tell(await asyncio.to_thread(self._changes, known))
            except Exception:  # whatever it is, the others' streams go on
                log.exception("the watched jobs cannot be read; their watchers wait")
            await asyncio.sleep(self._poll_s)

    def _changes(self, known: Mapping[str, int | None]) -> dict[str, Job | None]:
        """The jobs whose rev is not the known one; None for those that are no more."""
        revisions = self._jobs.revisions(list(known))
        newer = [job_id for job_id, rev in revisions.items() if rev != known[job_id]]
        jobs = self._jobs.get_many(newer) if newer else []
        return {job.id: job for job in jobs} | dict.fromkeys(known.keys() - revisions.keys())

    async def _tell(self, changes: Mapping[str, Job | None]) -> None:
        for job_id, job in changes.items():
            if topic := self._topics.get(job_id):
                topic.job, topic.gone = job, job is None
                async with topic.changed:
                    topic.changed.notify_all()
