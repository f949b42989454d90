"""The tables, and what every store reads and writes in them; `migrations` makes them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Enum,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
)

from diffusion.params import Priority
from storage.errors import JobNotFound
from storage.jobs import Attempt, Feedback, Job, JobEvent, JobRequest, JobStatus, Stage, VideoFile

EVENTS_KEPT = 50
"""Per job: what went on lately is of use, and a row must stay small."""

metadata = MetaData()


def _serial(name: str) -> Column[int]:
    # SQLite counts up by itself only in an INTEGER primary key.
    return Column(name, BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _words(kind: type[StrEnum]) -> Enum:
    """Plain text in the table, so that a new word needs no migration; the StrEnum in Python."""
    return Enum(kind, native_enum=False, length=32, values_callable=_values)


def _values(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


_WAITS = text("status = 'queued'")

jobs = Table(
    "jobs",
    metadata,
    _serial("seq"),  # order of creation: the queue's and every listing's
    Column("id", String(128), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),  # of the body that came with the idempotency key
    Column("request", Text, nullable=False),  # JobRequest as JSON
    Column("sku", Text),
    Column("batch_id", String(64)),
    Column("priority", _words(Priority), nullable=False),
    Column("deadline_at", Double),
    Column("status", _words(JobStatus), nullable=False),
    Column("created_at", Double, nullable=False),  # this and the times below in Unix seconds
    Column("started_at", Double),
    Column("completed_at", Double),
    Column("stage", _words(Stage)),
    Column("step", Integer, nullable=False, default=0),
    Column("tier", String(128)),
    Column("attempt", Integer, nullable=False, default=0),  # tries begun: the fence
    Column("failures", Integer, nullable=False, default=0),  # tries that count against the job
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("lease_until", Double),
    Column("result", Text),  # VideoFile as JSON
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("events", Text, nullable=False, default="[]"),  # JobEvents as JSON
    # Goes up with every change, so that who watches asks for what he has not seen.
    Column("rev", BigInteger, nullable=False, server_default="0", onupdate=text("rev + 1")),
    Column("photo_sha256", String(64)),
    Column("result_id", String(64)),  # the result it refers to; NULL again once that has expired
    Column("expired", Boolean, nullable=False, default=False, server_default=false()),
    Column("predicted_at", Double),  # when it should end, as it was foreseen when it was leased
    Column("feedback", Text),  # Feedback as JSON
    # Its end is in the object store too, for a rebuild of this table.
    Column("recorded", Boolean, nullable=False, default=False, server_default=false()),
    UniqueConstraint("tenant", "idempotency_key"),
    Index("jobs_queue", "status", "priority", "tenant", "seq"),
    Index("jobs_deadlines", "status", "deadline_at"),
    Index("jobs_listing", "tenant", "seq"),
    Index("jobs_listing_status", "tenant", "status", "seq"),
    Index("jobs_listing_sku", "tenant", "sku", "seq"),
    Index("jobs_listing_batch", "tenant", "batch_id", "seq"),
    Index("jobs_results", "tenant", "result_id"),
    Index("jobs_photos", "tenant", "photo_sha256"),
    Index("jobs_ended", "status", "completed_at"),
    Index("jobs_created", "tenant", "created_at"),
    Index("jobs_unrecorded", "recorded", "status"),
    Index("jobs_line", "priority", "seq", sqlite_where=_WAITS, postgresql_where=_WAITS),
    sqlite_autoincrement=True,  # a deleted row's seq is not given out again
)

dispatchers = Table(
    "dispatchers",
    metadata,
    _serial("epoch"),
    Column("started_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("quota", Text, nullable=False),  # Quota as JSON
    Column("created_at", Double, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),  # the part of a key that may be shown
    Column("tenant", String(128), nullable=False),
    Column("label", String(200), nullable=False),
    Column("digest", String(64), nullable=False),  # sha256 of the whole key
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Index("api_keys_tenant", "tenant"),
)

files = Table(
    "files",
    metadata,
    _serial("seq"),
    Column("id", String(128), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("filename", Text, nullable=False),
    Column("media_type", String(128), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("files_listing", "tenant", "seq"),
    Index("files_content", "tenant", "sha256"),
    sqlite_autoincrement=True,
)

deliveries = Table(  # webhooks: written in the transaction that ends a job
    "deliveries",
    metadata,
    _serial("seq"),
    Column("id", String(128), nullable=False, unique=True),  # webhook-id: the same in every try
    Column("tenant", String(128), nullable=False),
    Column("job_id", String(128), nullable=False),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),  # with the port: who shares it waits for it
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("due_at", Double),  # NULL: it is over
    Column("outcome", String(32)),
    Column("detail", Text),
    Index("deliveries_due", "due_at"),
    Index("deliveries_job", "job_id"),
    sqlite_autoincrement=True,
)

endpoints = Table(  # webhook addresses that asked for no more (410)
    "endpoints",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("url", String(2048), primary_key=True),
    Column("disabled_at", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

creations = Table(  # of the last minute, of tenants who may make so many in a minute
    "creations",
    metadata,
    _serial("seq"),
    Column("tenant", String(128), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("creations_recent", "tenant", "created_at"),
    sqlite_autoincrement=True,
)

purges = Table(  # deleted jobs whose objects are not all gone yet
    "purges",
    metadata,
    _serial("seq"),
    Column("tenant", String(128), nullable=False),
    Column("job_id", String(128), nullable=False),
    Column("result_id", String(64)),  # the result to go with it, if no other job refers to that
    Column("created_at", Double, nullable=False),
    Column("gone_at", Double),  # since when its objects are gone, less the time nobody asked
    Index("purges_results", "tenant", "result_id"),
    sqlite_autoincrement=True,
)

batches = Table(  # catalogue runs that were asked for by HTTP
    "batches",
    metadata,
    _serial("seq"),
    Column("id", String(128), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),  # of the body that came with the idempotency key
    Column("request", Text, nullable=False),  # as JSON; storage does not look inside
    Column("output_uri", String(2048), nullable=False),  # one unfinished batch each
    Column("webhook", Text),
    Column("status", String(32), nullable=False),  # a BatchStatus
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("moments", Text, nullable=False),  # status -> when it began, Unix seconds, as JSON
    Column("total", BigInteger, nullable=False),  # rows; this and the next two as last seen
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("errors", Text, nullable=False),  # BatchErrors as JSON
    Column("drivers", Integer, nullable=False),  # started so far
    Column("losses", Integer, nullable=False),  # of drivers, since rows were last done
    Column("looks", BigInteger, nullable=False),  # claims so far: the fence of who looks after it
    Column("due_at", Double),  # of the next look; NULL: it is over
    UniqueConstraint("tenant", "idempotency_key"),
    Index("batches_listing", "tenant", "seq"),
    Index("batches_due", "due_at"),
    Index("batches_output", "output_uri"),
    sqlite_autoincrement=True,
)

facts = Table(  # one value each, as JSON: what one part tells the others
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("written_at", Double, nullable=False),
)


def row_of(db: Connection, tenant: str, job_id: str, lock: bool = False) -> Row[Any]:
    """Raises JobNotFound. `lock` it when the same transaction will change it."""
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.tenant == tenant)
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


def to_job(row: Row[Any]) -> Job:
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
    )


def _to_feedback(column: str) -> Feedback:
    given = json.loads(column)
    return Feedback(**given | {"tags": tuple(given["tags"])})
