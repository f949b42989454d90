"""The audit of what was promised: who is told that a job is completed finds its video, and always
the same one."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Row, Select, false, select

from storage import keys
from storage.errors import ObjectNotFound, ResultDamaged
from storage.jobs import Job, JobStatus, VideoFile
from storage.object_store import ObjectStore
from storage.sql.database import Database
from storage.sql.rows import is_part, to_job
from storage.sql.tables import jobs

_AT_ONCE = 200  # jobs of one look
_BACK_S = 86_400.0
_MOST_KNOWN = 1000
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """Ids of completed, unexpired jobs."""

    lost: frozenset[str] = frozenset()  # no commit, a damaged one, or no video where it says
    duplicate: frozenset[str] = frozenset()  # the row shows another video than the commit names


class Audit:
    """Goes along the ends of jobs as they come, a bounded number each time, from a day ago on. What
    it has found wrong it looks at each time again, until that is mended, deleted or expired."""

    def __init__(
        self, database: Database, objects: ObjectStore, clock: Callable[[], float] = time.time
    ):
        self._database, self._objects, self._clock = database, objects, clock
        self._seen_until = 0.0  # completed_at of the last one that was looked at
        self._findings = Findings()

    def look(self) -> Findings:
        """Raises StoreUnavailable and StoreMisconfigured; the next look begins where this did."""
        since = max(self._seen_until, self._clock() - _BACK_S)
        newer = self._read(_standing().where(jobs.c.completed_at > since).limit(_AT_ONCE))
        known = self._findings.lost | self._findings.duplicate
        suspects = self._wrong([*newer, *self._again(known)])
        # Deleted or expired while it was looked at, it has lost nothing: what is wrong stays wrong.
        wrong = self._wrong(self._again(suspects.lost | suspects.duplicate))
        if newer:
            self._seen_until = max(job.completed_at or 0.0 for job in newer)
        self._findings = wrong
        return wrong

    def _again(self, job_ids: Iterable[str]) -> list[Job]:
        some = sorted(job_ids)[:_MOST_KNOWN]
        return self._read(_standing().where(jobs.c.id.in_(some))) if some else []

    def _read(self, query: Select[Row[object]]) -> list[Job]:
        with self._database.reading() as db:
            return [to_job(row) for row in db.execute(query)]

    def _wrong(self, completed: list[Job]) -> Findings:
        with ThreadPoolExecutor(_CONNECTIONS, "audit") as pool:
            words = list(pool.map(self._look_at, completed))
        found = dict(zip((job.id for job in completed), words, strict=True))
        return Findings(*(frozenset(id for id in found if found[id] == word) for word in _WRONG))

    def _look_at(self, job: Job) -> str:
        assert job.result is not None
        try:
            key = keys.result_key(job.request.tenant, job.result.result_id)
            commit = VideoFile.from_json(self._objects.get(key))
        except (ObjectNotFound, ResultDamaged):
            return "lost"
        if commit.video_key != job.result.video_key:
            return "duplicate"
        return "" if self._objects.stat(commit.video_key) else "lost"


_WRONG = ("lost", "duplicate")


def _standing() -> Select[Row[object]]:
    """Completed jobs whose result is to be there, in the order of their ends."""
    kept = (jobs.c.status == JobStatus.COMPLETED) & (jobs.c.expired == false()) & is_part
    return select(jobs).where(kept, jobs.c.result.is_not(None)).order_by(jobs.c.completed_at)
