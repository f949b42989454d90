"""The rows of one job, read from what stands of it in the object store."""

import json
from collections.abc import Callable
from dataclasses import asdict
from re import compile as pattern
from typing import Any, TypeVar

from storage import keys
from storage.errors import ObjectNotFound, RecordDamaged
from storage.jobs import JobRequest, JobStatus, VideoFile
from storage.lifecycle.records import JobEnd, JobRecord
from storage.object_store import ObjectInfo, ObjectStore
from storage.sql.rows import feedback_json
from storage.sql.submission import completed, new_rows

T = TypeVar("T")

_NUMBER = pattern(r"(?:attempts|checkpoints)/[^/]+/(\d+)[/.]")
_UNTOLD = {
    "started_at": None,
    "completed_at": None,
    "attempt": 0,
    "tier": None,
    "step": 0,
    "result": None,
    "result_id": None,
    "expired": False,
    "error_code": None,
    "error_message": None,
    "events": "[]",
    "feedback": None,
    "recorded": False,
}
"""The same columns for every row: they are inserted together."""


def rows_of(objects: ObjectStore, job_id: str, request: ObjectInfo) -> list[dict[str, Any]]:
    """A job's, and behind it those of its candidates; none when it was deleted meanwhile. Of one of
    several candidates that has not ended, the rows of these tell the rest. Raises RecordDamaged."""
    try:
        record = _parsed(
            objects, request.key, lambda data: JobRecord.from_json(data, request.modified_at)
        )
    except ObjectNotFound:
        return []
    asked = record.request
    if asked.id != job_id:
        raise RecordDamaged(request.key, f"it is of job {asked.id}")
    told = []
    end = _end(objects, job_id)
    if asked.candidates > 1:
        told.append({} if end is None else _ended(objects, asked, end))
        told += [_of_candidate(objects, part, end) for part in asked.parts]
    else:
        told.append(_of_part(objects, asked, end))
    blank = new_rows(asked, record.idempotency, record.created_at)
    return [row | _UNTOLD | more for row, more in zip(blank, told, strict=True)]


def _of_candidate(objects: ObjectStore, part: JobRequest, whole: JobEnd | None) -> dict[str, Any]:
    """With the `whole` it has ended too, whether that was written or not: it must not run again."""
    end = _end(objects, part.id)
    if whole is None or end is not None:
        return _of_part(objects, part, end)
    if whole.result is not None and whole.result.result_id == part.result_id:
        return _ended(objects, part, whole) | {"feedback": None}
    made = _committed(objects, part)
    cancelled = {"status": JobStatus.CANCELLED, "completed_at": whole.completed_at}
    return cancelled | {"recorded": True} if made is None else made


def _of_part(objects: ObjectStore, part: JobRequest, end: JobEnd | None) -> dict[str, Any]:
    if end is not None:
        return _ended(objects, part, end)
    made = _committed(objects, part)
    if made is None:
        # One more: a try that has left nothing yet may still run, and must not meet the next one.
        return {"attempt": _last_attempt(objects, part.id) + 1}
    return made


def _committed(objects: ObjectStore, part: JobRequest) -> dict[str, Any] | None:
    """Its result stands, and nobody has written down that it has ended."""
    commit = _commit(objects, part.tenant, part.result_id)
    if commit is None:
        return None
    written = objects.stat(keys.result_key(part.tenant, part.result_id))
    return None if written is None else completed(commit, written.modified_at)


def _ended(objects: ObjectStore, request: JobRequest, end: JobEnd) -> dict[str, Any]:
    result, kept = end.result, False
    if result is not None:
        # It may have expired, and another job made the same one anew since.
        commit = _commit(objects, request.tenant, result.result_id)
        kept = commit is not None and commit.video_key == result.video_key
    return {
        "status": end.status,
        "completed_at": end.completed_at,
        "started_at": end.started_at,
        "attempt": end.attempt,
        "tier": end.tier,
        "step": end.step,
        "result": result and result.to_json().decode(),
        "result_id": result.result_id if kept and result else None,
        "expired": end.status is JobStatus.COMPLETED and not kept,
        "error_code": end.error_code,
        "error_message": end.error_message,
        "events": json.dumps([asdict(event) for event in end.events]),
        "feedback": end.feedback and feedback_json(end.feedback),
        "recorded": True,
    }


def _end(objects: ObjectStore, job_id: str) -> JobEnd | None:
    try:
        return _parsed(objects, keys.end_key(job_id), JobEnd.from_json)
    except ObjectNotFound:
        return None


def _commit(objects: ObjectStore, tenant: str, result_id: str) -> VideoFile | None:
    try:
        return _parsed(objects, keys.result_key(tenant, result_id), VideoFile.from_json)
    except ObjectNotFound:
        return None


def _parsed(objects: ObjectStore, key: str, parse: Callable[[bytes], T]) -> T:
    data = objects.get(key)
    try:
        return parse(data)
    except (ValueError, KeyError, TypeError) as error:
        raise RecordDamaged(key, f"{type(error).__name__}: {error}") from error


def _last_attempt(objects: ObjectStore, job_id: str) -> int:
    """The highest number under which a try has left something; 0: none."""
    prefixes = keys.attempts_prefix(job_id), keys.checkpoints_prefix(job_id)
    left = (info.key for prefix in prefixes for info in objects.iter_objects(prefix))
    return max((int(match[1]) for match in map(_NUMBER.match, left) if match), default=0)
