"""What stands in the object store of every job, so that its row can be made again: what was asked,
and how it ended."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any, Self

from sqlalchemy import Connection, Row, false, select, update

from storage import keys
from storage.job_contract import Idempotency
from storage.jobs import Feedback, Job, JobEvent, JobRequest, JobStatus, VideoFile
from storage.object_store import ObjectStore
from storage.sql.database import Database
from storage.sql.references import is_being_purged
from storage.sql.rows import to_job
from storage.sql.tables import jobs

ENDED = tuple(status for status in JobStatus if status.is_terminal)
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class JobRecord:
    """jobs/<id>/request.json."""

    request: JobRequest
    idempotency: Idempotency | None
    created_at: float  # Unix seconds

    def to_json(self) -> bytes:
        return _dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes, written_at: float) -> Self:
        """Records of old are the bare request; their job was created when they were written.
        Raises ValueError, KeyError or TypeError for anything else."""
        given = json.loads(data)
        if "request" not in given:
            return cls(JobRequest.from_json(data), None, written_at)
        idempotency = given["idempotency"]
        return cls(
            JobRequest.from_json(json.dumps(given["request"]).encode()),
            Idempotency(**idempotency) if idempotency else None,
            float(given["created_at"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """jobs/<id>/end.json: what the row said when the job had ended. Times are Unix seconds."""

    status: JobStatus
    completed_at: float | None
    started_at: float | None
    attempt: int
    tier: str | None
    step: int
    result: VideoFile | None
    error_code: str | None
    error_message: str | None
    events: tuple[JobEvent, ...]
    feedback: Feedback | None

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(**{name: getattr(job, name) for name in cls.__dataclass_fields__})

    def to_json(self) -> bytes:
        return _dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError, KeyError or TypeError for what is none."""
        given: dict[str, Any] = json.loads(data)
        given["status"] = JobStatus(given["status"])
        if given["status"] not in ENDED:
            raise ValueError(f"{given['status']} is not an end")
        result = given["result"]
        given["result"] = VideoFile.from_json(json.dumps(result).encode()) if result else None
        given["events"] = tuple(JobEvent(**event) for event in given["events"])
        given["feedback"] = Feedback(**given["feedback"]) if given["feedback"] else None
        return cls(**given)


def record_ends(
    database: Database,
    objects: ObjectStore,
    limit: int,
    ended: Callable[[Job], object] = lambda _: None,
) -> int:
    """Write down how jobs ended, `limit` at most, and say of how many; call again until that is 0.
    `ended` hears of each, and again of one that was retried or rated since.

    Of completed ones too: the commit in results/ tells neither when, nor after which events. Raises
    StoreUnavailable; what was written then is written again.
    """
    query = select(jobs).where(jobs.c.recorded == false(), jobs.c.status.in_(ENDED)).limit(limit)
    with database.reading() as db:
        rows = db.execute(query).all()
    if not rows:
        return 0

    def put(job: Job) -> None:
        objects.put(keys.end_key(job.id), JobEnd.of(job).to_json(), "application/json")

    with ThreadPoolExecutor(_CONNECTIONS, "record-ends") as pool:
        list(pool.map(put, map(to_job, rows)))
    with database.writing() as db:
        # Who holds several rows waits for none: families are locked in an order of their own.
        named = select(jobs.c.seq).where(jobs.c.seq.in_([row.seq for row in rows]))
        free = set(db.scalars(named.with_for_update(skip_locked=True)))
        rows = [row for row in rows if row.seq in free]
        recorded = []
        for row in rows:
            # Retried by an operator since it was read: its next end is still to be recorded. Nobody
            # who watches the job needs to hear of this, so its revision stays.
            # Or recorded meanwhile by another process, which has told of it.
            same = (jobs.c.seq == row.seq) & (jobs.c.rev == row.rev) & (jobs.c.recorded == false())
            done = db.execute(update(jobs).where(same).values(recorded=True, rev=jobs.c.rev))
            if done.rowcount:
                recorded.append(row)
        _refer(db, [row for row in rows if row.result and not (row.result_id or row.expired)])
    for row in recorded:
        ended(to_job(row))
    return len(rows)


def _refer(db: Connection, rows: Iterable[Row[Any]]) -> None:
    """Version 1 of the tables, which may still run beside this one, knows no references: without
    one the video of a job that it completed would be collected as nobody's."""
    made = {row.seq: (row.tenant, json.loads(row.result)["result_id"]) for row in rows}
    # Each result is held, after its row: who holds several does so in order.
    for seq, (tenant, result_id) in sorted(made.items(), key=itemgetter(1)):
        if is_being_purged(db, tenant, result_id):
            values: dict[str, Any] = {"expired": True}
        else:
            values = {"result_id": result_id}
        db.execute(update(jobs).where(jobs.c.seq == seq).values(values))


def _dumps(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
