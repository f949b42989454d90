"""The job table, which is also the queue: the JobStore on SQL."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import (
    IllegalTransition,
    JobNotFound,
    ResultPurged,
    StaleAttempt,
    StoreUnavailable,
)
from storage.job_contract import NO_CAPS, Caps, Idempotency, JobStore, Progress, Purge
from storage.jobs import (
    Attempt,
    Feedback,
    Job,
    JobEvent,
    JobRequest,
    JobStatus,
    VideoFile,
    check_transition,
)
from storage.sql import admission, leasing, line, outbox, references, submission, tenancy
from storage.sql.database import Database
from storage.sql.tables import jobs, owned_by, row_of, to_job, with_events

__all__ = ["Idempotency", "JobStore", "JobStoreConfig", "Progress", "SqlJobStore"]

_OF_A_TRY = ("stage", "tier", "predicted_at")
_OF_AN_END = ("deadline_at", "completed_at", "error_code", "error_message")


class JobStoreConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # An SQLAlchemy URL of a SQLite file or of Postgres. In-memory SQLite is one database per
    # connection.
    url: str = Field(pattern=r"^(sqlite:///[^:]|postgresql\+psycopg://)")
    lease_s: float = Field(default=30.0, gt=0)  # a Dispatcher silent for longer has lost its jobs
    max_attempts: int = Field(default=3, ge=1)  # failures that a job is given


class SqlJobStore(JobStore):
    """A JobStore on SQLite or Postgres. Make one per process: connections do not survive a fork."""

    def __init__(self, config: JobStoreConfig, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self.database = Database(config.url)  # shared with the stores of other tables

    def close(self) -> None:
        self.database.close()

    def create(
        self,
        request: JobRequest,
        idempotency: Idempotency | None = None,
        *,
        caps: Caps = NO_CAPS,
        result: VideoFile | None = None,
        registered: bool = False,
    ) -> Job:
        try:
            with self.database.writing() as db:
                if row := submission.repeated(db, request.tenant, idempotency, request.id):
                    return to_job(row)
                if result and references.is_being_purged(db, request.tenant, result.result_id):
                    result = None
                if registered:
                    tenancy.require(db, request.tenant)
                now = self._clock()
                admission.admit(db, request.tenant, caps, now, is_done=result is not None)
                values = submission.new_row(request, idempotency, result, now)
                row = db.execute(insert(jobs).values(values).returning(*jobs.c)).one()
                if result:
                    outbox.announce(db, [row], now)
                return to_job(row)
        except IntegrityError:  # Postgres: two inserted at once
            with self.database.reading() as db:
                row = submission.repeated(db, request.tenant, idempotency, request.id)
        if row is None:
            raise StoreUnavailable(f"the job that {request.id} repeats was deleted just now")
        return to_job(row)

    def find(self, tenant: str, idempotency: Idempotency) -> Job | None:
        with self.database.reading() as db:
            row = submission.repeated(db, tenant, idempotency)
        return None if row is None else to_job(row)

    def get(self, tenant: str, job_id: str) -> Job:
        with self.database.reading() as db:
            return to_job(row_of(db, tenant, job_id))

    def get_many(self, job_ids: Collection[str]) -> list[Job]:
        with self.database.reading() as db:
            return [to_job(row) for row in db.execute(select(jobs).where(jobs.c.id.in_(job_ids)))]

    def revisions(self, job_ids: Collection[str]) -> dict[str, int]:
        query = select(jobs.c.id, jobs.c.rev).where(jobs.c.id.in_(job_ids))
        with self.database.reading() as db:
            return {row.id: row.rev for row in db.execute(query)}

    def list_jobs(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        status: JobStatus | None = None,
        sku: str | None = None,
        batch_id: str | None = None,
    ) -> list[Job]:
        ascending = order == "asc"
        query = select(jobs).where(jobs.c.tenant == tenant).limit(limit)
        query = query.order_by(jobs.c.seq.asc() if ascending else jobs.c.seq.desc())
        if status is not None:
            query = query.where(jobs.c.status == status)
        if sku is not None:
            query = query.where(jobs.c.sku == sku)
        if batch_id is not None:
            query = query.where(jobs.c.batch_id == batch_id)
        with self.database.reading() as db:
            if after is not None:
                seen = row_of(db, tenant, after).seq
                query = query.where(jobs.c.seq > seen if ascending else jobs.c.seq < seen)
            return [to_job(row) for row in db.execute(query)]

    def cancel(self, tenant: str, job_id: str) -> Job:
        with self.database.writing() as db:
            row = row_of(db, tenant, job_id, lock=True)
            if row.status.is_terminal:
                return to_job(row)
            return self._end(db, row, JobStatus.CANCELLED)

    def delete(self, tenant: str, job_id: str) -> Purge:
        with self.database.writing() as db:
            row = row_of(db, tenant, job_id, lock=True)
            return references.forget(db, row, self._clock())

    def purges(self, limit: int) -> list[Purge]:
        with self.database.reading() as db:
            return references.unfinished_purges(db, limit)

    def purged(self, purge: Purge) -> None:
        with self.database.writing() as db:
            references.finish_purge(db, purge)

    def retry(self, job_id: str) -> Job:
        with self.database.writing() as db:
            query = select(jobs).where(jobs.c.id == job_id).with_for_update()
            row = db.execute(query).one_or_none()
            if row is None:
                raise JobNotFound(job_id)
            if row.status is not JobStatus.FAILED:
                raise IllegalTransition(job_id, row.status, JobStatus.QUEUED)
            # The workers read its deadline in the request.
            asked = replace(JobRequest.from_json(row.request.encode()), deadline_at=None)
            again = dict.fromkeys(_OF_A_TRY + _OF_AN_END) | {
                "status": JobStatus.QUEUED,
                "request": asked.to_json().decode(),
                "failures": 0,
                "step": 0,
                "recorded": False,
            }
            return to_job(_changed(db, row, again))

    def rate(self, tenant: str, job_id: str, feedback: Feedback) -> Job:
        with self.database.writing() as db:
            row = row_of(db, tenant, job_id, lock=True)
            if row.status is not JobStatus.COMPLETED:
                raise IllegalTransition(job_id, row.status, "rated")
            # A part of how it ended, which is to be recorded anew.
            values = {"feedback": json.dumps(asdict(feedback)), "recorded": False}
            return to_job(_changed(db, row, values))

    def next_epoch(self) -> int:
        with self.database.writing() as db:
            return leasing.supersede(db, self._clock(), self._config.lease_s)

    def waiting(self, per_tenant: int) -> list[Job]:
        if per_tenant < 1:  # SQLite would take it for "no limit"
            raise ValueError(f"cannot list {per_tenant} jobs per tenant")
        with self.database.reading() as db:
            found = leasing.first_of_each_tenant(db, per_tenant, self._clock())
        return [to_job(row) for row in found]

    def lease(
        self,
        epoch: int,
        job_ids: Mapping[str, str],
        worn_out: Collection[str] | None = None,
    ) -> list[Job]:
        with self.database.writing() as db:
            leasing.require_newest(db, epoch)
            now = self._clock()
            most = self._config.max_attempts
            leasing.fail_worn_out(db, now, most, worn_out)
            leased = leasing.take(db, job_ids, epoch, now, now + self._config.lease_s, most)
        return [to_job(row) for row in leased]

    def expire(self, epoch: int) -> list[str]:
        with self.database.writing() as db:
            leasing.require_newest(db, epoch)
            return leasing.fail_overdue(db, self._clock())

    def owned(self, attempts: Sequence[Attempt]) -> set[Attempt]:
        query = select(jobs.c.id, jobs.c.attempt, jobs.c.epoch).where(
            jobs.c.id.in_({attempt.job_id for attempt in attempts}),
            jobs.c.status == JobStatus.IN_PROGRESS,
        )
        with self.database.reading() as db:
            return {Attempt(*row) for row in db.execute(query)}.intersection(attempts)

    def record_progress(self, updates: Sequence[Progress], epoch: int) -> list[Attempt]:
        with self.database.writing() as db:
            leasing.require_newest(db, epoch)
            return leasing.renew(db, updates, self._clock() + self._config.lease_s)

    def complete(self, attempt: Attempt, video: VideoFile, events: Sequence[JobEvent] = ()) -> Job:
        with self.database.writing() as db:
            row = self._owned(db, attempt)
            if references.is_being_purged(db, row.tenant, video.result_id):
                raise ResultPurged(video.result_id)
            return self._end(
                db,
                row,
                JobStatus.COMPLETED,
                events=with_events(row.events, events),
                result=video.to_json().decode(),
                result_id=video.result_id,
            )

    def fail(
        self, attempt: Attempt, code: str, message: str, events: Sequence[JobEvent] = ()
    ) -> Job:
        with self.database.writing() as db:
            row = self._owned(db, attempt)
            return self._end(
                db,
                row,
                JobStatus.FAILED,
                events=with_events(row.events, events),
                error_code=code,
                error_message=message,
            )

    def release(
        self,
        attempt: Attempt,
        reason: str,
        charge: bool = True,
        events: Sequence[JobEvent] = (),
    ) -> Job:
        with self.database.writing() as db:
            row = self._owned(db, attempt)
            failures = row.failures + charge
            again = dict.fromkeys(_OF_A_TRY) | {
                "failures": failures,
                "step": 0,
                "events": with_events(row.events, events),
            }
            if failures < self._config.max_attempts:
                return self._end(db, row, JobStatus.QUEUED, **again, completed_at=None)
            message = f"gave up after {failures} failed attempts"
            return self._end(
                db, row, JobStatus.FAILED, **again, error_code=reason, error_message=message
            )

    def _owned(self, db: Connection, attempt: Attempt) -> Row[Any]:
        row = db.execute(select(jobs).where(owned_by(attempt)).with_for_update()).first()
        if row is None:
            raise StaleAttempt(attempt.job_id, attempt.number, attempt.epoch)
        return row

    def _end(self, db: Connection, row: Row[Any], target: JobStatus, **values: Any) -> Job:
        check_transition(row.id, row.status, target)
        ended = {"status": target, "lease_until": None, "completed_at": self._clock()} | values
        now_row = _changed(db, row, ended)
        if target.is_terminal:
            outbox.announce(db, [now_row], self._clock())
        return to_job(now_row)

    def queue_position(self, job_id: str) -> int | None:
        with self.database.reading() as db:
            return line.position(db, job_id)

    def queued(self) -> int:
        with self.database.reading() as db:
            query = select(func.count()).where(jobs.c.status == JobStatus.QUEUED)
            return db.scalar(query) or 0

    def counts(self) -> dict[JobStatus, int]:
        query = select(jobs.c.status, func.count().label("jobs")).group_by(jobs.c.status)
        with self.database.reading() as db:
            return dict.fromkeys(JobStatus, 0) | {row.status: row.jobs for row in db.execute(query)}


def _changed(db: Connection, row: Row[Any], values: Mapping[str, Any]) -> Row[Any]:
    change = update(jobs).where(jobs.c.seq == row.seq).values(values)
    return db.execute(change.returning(*jobs.c)).one()
