"""Webhooks to be sent, written in the same transaction as what they tell: none is lost, none is
told of what did not happen. Statements on an open connection."""

import json
import re
from collections.abc import Iterable
from typing import Any

import uuid_utils
from sqlalchemy import Connection, Row, insert

from storage.jobs import JobRequest
from storage.sql.tables import deliveries


def announce(db: Connection, ended: Iterable[Row[Any]], now: float) -> None:
    """Queue a webhook for each of these rows of ended jobs whose caller asked for one."""
    for row in ended:
        url = JobRequest.from_json(row.request.encode()).webhook
        if url is not None:
            db.execute(insert(deliveries).values(_delivery(row, url, now)))


def _delivery(row: Row[Any], url: str, now: float) -> dict[str, Any]:
    message_id = f"msg_{uuid_utils.uuid7().hex}"
    body = {
        "id": message_id,
        "object": "event",
        "type": f"video.{row.status.value}",
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


def _host(url: str) -> str:
    # Never an error, as urllib's: the end of a job must not fail for its webhook.
    return re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0].lower()
