"""The job table, which is also the queue: the JobStore interface and its SQL implementation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import IdempotencyConflict, StaleAttempt, StaleDispatcher, StoreUnavailable
from storage.jobs import Attempt, Job, JobRequest, JobStatus, Stage, VideoFile, check_transition
from storage.tables import dispatchers, jobs, open_tables, owned_by, row_of, to_job, transaction


class JobStoreConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # An SQLAlchemy URL of a SQLite file. The SQL is written for Postgres too, which comes with a
    # driver and its own run of the tests. In-memory SQLite is one database per connection.
    url: str = Field(pattern=r"^sqlite:///[^:]")
    lease_s: float = Field(default=30.0, gt=0)  # a Dispatcher silent for longer has lost its jobs
    max_attempts: int = Field(default=3, ge=1)  # failures that a job is given


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's promise that two submissions are one."""

    key: str  # unique within the tenant
    fingerprint: str  # sha256 of the body as it came: the seed drawn here is not part of it


@dataclass(frozen=True, slots=True)
class Progress:
    attempt: Attempt
    stage: Stage
    step: int  # denoising steps done


class JobStore(Protocol):
    """Jobs and their order. Synchronous (use asyncio.to_thread), safe from several threads and
    processes; every method may raise StoreUnavailable, which is worth a retry."""

    def create(self, request: JobRequest, idempotency: Idempotency | None = None) -> Job:
        """Queues the job. When its id or idempotency key is known already, returns the job that
        stands, so `job.id != request.id` tells a replay. Raises IdempotencyConflict when the key
        came with another body."""
        ...

    def get(self, tenant: str, job_id: str) -> Job:
        """Raises JobNotFound, for another tenant's job too."""
        ...

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
        """In order of creation, from behind job `after` on; JobNotFound when that is unknown."""
        ...

    def cancel(self, tenant: str, job_id: str) -> Job:
        """A job that has ended stays as it ended. Raises JobNotFound."""
        ...

    def delete(self, tenant: str, job_id: str) -> Job:
        """Forgets the job, whatever its state, and returns what it was. Raises JobNotFound."""
        ...

    def next_epoch(self) -> int:
        """Registers a Dispatcher that starts. From now on older ones can neither lease nor renew;
        what they have in flight may still end, until its lease runs out and it is leased anew."""
        ...

    def lease(self, epoch: int, limit: int) -> list[Job]:
        """Up to `limit` jobs to run, oldest first: queued ones, and those in progress whose lease
        ran out, except that these fail as `worker_lost` once their attempts are used up. Each
        comes with a new attempt number, its fence. Raises StaleDispatcher."""
        ...

    def record_progress(self, updates: Sequence[Progress], epoch: int) -> list[Attempt]:
        """Writes many reports in one transaction and renews their leases. Returns the attempts that
        own their job no more (lost, cancelled, deleted, ended): stop working on these.
        Raises StaleDispatcher."""
        ...

    def complete(self, attempt: Attempt, video: VideoFile) -> Job:
        """Raises StaleAttempt when another attempt owns the job, IllegalTransition when it has
        ended (cancelled, say). So do `fail` and `release`."""
        ...

    def fail(self, attempt: Attempt, code: str, message: str) -> Job: ...

    def release(self, attempt: Attempt, reason: str, charge: bool = True) -> Job:
        """Gives the job back for another attempt. A charged release counts as a failure of the
        job; with `max_attempts` of them it fails with code `reason`."""
        ...

    def queue_position(self, job_id: str) -> int | None:
        """How many queued jobs stand before it; None when it is not queued (or not known)."""
        ...

    def counts(self) -> dict[JobStatus, int]:
        """Jobs in each status, of all tenants, zeros included."""
        ...


