"""Which jobs refer to a result, and which deletions still have objects to delete: a result goes
with the last job that refers to it, and nobody refers to one that goes. Statements on an open
connection."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from storage.job_contract import Purge
from storage.jobs import VideoFile
from storage.sql.database import hold
from storage.sql.tables import jobs, purges

_PURGE = (purges.c.seq, purges.c.tenant, purges.c.job_id, purges.c.result_id)


def is_being_purged(db: Connection, tenant: str, result_id: str) -> bool:
    """Whether the objects of a result are about to be deleted: nobody may refer to it anew. The
    answer holds until the transaction ends, so that it may write the reference."""
    hold_result(db, tenant, result_id)
    doomed = (purges.c.tenant == tenant) & (purges.c.result_id == result_id)
    return db.execute(select(purges.c.seq).where(doomed).limit(1)).first() is not None


def standing(
    db: Connection, tenant: str, results: Sequence[VideoFile | None]
) -> list[VideoFile | None]:
    """These, without those that are being purged; that holds until the transaction ends."""
    ids = {result.result_id for result in results if result is not None}
    # In order, as everybody holds several.
    doomed = {result_id for result_id in sorted(ids) if is_being_purged(db, tenant, result_id)}
    return [None if r is None or r.result_id in doomed else r for r in results]


def forget(db: Connection, row: Row[Any], now: float) -> Purge:
    """Deletes the row of a job, locked by the caller, and notes which objects have to follow."""
    db.execute(delete(jobs).where(jobs.c.seq == row.seq))
    result_id = row.result_id
    if result_id is not None and _is_referred_to(db, row.tenant, result_id):
        result_id = None
    return _note(db, row, result_id, now)


def release(db: Connection, rows: Sequence[Row[Any]], now: float) -> None:
    """These jobs, completed, refer to their results no more, which go if no other job does."""
    for row in sorted(rows, key=lambda row: str(row.result_id)):  # each is held: in order
        dropped = update(jobs).where(jobs.c.seq == row.seq)
        db.execute(dropped.values(result_id=None, expired=True))
        if not _is_referred_to(db, row.tenant, row.result_id):
            _note(db, row, row.result_id, now)


def _note(db: Connection, row: Row[Any], result_id: str | None, now: float) -> Purge:
    noted = insert(purges).values(
        tenant=row.tenant, job_id=row.id, result_id=result_id, created_at=now
    )
    return Purge(*db.execute(noted.returning(*_PURGE)).one())


def unfinished_purges(db: Connection, limit: int) -> list[Purge]:
    """Oldest first."""
    return [Purge(*row) for row in db.execute(select(*_PURGE).order_by(purges.c.seq).limit(limit))]


def finish_purge(db: Connection, purge: Purge) -> None:
    db.execute(delete(purges).where(purges.c.seq == purge.seq))


def _is_referred_to(db: Connection, tenant: str, result_id: str) -> bool:
    hold_result(db, tenant, result_id)
    referring = (jobs.c.tenant == tenant) & (jobs.c.result_id == result_id)
    return db.execute(select(jobs.c.seq).where(referring).limit(1)).first() is not None


def hold_result(db: Connection, tenant: str, result_id: str) -> None:
    """Nobody else begins or ends to refer to it, until the transaction ends."""
    # Else one transaction finds no purge and refers to the result, while another finds no reference
    # and notes its purge: neither sees what the other has not committed.
    hold(db, "result", tenant, result_id)
