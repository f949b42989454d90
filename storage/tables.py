"""The SQL under the job store: its tables, and transactions that lose no acknowledged row."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Enum,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from diffusion.params import Priority
from storage.errors import JobNotFound, StoreMisconfigured, StoreUnavailable
from storage.jobs import Attempt, Job, JobEvent, JobRequest, JobStatus, Stage, VideoFile

EVENTS_KEPT = 50
"""Per job: what went on lately is of use, and a row must stay small."""

_WAL_TRIES, _WAL_WAIT_S = 100, 0.05

metadata = MetaData()


def _serial(name: str) -> Column[int]:
    # SQLite counts up by itself only in an INTEGER primary key.
    return Column(name, BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _words(kind: type[StrEnum]) -> Enum:
    """Plain text in the table, so that a new word needs no migration; the StrEnum in Python."""
    return Enum(kind, native_enum=False, length=32, values_callable=_values)


def _values(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


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
    UniqueConstraint("tenant", "idempotency_key"),
    Index("jobs_queue", "status", "priority", "tenant", "seq"),
    Index("jobs_deadlines", "status", "deadline_at"),
    Index("jobs_listing", "tenant", "seq"),
    sqlite_autoincrement=True,  # a deleted row's seq is not given out again
)

dispatchers = Table(
    "dispatchers",
    metadata,
    _serial("epoch"),
    Column("started_at", Double, nullable=False),
    sqlite_autoincrement=True,
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
    )


def open_tables(url: str) -> tuple[Engine, Engine]:
    """Two views of one connection pool, for transactions that only read and for those that write.
    Makes the tables where they are missing."""
    reads = create_engine(url)
    if reads.dialect.name == "sqlite":
        event.listen(reads, "connect", _prepare_sqlite)
        event.listen(reads, "begin", _begin_sqlite)
    # SQLite has one writer, and those who wait for it poll: without a queue some wait for seconds.
    writer = threading.Lock() if reads.dialect.name == "sqlite" else nullcontext()
    writes = reads.execution_options(writes=True, writer=writer)
    with transaction(writes) as db:
        metadata.create_all(db)
        found = {column["name"] for column in inspect(db).get_columns(jobs.name)}
    if missing := {column.name for column in jobs.columns} - found:
        raise StoreMisconfigured(
            f"the job table of {reads.url!r} is of another version: it lacks {sorted(missing)};"
            " start with another data folder, or with the version that made it"
        )
    return reads, writes


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin only at the first write, too late for a transaction that reads first
    # (SQLAlchemy docs, "pysqlite: serializable isolation"); _begin_sqlite does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 15000")  # ms; first: the next line may have to wait
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait
            break
        except sqlite3.OperationalError:  # several at once: the timeout does not cover this switch
            if tries_left == 0:
                raise
            time.sleep(_WAL_WAIT_S)
    connection.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last rows in a power cut


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that has read cannot wait for the write lock any more: SQLite fails it at once.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Commits at the end, rolls back on an exception. Raises StoreUnavailable when the database is
    locked for too long, full, or not there."""
    try:
        with engine.get_execution_options().get("writer", nullcontext()), engine.begin() as db:
            yield db
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(f"job table: {error}") from error
