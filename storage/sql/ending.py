"""A row's way from one status to another, but for those that many rows take at once (`leasing`).
Statements on an open connection."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from storage.errors import IllegalTransition, JobNotFound, StaleAttempt
from storage.jobs import Attempt, JobRequest, JobStatus, check_transition
from storage.sql import families, outbox
from storage.sql.rows import is_visible, owned_by, row_of
from storage.sql.tables import jobs

_OF_A_TRY = dict.fromkeys(("stage", "tier", "predicted_at")) | {"step": 0}
_OF_AN_END = dict.fromkeys(("deadline_at", "completed_at", "error_code", "error_message"))


def owned(db: Connection, attempt: Attempt) -> Row[Any]:
    """The attempt's job, locked. Raises StaleAttempt."""
    families.lock(db, [attempt.job_id])
    row = db.execute(select(jobs).where(owned_by(attempt)).with_for_update()).first()
    if row is None:
        raise StaleAttempt(attempt.job_id, attempt.number, attempt.epoch)
    return row


def end(
    db: Connection, row: Row[Any], target: JobStatus, now: float, values: Mapping[str, Any]
) -> Row[Any]:
    """Of an attempt, or of a job that waits. Raises IllegalTransition."""
    check_transition(row.id, row.status, target)
    completed_at = now if target.is_terminal else None
    ended = {"status": target, "lease_until": None, "completed_at": completed_at} | dict(values)
    now_row = change(db, row, ended)
    if target.is_terminal:
        outbox.announce(db, [now_row], now)
    families.refresh(db, [row.parent_id], now)
    return now_row


def give_back(
    db: Connection, row: Row[Any], reason: str, most: int, now: float, values: Mapping[str, Any]
) -> Row[Any]:
    """For another attempt; none is left after `most` failures, which `values` count. Raises
    IllegalTransition."""
    again = _OF_A_TRY | dict(values)
    if values["failures"] < most:
        return end(db, row, JobStatus.QUEUED, now, again)
    message = f"gave up after {values['failures']} failed attempts"
    failed = {"error_code": reason, "error_message": message}
    return end(db, row, JobStatus.FAILED, now, again | failed)


def cancel(db: Connection, tenant: str, job_id: str, now: float) -> Row[Any]:
    """A job that has ended stays as it ended. Raises JobNotFound."""
    row = row_of(db, tenant, job_id, lock=True)
    if row.status.is_terminal:
        return row
    if row.candidates == 0:
        return end(db, row, JobStatus.CANCELLED, now, {})
    families.cancel(db, row, now)
    return row_of(db, tenant, job_id)


def retry(db: Connection, job_id: str) -> Row[Any]:
    """Queues a failed job again, or all of its candidates. Raises JobNotFound and
    IllegalTransition."""
    whole = select(jobs).where(jobs.c.id == job_id, is_visible).with_for_update()
    row = db.execute(whole).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    if row.status is not JobStatus.FAILED:
        raise IllegalTransition(job_id, row.status, JobStatus.QUEUED)
    parts = select(jobs).where(jobs.c.parent_id == job_id).order_by(jobs.c.seq)
    for part in db.execute(parts.with_for_update()).all():  # it failed: so did every one
        _queue_again(db, part)
    return _queue_again(db, row)


def _queue_again(db: Connection, row: Row[Any]) -> Row[Any]:
    # The workers read its deadline in the request.
    asked = replace(JobRequest.from_json(row.request.encode()), deadline_at=None)
    again = {
        "status": JobStatus.QUEUED,
        "request": asked.to_json().decode(),
        "failures": 0,
        "recorded": False,
    }
    return change(db, row, _OF_A_TRY | _OF_AN_END | again)


def change(db: Connection, row: Row[Any], values: Mapping[str, Any]) -> Row[Any]:
    changed = update(jobs).where(jobs.c.seq == row.seq).values(values)
    return db.execute(changed.returning(*jobs.c)).one()
