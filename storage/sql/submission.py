"""A new job's row, and the job that a submission repeats. Statements on an open connection."""

from typing import Any

from sqlalchemy import Connection, Row, select

from storage.errors import IdempotencyConflict
from storage.job_contract import Idempotency
from storage.jobs import JobRequest, JobStatus, VideoFile
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


def new_row(
    request: JobRequest, idempotency: Idempotency | None, result: VideoFile | None, now: float
) -> dict[str, Any]:
    """Queued; completed, where its result is there already."""
    values = {
        "id": request.id,
        "tenant": request.tenant,
        "idempotency_key": idempotency and idempotency.key,
        "fingerprint": idempotency and idempotency.fingerprint,
        "request": request.to_json().decode(),
        "sku": request.sku,
        "batch_id": request.batch_id,
        "priority": request.priority,
        "deadline_at": request.deadline_at,
        "photo_sha256": request.photo_sha256,
        "status": JobStatus.QUEUED,
        "created_at": now,
    }
    if result is not None:
        values |= {
            "status": JobStatus.COMPLETED,
            "completed_at": now,
            "result": result.to_json().decode(),
            "result_id": result.result_id,
        }
    return values
