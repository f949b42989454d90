"""The job table made again from the object store: what was asked, what was committed, how it ended.

Rows that exist are left as they are, so a rebuild may run at any time, and again after it failed.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, insert, select, tuple_
from sqlalchemy.exc import IntegrityError

from storage import keys
from storage.errors import RecordDamaged, StoreUnavailable, WrongBucket
from storage.job_store import SqlJobStore
from storage.jobs import JobStatus
from storage.lifecycle.birth import knows_since, note_rebuilt
from storage.lifecycle.restoring import rows_of
from storage.object_store import ObjectInfo, ObjectStore
from storage.sql import families, outbox
from storage.sql.references import is_being_purged
from storage.sql.rows import is_visible
from storage.sql.tables import jobs, purges

_BATCH = 200  # jobs per transaction
_CONNECTIONS = 16
_COMPLAINTS_KEPT = 100
_ROWS_ASKED = 100
_SETTLED_S = 60.0  # by then the record of a job has followed its row


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found under jobs/."""

    restored: dict[JobStatus, int]  # made again, by status
    standing: int  # jobs that have a row
    damaged: int  # jobs that are not restored
    complaints: tuple[str, ...]  # why not; the first hundred


@dataclass(frozen=True, slots=True)
class _Found:
    job_id: str
    request: ObjectInfo


def rebuild(
    store: SqlJobStore, objects: ObjectStore, now: float, report: Callable[[int, int], None]
) -> Rebuilt:
    """Restore every job that has no row. Reports (jobs seen, rows restored) as it goes.

    Where nothing was damaged, the table counts as whole from `now` (Unix seconds) on: what has no
    row may be collected. Raises WrongBucket before anything is written, for a bucket that tells of
    no job at all or of none of the table's. Raises StoreUnavailable; running it again goes on from
    there.
    """
    _check_bucket(store, objects, now)
    # Before the first row that is older than the table itself: where this breaks off, what has no
    # row yet must not pass for deleted.
    knows_since(store.database, now)
    restored = dict.fromkeys(JobStatus, 0)
    standing, complaints, damaged, seen = 0, [], 0, 0
    # Ids begin with the time, so the order of the keys is that of creation, near enough.
    found_jobs = _found(objects.iter_objects("jobs/"))
    with ThreadPoolExecutor(_CONNECTIONS, "rebuild") as pool:
        while batch := list(islice(found_jobs, _BATCH)):
            seen += len(batch)
            known, deleted = _known(store, batch)
            standing += len(known)
            missing = [found for found in batch if found.job_id not in known | deleted]
            rows: list[dict[str, Any]] = []
            for read in pool.map(lambda found: _read(objects, found), missing):
                if isinstance(read, RecordDamaged):
                    damaged += 1
                    complaints.append(str(read))
                else:
                    rows += read
            for status in _insert(store, rows, now):
                restored[status] += 1
            report(seen, sum(restored.values()))
    if not damaged:
        note_rebuilt(store.database, now)
    return Rebuilt(restored, standing, damaged, tuple(complaints[:_COMPLAINTS_KEPT]))


def _check_bucket(store: SqlJobStore, objects: ObjectStore, now: float) -> None:
    if next(_found(objects.iter_objects("jobs/")), None) is None:
        raise WrongBucket(
            "the bucket holds no record of a job: it is another one than the lost table's, or empty"
            " itself; nothing was changed"
        )
    # One is enough: a caller who went away in the middle has left a row without its record.
    settled = is_visible & (jobs.c.created_at < now - _SETTLED_S)
    newest = select(jobs.c.id).where(settled).order_by(jobs.c.seq.desc()).limit(_ROWS_ASKED)
    with store.database.reading() as db:
        known = db.scalars(newest).all()
    if known and all(objects.stat(keys.request_key(job_id)) is None for job_id in known):
        raise WrongBucket(
            f"the bucket holds jobs, but none of the last {len(known)} that the table has: it is"
            " another service's; nothing was changed"
        )


def _found(listing: Iterator[ObjectInfo]) -> Iterator[_Found]:
    """A folder without a request belongs to a job that is being deleted, or to a candidate, of
    which its job's tells."""
    for job_id, folder in groupby(listing, lambda info: info.key.split("/")[1]):
        files = {info.key: info for info in folder}
        request = files.get(f"jobs/{job_id}/request.json")
        if request is not None:
            yield _Found(job_id, request)


def _known(store: SqlJobStore, batch: Sequence[_Found]) -> tuple[set[str], set[str]]:
    """Jobs that have a row, and those whose deletion is not finished."""
    ids = [found.job_id for found in batch]
    with store.database.reading() as db:
        return (
            set(db.scalars(select(jobs.c.id).where(jobs.c.id.in_(ids)))),
            set(db.scalars(select(purges.c.job_id).where(purges.c.job_id.in_(ids)))),
        )


def _read(objects: ObjectStore, found: _Found) -> list[dict[str, Any]] | RecordDamaged:
    try:
        return rows_of(objects, found.job_id, found.request)
    except RecordDamaged as damaged:
        return damaged


def _insert(store: SqlJobStore, rows: list[dict[str, Any]], now: float) -> list[JobStatus]:
    """What the jobs are that no one has inserted meanwhile."""
    if not rows:
        return []
    try:
        with store.database.writing() as db:
            ids = [row["id"] for row in rows]
            known = set(db.scalars(select(jobs.c.id).where(jobs.c.id.in_(ids))))
            fresh = [row for row in rows if row["id"] not in known]
            fresh.sort(key=itemgetter("created_at"))
            _drop_taken_keys(db, fresh)
            for row in sorted(fresh, key=_address):  # each is held; who holds several sorts them
                if row["result_id"] and is_being_purged(db, row["tenant"], row["result_id"]):
                    row |= {"result_id": None, "expired": True}
            if not fresh:
                return []
            added = insert(jobs).returning(*jobs.c, sort_by_parameter_order=True)
            made = db.execute(added, fresh).all()
            # It was completed and the table lost before that was recorded: its caller may not have
            # heard.
            outbox.announce(db, [row for row in made if row.result_id and not row.recorded], now)
            families.restore(db, [row for row in made if row.candidates], now)
            names = [row.id for row in made if row.parent_id is None]
            return list(db.scalars(select(jobs.c.status).where(jobs.c.id.in_(names))))
    except IntegrityError as error:  # Postgres: a job was created under one of the keys just now
        raise StoreUnavailable(f"job table: {error.orig}") from error


def _address(row: dict[str, Any]) -> tuple[str, str]:
    return row["tenant"], row["result_id"] or ""


def _drop_taken_keys(db: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """An idempotency key names one job: the one that has a row, else the oldest."""
    named = [(r["tenant"], r["idempotency_key"]) for r in rows if r["idempotency_key"] is not None]
    columns = jobs.c.tenant, jobs.c.idempotency_key
    rows_with_one = db.execute(select(*columns).where(tuple_(*columns).in_(named)))
    taken = {(tenant, key) for tenant, key in rows_with_one}
    for row in rows:
        name = row["tenant"], row["idempotency_key"]
        if name in taken:
            row |= {"idempotency_key": None, "fingerprint": None}
        elif row["idempotency_key"] is not None:
            taken.add(name)
