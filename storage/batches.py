"""Batches: a row for each catalogue run that was asked for by HTTP, until long after its end.

Who looks after one claims it by moving its `due_at` ahead: if he dies, the next one takes it then.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from storage.errors import BatchNotFound, IdempotencyConflict, OutputTaken, QuotaExceeded
from storage.job_contract import Idempotency
from storage.jobs import Job, JobStatus
from storage.sql import families, tenancy
from storage.sql.database import Database, hold
from storage.sql.outbox import announce_batch
from storage.sql.tables import batches, jobs

_ROOM_LATER_S = 60
_LIVE = (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"  # every row has ended; the report is being written
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (self.COMPLETED, self.FAILED, self.EXPIRED, self.CANCELLED)


@dataclass(frozen=True, slots=True)
class BatchError:
    code: str
    message: str
    param: str | None = None  # the column or field that it is about
    line: int | None = None  # of the input, the first is 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Times are Unix seconds."""

    id: str
    tenant: str
    request: str  # JSON, the caller's own
    output_uri: str
    webhook: str | None = None
    expires_at: float | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    created_at: float = 0.0
    moments: Mapping[BatchStatus, float] = field(default_factory=dict)  # when each status began
    counts: Counts = Counts()
    errors: tuple[BatchError, ...] = ()
    prepared: bool = False  # its manifest is where its drivers find it
    starts: int = 0  # of drivers, since rows were last done
    looks: int = 0  # claims so far: the fence


