"""Webhooks to be sent, written in the same transaction as what they tell: none is lost, none is
told of what did not happen. Statements on an open connection."""

import json
import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, insert, select

from storage.jobs import JobRequest, JobStatus
from storage.sql.tables import deliveries

_EVENTS = UUID("8b0e5a0c-6d0f-4c1e-9a55-3a1f6c0b7d21")
"""Namespace of the ids of webhooks."""


def announce(db: Connection, ended: Iterable[Row[Any]], now: float) -> None:
    """Queue a webhook for each of these rows of ended jobs whose caller asked for one, unless it
    was queued before."""
    for row in ended:
        url = JobRequest.from_json(row.request.encode()).webhook
        if url is None:
            continue
        _queue(db, _message_id(row), row, f"video.{row.status.value}", url, now)


def announce_batch(db: Connection, ended: Row[Any], now: float) -> None:
    """The same for the row of a batch, which ends once."""
    if ended.webhook is not None:
        message_id = f"msg_{uuid5(_EVENTS, ended.id).hex}"
        _queue(db, message_id, ended, f"batch.{ended.status}", ended.webhook, now)


def _queue(
    db: Connection, message_id: str, row: Row[Any], event: str, url: str, now: float
) -> None:
    known = select(deliveries.c.seq).where(deliveries.c.id == message_id)
    if db.execute(known).first() is None:
        db.execute(insert(deliveries).values(_delivery(message_id, row, event, url, now)))


def _delivery(message_id: str, row: Row[Any], event: str, url: str, now: float) -> dict[str, Any]:
    body = {
        "id": message_id,
        "object": "event",
        "type": event,
        "created_at": int(now),
        "data": {"id": row.id},
    }
    return {
        "id": message_id,
        "tenant": row.tenant,
        "job_id": row.id,
        "url": url,
        "host": _host(url),
        "body": json.dumps(body),
        "created_at": now,
        "due_at": now,
    }


def _message_id(row: Row[Any]) -> str:
    """Of this end of the job, and not drawn: where a lost table is rebuilt and the end is told
    again, the receiver knows it. Only a job that failed may end again, with a later attempt."""
    number = row.attempt if row.status is JobStatus.FAILED else 0
    return f"msg_{uuid5(_EVENTS, f'{row.id}/{row.status.value}/{number}').hex}"


def _host(url: str) -> str:
    # Never an error, as urllib's: the end of a job must not fail for its webhook.
    return re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0].lower()
