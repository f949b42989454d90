"""The audit of what was promised: who is told that a job is completed finds its video, and always
the same one."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Row, Select, false, func, select

from storage import keys
from storage.errors import ObjectNotFound, ResultDamaged
from storage.jobs import Job, JobStatus, VideoFile
from storage.object_store import ObjectStore
from storage.sql.database import Database
from storage.sql.rows import is_part, to_job
from storage.sql.tables import jobs

_AT_ONCE = 200  # jobs of one look, and so many again
_BACK_S = 86_400.0
_MOST_KNOWN = 1000
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """Ids of completed, unexpired jobs."""

    lost: frozenset[str] = frozenset()  # no commit, a damaged one, or no video where it says
    duplicate: frozenset[str] = frozenset()  # the row shows another video than the commit names


class Audit:
    """Goes along the ends of jobs as they come, from a day before its first look on, a bounded
    number each time. So many of the day's it looks at again, drawn by chance: an object may be
    deleted long after its job has ended. What it has found wrong it looks at each time, until that
    is mended, deleted or expired."""

    def __init__(
        self, database: Database, objects: ObjectStore, clock: Callable[[], float] = time.time
    ):
        self._database, self._objects, self._clock = database, objects, clock
        self._seen_until: float | None = None  # completed_at of the last one that was looked at
        self._findings = Findings()
        self.behind_s: float | None = None  # since that end; None: no newer one waits

    def look(self) -> Findings:
        """Raises StoreUnavailable and StoreMisconfigured; the next look begins where this did."""
        now = self._clock()
        since = now - _BACK_S if self._seen_until is None else self._seen_until
        newer = self._read(_standing().where(jobs.c.completed_at > since).limit(_AT_ONCE))
        is_behind = len(newer) == _AT_ONCE
        drawn = [] if is_behind else self._drawn(now - _BACK_S)
        known = self._again(self._findings.lost | self._findings.duplicate)
        suspects = self._wrong(list({job.id: job for job in (*newer, *drawn, *known)}.values()))
        # Deleted or expired while it was looked at, it has lost nothing: what is wrong stays wrong.
        wrong = self._wrong(self._again(suspects.lost | suspects.duplicate))
        self._seen_until = max((job.completed_at or 0.0 for job in newer), default=since)
        self.behind_s = now - self._seen_until if is_behind else None
        self._findings = wrong
        return wrong

    def _drawn(self, since: float) -> list[Job]:
        """By chance, of those that were looked at. The draw reads an index alone: rows are long."""
        if self._seen_until is None:
            return []
        ended = jobs.c.completed_at.between(since, self._seen_until)
        draw = select(jobs.c.completed_at).where(jobs.c.status == JobStatus.COMPLETED, ended)
        with self._database.reading() as db:
            drawn = list(db.scalars(draw.order_by(func.random()).limit(_AT_ONCE)))
        return self._read(_standing().where(jobs.c.completed_at.in_(drawn))) if drawn else []

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