class SqlBatches:
    """Synchronous, safe from several threads and processes; every method may raise
    StoreUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def find(self, tenant: str, idempotency: Idempotency) -> Batch | None:
        """What stands under the key. Raises IdempotencyConflict."""
        with self._database.reading() as db:
            return _repeated(db, tenant, idempotency)

    def create(
        self,
        batch: Batch,
        idempotency: Idempotency | None = None,
        most_unfinished: int | None = None,
        registered: bool = False,
    ) -> tuple[Batch, bool]:
        """The batch that stands under the key already, and True, where there is one. Raises
        IdempotencyConflict, QuotaExceeded when the tenant would have more than `most_unfinished`,
        OutputTaken, and TenantNotFound where the tenant must be `registered` and is not."""
        with self._database.writing() as db:
            hold(db, "batches", batch.tenant)
            if idempotency and (standing := _repeated(db, batch.tenant, idempotency)):
                return standing, True
            if registered:
                tenancy.require(db, batch.tenant)
            hold(db, "batch output", batch.output_uri)
            live = select(func.count()).select_from(batches).where(batches.c.due_at.is_not(None))
            own = live.where(batches.c.tenant == batch.tenant)
            if most_unfinished is not None and (db.scalar(own) or 0) >= most_unfinished:
                raise QuotaExceeded("unfinished_batches", most_unfinished, _ROOM_LATER_S)
            if db.scalar(live.where(batches.c.output_uri == batch.output_uri)):
                raise OutputTaken(batch.output_uri)
            values = _values(batch, idempotency, self._clock())
            added = insert(batches).values(values).returning(*batches.c)
            return _to_batch(db.execute(added).one()), False

    def get(self, tenant: str, batch_id: str) -> Batch:
        """Raises BatchNotFound, for another tenant's batch too."""
        with self._database.reading() as db:
            return _to_batch(_row_of(db, tenant, batch_id))

    def list_batches(self, tenant: str, *, limit: int, after: str | None) -> list[Batch]:
        """The newest first, from behind batch `after` on. Raises BatchNotFound."""
        query = select(batches).where(batches.c.tenant == tenant)
        query = query.order_by(batches.c.seq.desc()).limit(limit)
        with self._database.reading() as db:
            if after is not None:
                query = query.where(batches.c.seq < _row_of(db, tenant, after).seq)
            return [_to_batch(row) for row in db.execute(query)]

    def ask_to_cancel(self, tenant: str, batch_id: str) -> Batch:
        """Whoever looks after it does the rest; one that has ended stays as it ended. Raises
        BatchNotFound."""
        with self._database.writing() as db:
            row = _row_of(db, tenant, batch_id, lock=True)
            if row.due_at is None or row.status == BatchStatus.CANCELLING:
                return _to_batch(row)
            asked = _entering(row, BatchStatus.CANCELLING, self._clock())
            return _to_batch(_changed(db, row, asked))

    def claim(self, lease_s: float) -> Batch | None:
        """The batch that has been due for longest; nobody else gets it for so long."""
        now = self._clock()
        due = select(batches).where(batches.c.due_at <= now).order_by(batches.c.due_at).limit(1)
        with self._database.reading() as db:  # most looks find nothing: no lock for those
            if db.execute(due).first() is None:
                return None
        with self._database.writing() as db:
            row = db.execute(due.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            return _to_batch(_changed(db, row, {"due_at": now + lease_s, "looks": row.looks + 1}))

    def renew(self, batch: Batch, lease_s: float) -> bool:
        """False: it was claimed anew since."""
        mine = update(batches).where(batches.c.id == batch.id, batches.c.looks == batch.looks)
        with self._database.writing() as db:
            return bool(db.execute(mine.values(due_at=self._clock() + lease_s)).rowcount)

    def look_again(self, batch: Batch, after_s: float) -> None:
        """The end of a claim: what the batch is now, for the next look. Nothing where it was
        claimed anew since. Who asked meanwhile to cancel it keeps his word."""
        with self._database.writing() as db:
            row = _row_of(db, batch.tenant, batch.id, lock=True)
            if row.looks != batch.looks or row.due_at is None:
                return
            cancelling = row.status == BatchStatus.CANCELLING
            status = BatchStatus.CANCELLING if cancelling else batch.status
            due_at = self._clock() + (0 if cancelling and batch.status != status else after_s)
            _changed(db, row, _seen(batch) | self._moved(row, status) | {"due_at": due_at})

    def end(self, batch: Batch) -> None:
        """It is over, and its webhook is queued. Nothing where it was claimed anew since."""
        with self._database.writing() as db:
            row = _row_of(db, batch.tenant, batch.id, lock=True)
            if row.looks != batch.looks or row.due_at is None:
                return
            ended = _seen(batch) | self._moved(row, batch.status) | {"due_at": None}
            announce_batch(db, _changed(db, row, ended), self._clock())

    def rows_remaining(self) -> int:
        """Rows of unfinished batches that have not ended, of all tenants."""
        left = func.sum(batches.c.total - batches.c.completed - batches.c.failed)
        with self._database.reading() as db:
            return int(db.scalar(select(left).where(batches.c.due_at.is_not(None))) or 0)

    def jobs_by_key(self, tenant: str, keys: Collection[str]) -> dict[str, Job]:
        """The tenant's jobs by idempotency key, as far as there are some."""
        query = select(jobs).where(jobs.c.tenant == tenant, jobs.c.idempotency_key.in_(keys))
        with self._database.reading() as db:
            return _by_key(db, query)

    def live_jobs(self, tenant: str, run_id: str) -> dict[str, Job]:
        """The jobs of a run that have not ended, by idempotency key."""
        query = select(jobs).where(
            jobs.c.tenant == tenant,
            jobs.c.batch_id == run_id,
            jobs.c.status.in_(_LIVE),
            jobs.c.idempotency_key.is_not(None),
        )
        with self._database.reading() as db:
            return _by_key(db, query)

    def _moved(self, row: Row[Any], status: BatchStatus) -> dict[str, Any]:
        return {} if row.status == status else _entering(row, status, self._clock())


def _entering(row: Row[Any], status: BatchStatus, now: float) -> dict[str, Any]:
    moments = json.loads(row.moments) | {status.value: now}
    return {"status": status.value, "moments": json.dumps(moments)}


def _seen(batch: Batch) -> dict[str, Any]:
    return {
        **asdict(batch.counts),
        "errors": _errors_json(batch.errors),
        "prepared": batch.prepared,
        "starts": batch.starts,
    }


def _values(batch: Batch, idempotency: Idempotency | None, now: float) -> dict[str, Any]:
    return {
        **_seen(batch),
        "id": batch.id,
        "tenant": batch.tenant,
        "idempotency_key": idempotency and idempotency.key,
        "fingerprint": idempotency and idempotency.fingerprint,
        "request": batch.request,
        "output_uri": batch.output_uri,
        "webhook": batch.webhook,
        "status": batch.status.value,
        "created_at": now,
        "expires_at": batch.expires_at,
        "moments": json.dumps({batch.status.value: now}),
        "looks": 0,
        "due_at": now,
    }


def _repeated(db: Connection, tenant: str, idempotency: Idempotency) -> Batch | None:
    query = select(batches).where(
        batches.c.tenant == tenant, batches.c.idempotency_key == idempotency.key
    )
    row = db.execute(query).one_or_none()
    if row is None:
        return None
    if row.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict(idempotency.key, row.id)
    return _to_batch(row)


def _row_of(db: Connection, tenant: str, batch_id: str, lock: bool = False) -> Row[Any]:
    query = select(batches).where(batches.c.id == batch_id, batches.c.tenant == tenant)
    row = db.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise BatchNotFound(batch_id)
    return row


def _changed(db: Connection, row: Row[Any], values: Mapping[str, Any]) -> Row[Any]:
    change = update(batches).where(batches.c.seq == row.seq).values(values)
    return db.execute(change.returning(*batches.c)).one()


def _errors_json(errors: Sequence[BatchError]) -> str:
    return json.dumps([asdict(error) for error in errors])


def _to_batch(row: Row[Any]) -> Batch:
    return Batch(
        id=row.id,
        tenant=row.tenant,
        request=row.request,
        output_uri=row.output_uri,
        webhook=row.webhook,
        expires_at=row.expires_at,
        status=BatchStatus(row.status),
        created_at=row.created_at,
        moments={BatchStatus(name): at for name, at in json.loads(row.moments).items()},
        counts=Counts(row.total, row.completed, row.failed),
        errors=tuple(BatchError(**error) for error in json.loads(row.errors)),
        prepared=row.prepared,
        starts=row.starts,
        looks=row.looks,
    )


def _by_key(db: Connection, query: Select[Any]) -> dict[str, Job]:
    rows = db.execute(query).all()
    keys = [row.idempotency_key for row in rows]
    return dict(zip(keys, families.to_jobs(db, rows), strict=True))
