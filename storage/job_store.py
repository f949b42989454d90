"""The job table, which is also the queue: the JobStore on SQL."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from storage import leasing
from storage.errors import IdempotencyConflict, StaleAttempt, StoreUnavailable
from storage.job_contract import Idempotency, JobStore, Progress
from storage.jobs import (
    Attempt,
    Job,
    JobEvent,
    JobRequest,
    JobStatus,
    VideoFile,
    check_transition,
)
from storage.tables import (
    dispatchers,
    jobs,
    open_tables,
    owned_by,
    row_of,
    to_job,
    transaction,
    with_events,
)

__all__ = ["Idempotency", "JobStore", "JobStoreConfig", "Progress", "SqlJobStore"]


class JobStoreConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # An SQLAlchemy URL of a SQLite file. The SQL is written for Postgres too, which comes with a
    # driver and its own run of the tests. In-memory SQLite is one database per connection.
    url: str = Field(pattern=r"^sqlite:///[^:]")
    lease_s: float = Field(default=30.0, gt=0)  # a Dispatcher silent for longer has lost its jobs
    max_attempts: int = Field(default=3, ge=1)  # failures that a job is given


class SqlJobStore(JobStore):
    """A JobStore on SQLite or Postgres. Make one per process: connections do not survive a fork."""

    def __init__(self, config: JobStoreConfig, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._reads, self._writes = open_tables(config.url)

    def close(self) -> None:
        self._reads.dispose()

    def create(self, request: JobRequest, idempotency: Idempotency | None = None) -> Job:
        values = {
            "id": request.id,
            "tenant": request.tenant,
            "idempotency_key": idempotency and idempotency.key,
            "fingerprint": idempotency and idempotency.fingerprint,
            "request": request.to_json().decode(),
            "sku": request.sku,
            "priority": request.priority,
            "deadline_at": request.deadline_at,
            "status": JobStatus.QUEUED,
            "created_at": self._clock(),
        }
        try:
            with transaction(self._writes) as db:
                return to_job(db.execute(insert(jobs).values(values).returning(*jobs.c)).one())
        except IntegrityError:
            pass  # known already: asked only now, as two callers could ask before either inserts
        known = jobs.c.id == request.id
        if idempotency:
            known = or_(known, jobs.c.idempotency_key == idempotency.key)
        with transaction(self._reads) as db:
            row = db.execute(select(jobs).where(jobs.c.tenant == request.tenant, known)).first()
        if row is None:
            raise StoreUnavailable(f"the job that {request.id} repeats was deleted just now")
        if idempotency and row.fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict(idempotency.key, row.id)
        return to_job(row)

    def get(self, tenant: str, job_id: str) -> Job:
        with transaction(self._reads) as db:
            return to_job(row_of(db, tenant, job_id))

    def list_jobs(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        status: JobStatus | None = None,
        sku: str | None = None,
    ) -> list[Job]:
        ascending = order == "asc"
        query = select(jobs).where(jobs.c.tenant == tenant).limit(limit)
        query = query.order_by(jobs.c.seq.asc() if ascending else jobs.c.seq.desc())
        if status is not None:
            query = query.where(jobs.c.status == status)
        if sku is not None:
            query = query.where(jobs.c.sku == sku)
        with transaction(self._reads) as db:
            if after is not None:
                seen = row_of(db, tenant, after).seq
                query = query.where(jobs.c.seq > seen if ascending else jobs.c.seq < seen)
            return [to_job(row) for row in db.execute(query)]

    def cancel(self, tenant: str, job_id: str) -> Job:
        with transaction(self._writes) as db:
            row = row_of(db, tenant, job_id, lock=True)
            if row.status.is_terminal:
                return to_job(row)
            return self._end(db, row, JobStatus.CANCELLED)

    def delete(self, tenant: str, job_id: str) -> Job:
        with transaction(self._writes) as db:
            row = row_of(db, tenant, job_id, lock=True)
            db.execute(delete(jobs).where(jobs.c.seq == row.seq))
        return to_job(row)

    def next_epoch(self) -> int:
        with transaction(self._writes) as db:
            started = insert(dispatchers).values(started_at=self._clock())
            epoch: int = db.execute(started.returning(dispatchers.c.epoch)).scalar_one()
            return epoch

    def waiting(self, per_tenant: int) -> list[Job]:
        if per_tenant < 1:  # SQLite would take it for "no limit"
            raise ValueError(f"cannot list {per_tenant} jobs per tenant")
        with transaction(self._reads) as db:
            found = leasing.first_of_each_tenant(db, per_tenant, self._clock())
        return [to_job(row) for row in found]

    def lease(self, epoch: int, job_ids: Mapping[str, str]) -> list[Job]:
        with transaction(self._writes) as db:
            leasing.require_newest(db, epoch)
            now = self._clock()
            leasing.fail_worn_out(db, now, self._config.max_attempts)
            leased = leasing.take(db, job_ids, epoch, now, now + self._config.lease_s)
        return [to_job(row) for row in leased]

    def expire(self, epoch: int) -> list[str]:
        with transaction(self._writes) as db:
            leasing.require_newest(db, epoch)
            return leasing.fail_overdue(db, self._clock())

    def owned(self, attempts: Sequence[Attempt]) -> set[Attempt]:
        query = select(jobs.c.id, jobs.c.attempt, jobs.c.epoch).where(
            jobs.c.id.in_({attempt.job_id for attempt in attempts}),
            jobs.c.status == JobStatus.IN_PROGRESS,
        )
        with transaction(self._reads) as db:
            return {Attempt(*row) for row in db.execute(query)}.intersection(attempts)

    def record_progress(self, updates: Sequence[Progress], epoch: int) -> list[Attempt]:
        disowned = []
        with transaction(self._writes) as db:
            leasing.require_newest(db, epoch)
            lease_until = self._clock() + self._config.lease_s
            for report in updates:
                mine = owned_by(report.attempt) & (jobs.c.status == JobStatus.IN_PROGRESS)
                values = {"stage": report.stage, "step": report.step, "lease_until": lease_until}
                if not db.execute(update(jobs).where(mine).values(values)).rowcount:
                    disowned.append(report.attempt)
                elif report.events:
                    kept = db.scalars(select(jobs.c.events).where(mine)).one()
                    events = with_events(kept, report.events)
                    db.execute(update(jobs).where(mine).values(events=events))
        return disowned

    def complete(self, attempt: Attempt, video: VideoFile, events: Sequence[JobEvent] = ()) -> Job:
        result = video.to_json().decode()
        return self._leave(attempt, JobStatus.COMPLETED, events, result=result)

    def fail(
        self, attempt: Attempt, code: str, message: str, events: Sequence[JobEvent] = ()
    ) -> Job:
        return self._leave(
            attempt, JobStatus.FAILED, events, error_code=code, error_message=message
        )

    def release(
        self,
        attempt: Attempt,
        reason: str,
        charge: bool = True,
        events: Sequence[JobEvent] = (),
    ) -> Job:
        with transaction(self._writes) as db:
            row = self._owned(db, attempt)
            failures = row.failures + charge
            again = {
                "failures": failures,
                "stage": None,
                "step": 0,
                "tier": None,
                "events": with_events(row.events, events),
            }
            if failures < self._config.max_attempts:
                return self._end(db, row, JobStatus.QUEUED, **again, completed_at=None)
            message = f"gave up after {failures} failed attempts"
            return self._end(
                db, row, JobStatus.FAILED, **again, error_code=reason, error_message=message
            )

    def _leave(
        self, attempt: Attempt, target: JobStatus, events: Sequence[JobEvent], **values: Any
    ) -> Job:
        """Ends an attempt if it still owns its job."""
        with transaction(self._writes) as db:
            row = self._owned(db, attempt)
            return self._end(db, row, target, events=with_events(row.events, events), **values)

    def _owned(self, db: Connection, attempt: Attempt) -> Row[Any]:
        row = db.execute(select(jobs).where(owned_by(attempt)).with_for_update()).first()
        if row is None:
            raise StaleAttempt(attempt.job_id, attempt.number, attempt.epoch)
        return row

    def _end(self, db: Connection, row: Row[Any], target: JobStatus, **values: Any) -> Job:
        check_transition(row.id, row.status, target)
        ended = {"status": target, "lease_until": None, "completed_at": self._clock()} | values
        changed = update(jobs).where(jobs.c.seq == row.seq).values(ended).returning(*jobs.c)
        return to_job(db.execute(changed).one())

    def queue_position(self, job_id: str) -> int | None:
        with transaction(self._reads) as db:
            return leasing.position(db, job_id)

    def queued(self) -> int:
        with transaction(self._reads) as db:
            query = select(func.count()).where(jobs.c.status == JobStatus.QUEUED)
            return db.scalar(query) or 0

    def counts(self) -> dict[JobStatus, int]:
        query = select(jobs.c.status, func.count().label("jobs")).group_by(jobs.c.status)
        with transaction(self._reads) as db:
            return dict.fromkeys(JobStatus, 0) | {row.status: row.jobs for row in db.execute(query)}
