"""What follows a deleted job: its objects, and its result when no other job refers to that."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from sqlalchemy import case, delete, select, update

from storage import keys
from storage.errors import ObjectNotFound
from storage.job_contract import Purge
from storage.job_store import SqlJobStore
from storage.jobs import VideoFile
from storage.lifecycle.retention import Tally
from storage.object_store import ObjectStore
from storage.sql.tables import jobs, purges

_BATCH = 200
_LINGER_S = 60.0
"""A worker that read the commit just before it was deleted tells the job table within this time of
the table being there, and has to find the note that refuses it."""
_COUNTED_S = 10.0
"""Of the time between two runs no more counts: the table may have been away, for workers too."""


@dataclass(frozen=True, slots=True)
class _Note:
    purge: Purge
    gone_at: float | None


class Purger:
    """Finishes noted deletions. The notes themselves tell what is done, to whoever goes on."""

    def __init__(
        self,
        store: SqlJobStore,
        objects: ObjectStore,
        pool: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._objects, self._pool, self._clock = store, objects, pool, clock
        self._asked_at: float | None = None  # when the table last answered a run
        self._running = threading.Lock()

    def run(self, tally: Tally) -> None:
        """Where this fails or is killed, the notes stand and the next run does it all again."""
        # Else one run that is slow deletes what was made anew since another forgot its note.
        with self._running:
            self._put_off()
            last = 0
            while batch := self._batch(last):
                last = batch[-1].purge.seq
                new = [note.purge for note in batch if note.gone_at is None]
                self._delete_objects(new)
                tally.deleted["purged jobs"] += len(new)
                self._note_gone(purge for purge in new if purge.result_id is not None)
                over = [purge for purge in new if purge.result_id is None]
                self._forget([*over, *(note.purge for note in batch if self._is_over(note))])

    def run_tenant(self, tenant: str, tally: Tally) -> None:
        """All notes of a tenant that has no jobs any more, and so nobody to come for a result."""
        while notes := self._batch(0, tenant):
            batch = [note.purge for note in notes]
            self._delete_objects(batch)
            list(self._pool.map(self._delete_attempts, batch))
            tally.deleted["purged jobs"] += len(batch)
            self._forget(batch)

    def _put_off(self) -> None:
        """Moves the times at which objects went by what does not count since the last run, or, in
        a process that knows of none, to now. A clock that was set moves them too."""
        now = self._clock()
        if self._asked_at is None:
            late_s = now
        else:
            silent_s = now - self._asked_at
            late_s = silent_s - min(max(silent_s, 0.0), _COUNTED_S)
        if late_s:
            put_off = purges.c.gone_at + late_s
            at_most_now = case((put_off < now, put_off), else_=now)
            late = update(purges).where(purges.c.gone_at.is_not(None))
            with self._store.database.writing() as db:
                db.execute(late.values(gone_at=at_most_now))
        self._asked_at = now

    def _batch(self, after: int, tenant: str | None = None) -> list[_Note]:
        columns = purges.c.seq, purges.c.tenant, purges.c.job_id, purges.c.result_id
        query = select(*columns, purges.c.gone_at).where(purges.c.seq > after)
        query = query.order_by(purges.c.seq).limit(_BATCH)
        if tenant is not None:
            query = query.where(purges.c.tenant == tenant)
        with self._store.database.reading() as db:
            return [_Note(Purge(*row[:-1]), row.gone_at) for row in db.execute(query)]

    def _is_over(self, note: _Note) -> bool:
        return note.gone_at is not None and self._clock() - note.gone_at >= _LINGER_S

    def _note_gone(self, gone: Iterable[Purge]) -> None:
        seqs = [purge.seq for purge in gone]
        if seqs:
            noted = update(purges).where(purges.c.seq.in_(seqs)).values(gone_at=self._clock())
            with self._store.database.writing() as db:
                db.execute(noted)

    def _forget(self, over: Iterable[Purge]) -> None:
        seqs = [purge.seq for purge in over]
        if seqs:
            with self._store.database.writing() as db:
                db.execute(delete(purges).where(purges.c.seq.in_(seqs)))

    def _delete_objects(self, batch: list[Purge]) -> None:
        with self._store.database.reading() as db:
            # A row stands where only the result has expired.
            rows = select(jobs.c.id).where(jobs.c.id.in_([purge.job_id for purge in batch]))
            standing = set(db.scalars(rows))
        gone = [purge.job_id for purge in batch if purge.job_id not in standing]
        doomed = [(purge.tenant, purge.result_id) for purge in batch if purge.result_id]
        list(self._pool.map(self.delete_result, doomed))
        list(self._pool.map(self._delete_job, gone))

    def delete_result(self, address: tuple[str, str]) -> None:
        """The commit first: what it names must be there for as long as it stands."""
        key = keys.result_key(*address)
        try:
            commit = VideoFile.from_json(self._objects.get(key))
        except ObjectNotFound:
            return  # its files are now like any other attempt's that no commit names
        except (ValueError, TypeError):
            named = []  # so are those of one that nobody can read
        else:
            named = [
                commit.video_key,
                commit.poster_key,
                commit.spritesheet_key,
                commit.manifest_key,
            ]
        for doomed in (key, *named):
            self._objects.delete(doomed)

    def _delete_job(self, job_id: str) -> None:
        # Not its attempts/: one may be about to be committed, and then other jobs may refer to it.
        # The collection of garbage tells when that cannot be any more.
        self._objects.delete_prefix(keys.checkpoints_prefix(job_id))
        self._objects.delete_prefix(keys.job_prefix(job_id))

    def _delete_attempts(self, purge: Purge) -> None:
        self._objects.delete_prefix(keys.attempts_prefix(purge.job_id))
