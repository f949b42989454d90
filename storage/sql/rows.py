"""A job's row: whose it is, who may change it, and the Job that it stands for."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from storage.errors import JobNotFound
from storage.jobs import Attempt, Feedback, Job, JobEvent, JobRequest, JobStatus, VideoFile
from storage.sql.tables import jobs

EVENTS_KEPT = 50
"""Per job: what went on lately is of use, and a row must stay small."""

is_part = jobs.c.candidates == 0
"""Of those that are leased, and count: jobs of one clip, and the candidates of others."""

is_visible = jobs.c.parent_id.is_(None)
"""Of those that callers see."""


def row_of(db: Connection, tenant: str, job_id: str, lock: bool = False) -> Row[Any]:
    """Raises JobNotFound, for a candidate too. `lock` it when the same transaction will change
    it."""
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.tenant == tenant, is_visible)
    row = db.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return row


def owned_by(attempt: Attempt) -> ColumnElement[bool]:
    """The fence: true for the attempt's job, until it is given back or a later attempt begins."""
    return (
        (jobs.c.id == attempt.job_id)
        & (jobs.c.attempt == attempt.number)
        & (jobs.c.epoch == attempt.epoch)
        & (jobs.c.status != JobStatus.QUEUED)
    )


def with_events(events: str, new: Sequence[JobEvent]) -> str:
    """The column's text with `new` ones behind, less those that it has: a report may come twice."""
    known = json.loads(events)
    added = [event for event in map(asdict, new) if event not in known]
    return json.dumps([*known, *added][-EVENTS_KEPT:])


def to_job(row: Row[Any], children: Sequence[Row[Any]] = ()) -> Job:
    return Job(
        request=JobRequest.from_json(row.request.encode()),
        status=row.status,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        stage=row.stage,
        step=row.step,
        tier=row.tier,
        attempt=row.attempt,
        epoch=row.epoch,
        lease_until=row.lease_until,
        result=VideoFile.from_json(row.result.encode()) if row.result else None,
        error_code=row.error_code,
        error_message=row.error_message,
        events=tuple(JobEvent(**event) for event in json.loads(row.events)),
        rev=row.rev,
        predicted_at=row.predicted_at,
        expired=row.expired,
        feedback=_to_feedback(row.feedback) if row.feedback else None,
        parent_id=row.parent_id,
        children=tuple(to_job(child) for child in children),
    )


def feedback_json(feedback: Feedback) -> str:
    """Without what is not said: a version that knows less may read it."""
    return json.dumps({k: v for k, v in asdict(feedback).items() if v is not None})


def _to_feedback(column: str) -> Feedback:
    given = json.loads(column)
    return Feedback(**given | {"tags": tuple(given["tags"])})
