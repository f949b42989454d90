"""What follows a deleted job: its objects, and its result when no other job refers to that."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from sqlalchemy import case, delete, select, update

from storage import keys
from storage.errors import ObjectNotFound
from storage.job_contract import Purge
from storage.job_store import SqlJobStore
from storage.jobs import VideoFile
from storage.lifecycle.forgetting import Address
from storage.lifecycle.pages import delete_page
from storage.lifecycle.retention import Tally
from storage.object_store import ObjectStore
from storage.sql.tables import jobs, purges

_BATCH, _PUT_OFF_AT_ONCE = 200, 1000
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
        """All notes of a tenant that has neither jobs nor results any more, and so nobody to come
        for one."""
        while notes := self._batch(0, tenant):
            batch = [note.purge for note in notes]
            names = [purge.job_id for purge in batch]
            self._delete_jobs(names)
            list(self._pool.map(self._objects.delete_prefix, map(keys.attempts_prefix, names)))
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
        last = 0
        while late_s and (seqs := self._lingering(last)):
            last = seqs[-1]
            put_off = purges.c.gone_at + late_s
            at_most_now = case((put_off < now, put_off), else_=now)
            late = update(purges).where(purges.c.seq.in_(seqs))
            with self._store.database.writing() as db:
                db.execute(late.values(gone_at=at_most_now))
        # Where this fails half-way, or is killed, the next run moves all of them, some twice: late.
        self._asked_at = now

    def _lingering(self, after: int) -> Sequence[int]:
        gone = select(purges.c.seq).where(purges.c.seq > after, purges.c.gone_at.is_not(None))
        with self._store.database.reading() as db:
            return db.scalars(gone.order_by(purges.c.seq).limit(_PUT_OFF_AT_ONCE)).all()

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
        commits = self._read_all(doomed)
        # The reads may have taken longer than another process, a Housekeeper that replaces this
        # one, needed to delete all this and to forget it: what is read now may be made anew.
        due = self._still_due(batch)
        self._delete({address: commits[address] for address in doomed if address in due})
        self._delete_jobs(gone)

    def _still_due(self, batch: Sequence[Purge]) -> set[Address]:
        """Results whose objects nobody has deleted by now, by the notes."""
        due = purges.c.seq.in_([purge.seq for purge in batch]) & purges.c.gone_at.is_(None)
        with self._store.database.reading() as db:
            rows = db.execute(select(purges.c.tenant, purges.c.result_id).where(due))
            return {(row.tenant, row.result_id) for row in rows}

    def delete_results(self, addresses: Sequence[Address]) -> None:
        """Of a tenant that nobody works for any more."""
        self._delete(self._read_all(addresses))

    def _read_all(self, addresses: Sequence[Address]) -> dict[Address, bytes | None]:
        return dict(zip(addresses, self._pool.map(self._read, addresses), strict=True))

    def _delete(self, results: Mapping[Address, bytes | None]) -> None:
        """The commits first: what they name must be there for as long as they stand."""
        commits, files = [], []
        for address, data in results.items():
            if data is None:
                continue  # its files are now like any other attempt's that no commit names
            commits.append(keys.result_key(*address))
            try:
                commit = VideoFile.from_json(data)
            except (ValueError, TypeError):
                continue  # so are those of one that nobody can read
            files += [
                commit.video_key,
                commit.poster_key,
                commit.spritesheet_key,
                commit.manifest_key,
            ]
        delete_page(self._objects, self._pool, commits)
        delete_page(self._objects, self._pool, files)

    def _read(self, commit: Address) -> bytes | None:
        try:
            return self._objects.get(keys.result_key(*commit))
        except ObjectNotFound:
            return None

    def _delete_jobs(self, job_ids: Sequence[str]) -> None:
        # Not their attempts/: one may be about to be committed, and then other jobs may refer to
        # it. The collection of garbage tells when that cannot be any more.
        list(self._pool.map(self._objects.delete_prefix, map(keys.checkpoints_prefix, job_ids)))
        records = [key(job_id) for job_id in job_ids for key in (keys.request_key, keys.end_key)]
        delete_page(self._objects, self._pool, records)
