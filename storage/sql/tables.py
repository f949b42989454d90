"""The tables; `migrations` makes them."""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Enum,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from diffusion.params import Priority
from storage.jobs import JobStatus, Stage

metadata = MetaData()


def _serial(name: str) -> Column[int]:
    # SQLite counts up by itself only in an INTEGER primary key.
    return Column(name, BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def _words(kind: type[StrEnum]) -> Enum:
    """Plain text in the table, so that a new word needs no migration; the StrEnum in Python."""
    return Enum(kind, native_enum=False, length=32, values_callable=_values)


def _values(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


class _StageWord(TypeDecorator[Stage]):
    """A Stage; None where a newer release wrote a word that this one does not know: they may share
    the table while one replaces the other."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: Stage | None, dialect: Dialect) -> str | None:
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Stage | None:
        return Stage(value) if value in set(Stage) else None


_WAITS = text("status = 'queued'")
_OF_A_FAMILY = text("parent_id IS NOT NULL")
_KEPT = text("result_id IS NOT NULL AND parent_id IS NULL")

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
    Column("category", Text),
    Column("batch_id", String(64)),
    # A job of several candidates is never leased: it has so many rows that are, its children.
    Column("candidates", Integer, nullable=False, default=0, server_default="0"),
    Column("parent_id", String(128)),
    Column("priority", _words(Priority), nullable=False),
    Column("deadline_at", Double),
    Column("status", _words(JobStatus), nullable=False),
    Column("created_at", Double, nullable=False),  # this and the times below in Unix seconds
    Column("started_at", Double),
    Column("completed_at", Double),
    Column("stage", _StageWord),
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
    # `candidates` at the end, so that the index alone tells who is not to be leased.
    Index("jobs_queue", "status", "priority", "tenant", "seq", "candidates"),
    Index("jobs_deadlines", "status", "deadline_at"),
    Index("jobs_listing", "tenant", "seq"),
    Index("jobs_listing_status", "tenant", "status", "seq", "candidates"),
    Index("jobs_listing_sku", "tenant", "sku", "seq"),
    Index("jobs_listing_category", "tenant", "category", "seq"),
    Index("jobs_listing_batch", "tenant", "batch_id", "seq"),
    Index("jobs_results", "tenant", "result_id"),
    Index("jobs_photos", "tenant", "photo_sha256"),
    Index("jobs_ended", "status", "completed_at"),
    # Those that still have a video: what has expired is not read again to find what is to expire.
    Index("jobs_kept", "status", "completed_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
    Index("jobs_created", "tenant", "created_at"),
    Index("jobs_unrecorded", "recorded", "status"),
    Index(
        "jobs_line", "priority", "seq", "candidates", sqlite_where=_WAITS, postgresql_where=_WAITS
    ),
    Index("jobs_family", "parent_id", sqlite_where=_OF_A_FAMILY, postgresql_where=_OF_A_FAMILY),
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
    Index("files_stored", "tenant", "size_bytes"),  # alone tells what a tenant has stored
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
    Index("deliveries_due", "due_at", "created_at"),  # when due; where over, how old
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
    Index("purges_listing", "tenant", "seq"),
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
    Column("prepared", Boolean, nullable=False),  # its manifest is where its drivers find it
    Column("starts", Integer, nullable=False),  # of drivers, since rows were last done
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
