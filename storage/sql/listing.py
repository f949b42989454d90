"""What callers and operators ask of the job table without changing it. Statements on an open
connection."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select

from storage.jobs import JobStatus, VideoFile
from storage.sql.rows import is_part, is_visible, row_of
from storage.sql.tables import jobs


def page(
    db: Connection,
    tenant: str,
    limit: int,
    after: str | None,
    order: Literal["asc", "desc"],
    status: JobStatus | None,
    sku: str | None,
    category: str | None,
    batch_id: str | None,
) -> list[Row[Any]]:
    """In order of creation, from behind job `after` on. Raises JobNotFound."""
    ascending = order == "asc"
    query = select(jobs).where(jobs.c.tenant == tenant, is_visible).limit(limit)
    query = query.order_by(jobs.c.seq.asc() if ascending else jobs.c.seq.desc())
    if status is not None:
        query = query.where(jobs.c.status == status)
    if sku is not None:
        query = query.where(jobs.c.sku == sku)
    if category is not None:
        query = query.where(jobs.c.category == category)
    if batch_id is not None:
        query = query.where(jobs.c.batch_id == batch_id)
    if after is not None:
        seen = row_of(db, tenant, after).seq
        query = query.where(jobs.c.seq > seen if ascending else jobs.c.seq < seen)
    return list(db.execute(query))


def made(db: Connection, tenant: str, result_ids: Sequence[str]) -> list[VideoFile | None]:
    """In the order of the ids."""
    query = select(jobs.c.result_id, jobs.c.result).where(
        jobs.c.tenant == tenant, jobs.c.result_id.in_(result_ids)
    )
    found = {row.result_id: row.result for row in db.execute(query)}
    return [
        VideoFile.from_json(found[result_id].encode()) if result_id in found else None
        for result_id in result_ids
    ]


def queued(db: Connection) -> int:
    return db.scalar(select(func.count()).where(jobs.c.status == JobStatus.QUEUED, is_part)) or 0


def counts(db: Connection) -> dict[JobStatus, int]:
    """Zeros included."""
    query = select(jobs.c.status, func.count().label("jobs")).where(is_part)
    found = {row.status: row.jobs for row in db.execute(query.group_by(jobs.c.status))}
    return dict.fromkeys(JobStatus, 0) | found
