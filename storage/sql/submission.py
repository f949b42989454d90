"""A new job's rows, and the job that a submission repeats. Statements on an open connection."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from storage.errors import IdempotencyConflict
from storage.job_contract import Idempotency
from storage.jobs import JobRequest, JobStatus, VideoFile
from storage.sql import families, outbox
from storage.sql.rows import row_of
from storage.sql.tables import jobs


def repeated(
    db: Connection, tenant: str, idempotency: Idempotency | None, job_id: str | None = None
) -> Row[Any] | None:
    """The job that stands under this id or this key. Raises IdempotencyConflict."""
    row = None
    own = select(jobs).where(jobs.c.tenant == tenant)
    if job_id is not None:
        row = db.execute(own.where(jobs.c.id == job_id)).one_or_none()
    if row is None and idempotency is not None:
        row = db.execute(own.where(jobs.c.idempotency_key == idempotency.key)).one_or_none()
    if row is not None and idempotency is not None and row.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict(idempotency.key, row.id)
    return row


def submit(
    db: Connection,
    request: JobRequest,
    idempotency: Idempotency | None,
    results: Sequence[VideoFile | None],
    now: float,
) -> Row[Any]:
    """The row of a new job, made with those of its candidates. `results` are those that its parts
    have already, in their order."""
    parts = new_rows(request, idempotency, now)
    whole = parts.pop(0) if request.candidates > 1 else None
    for part, result in zip(parts, results, strict=True):
        if result is not None:
            part |= completed(result, now)
    if whole is None:
        row = db.execute(insert(jobs).values(parts[0]).returning(*jobs.c)).one()
        if row.status.is_terminal:
            outbox.announce(db, [row], now)
        return row
    db.execute(insert(jobs).values(whole))
    for part in parts:  # one by one: their order is that of their seq
        db.execute(insert(jobs).values(part))
    families.refresh(db, [request.id], now)
    return row_of(db, request.tenant, request.id)


def new_rows(
    request: JobRequest, idempotency: Idempotency | None, now: float
) -> list[dict[str, Any]]:
    """A job that waits: its own row first, then those of its candidates, where it has several."""
    if request.candidates == 1:
        return [_row(request, now) | _named(idempotency)]
    # It has no deadline of its own: each of its candidates has.
    whole = {"candidates": request.candidates, "deadline_at": None} | _named(idempotency)
    # No listing shows a candidate, so that none finds it by its category.
    part = {"parent_id": request.id, "category": None} | _named(None)
    return [_row(request, now) | whole, *(_row(each, now) | part for each in request.parts)]


def completed(result: VideoFile, at: float) -> dict[str, Any]:
    """What of a row says that its result is there."""
    return {
        "status": JobStatus.COMPLETED,
        "completed_at": at,
        "result": result.to_json().decode(),
        "result_id": result.result_id,
    }


def _row(request: JobRequest, now: float) -> dict[str, Any]:
    return {
        "id": request.id,
        "tenant": request.tenant,
        "request": request.to_json().decode(),
        "sku": request.sku,
        "category": request.category,
        "batch_id": request.batch_id,
        "candidates": 0,
        "parent_id": None,
        "priority": request.priority,
        "deadline_at": request.deadline_at,
        "photo_sha256": request.photo_sha256,
        "status": JobStatus.QUEUED,
        "created_at": now,
    }


def _named(idempotency: Idempotency | None) -> dict[str, Any]:
    return {
        "idempotency_key": idempotency and idempotency.key,
        "fingerprint": idempotency and idempotency.fingerprint,
    }