class SqlJobStore:
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

    def lease(self, epoch: int, limit: int) -> list[Job]:
        if limit < 0:  # SQLite would take it for "no limit"
            raise ValueError(f"cannot lease {limit} jobs")
        with transaction(self._writes) as db:
            _require_newest(db, epoch)
            now = self._clock()  # not earlier: the write lock may have been long in coming
            expired = (jobs.c.status == JobStatus.IN_PROGRESS) & (jobs.c.lease_until <= now)
            db.execute(
                update(jobs)
                .where(expired, jobs.c.failures + 1 >= self._config.max_attempts)
                .values(
                    status=JobStatus.FAILED,
                    failures=jobs.c.failures + 1,
                    error_code="worker_lost",
                    error_message="lost its worker, and no attempt is left",
                    completed_at=now,
                    lease_until=None,
                )
            )
            chosen = (
                select(jobs.c.seq)
                .where(or_(jobs.c.status == JobStatus.QUEUED, expired))
                .order_by(jobs.c.seq)
                .limit(limit)
                .with_for_update(skip_locked=True)  # Postgres; SQLite has one writer anyway
            )
            leased = db.execute(
                update(jobs)
                .where(jobs.c.seq.in_(db.scalars(chosen).all()))
                .values(
                    status=JobStatus.IN_PROGRESS,
                    attempt=jobs.c.attempt + 1,
                    failures=jobs.c.failures + case((expired, 1), else_=0),
                    epoch=epoch,
                    lease_until=now + self._config.lease_s,
                    started_at=func.coalesce(jobs.c.started_at, now),
                    stage=None,
                    step=0,
                )
                .returning(*jobs.c)
            ).all()
        return [to_job(row) for row in sorted(leased, key=lambda row: row.seq)]

    def record_progress(self, updates: Sequence[Progress], epoch: int) -> list[Attempt]:
        disowned = []
        with transaction(self._writes) as db:
            _require_newest(db, epoch)
            lease_until = self._clock() + self._config.lease_s
            for report in updates:
                owned = db.execute(
                    update(jobs)
                    .where(owned_by(report.attempt), jobs.c.status == JobStatus.IN_PROGRESS)
                    .values(stage=report.stage, step=report.step, lease_until=lease_until)
                ).rowcount
                if not owned:
                    disowned.append(report.attempt)
        return disowned

    def complete(self, attempt: Attempt, video: VideoFile) -> Job:
        return self._leave(attempt, JobStatus.COMPLETED, result=video.to_json().decode())

    def fail(self, attempt: Attempt, code: str, message: str) -> Job:
        return self._leave(attempt, JobStatus.FAILED, error_code=code, error_message=message)

    def release(self, attempt: Attempt, reason: str, charge: bool = True) -> Job:
        again = {"failures": jobs.c.failures + charge, "stage": None, "step": 0}
        with transaction(self._writes) as db:
            row = self._owned(db, attempt)
            if row.failures + charge < self._config.max_attempts:
                return self._end(db, row, JobStatus.QUEUED, **again, completed_at=None)
            message = f"gave up after {row.failures + charge} failed attempts"
            return self._end(
                db, row, JobStatus.FAILED, **again, error_code=reason, error_message=message
            )

    def _leave(self, attempt: Attempt, target: JobStatus, **values: Any) -> Job:
        """Ends an attempt if it still owns its job."""
        with transaction(self._writes) as db:
            return self._end(db, self._owned(db, attempt), target, **values)

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
        queued = jobs.c.status == JobStatus.QUEUED
        with transaction(self._reads) as db:
            seq = db.scalar(select(jobs.c.seq).where(jobs.c.id == job_id, queued))
            if seq is None:
                return None
            return db.scalar(select(func.count()).where(queued, jobs.c.seq < seq))

    def counts(self) -> dict[JobStatus, int]:
        query = select(jobs.c.status, func.count().label("jobs")).group_by(jobs.c.status)
        with transaction(self._reads) as db:
            return dict.fromkeys(JobStatus, 0) | {row.status: row.jobs for row in db.execute(query)}


def _require_newest(db: Connection, epoch: int) -> None:
    newest = db.scalar(select(func.max(dispatchers.c.epoch)))
    if newest != epoch:
        raise StaleDispatcher(epoch, newest or 0)
