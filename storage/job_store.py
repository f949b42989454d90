"""The job table, which is also the queue: the JobStore on SQL."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, select
from sqlalchemy.exc import IntegrityError

from storage.errors import IllegalTransition, ResultPurged, StoreUnavailable
from storage.job_contract import NO_CAPS, Caps, Idempotency, JobStore, Progress, Purge
from storage.jobs import Attempt, Feedback, Job, JobEvent, JobRequest, JobStatus, VideoFile
from storage.sql import (
    admission,
    ending,
    families,
    leasing,
    listing,
    references,
    submission,
    tenancy,
)
from storage.sql.database import Database
from storage.sql.line import Lines
from storage.sql.rows import feedback_json, row_of, to_job, with_events
from storage.sql.tables import jobs

__all__ = ["Idempotency", "JobStore", "JobStoreConfig", "Progress", "SqlJobStore"]


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
        self._lines = Lines()

    def close(self) -> None:
        self.database.close()

    def create(
        self,
        request: JobRequest,
        idempotency: Idempotency | None = None,
        *,
        caps: Caps = NO_CAPS,
        results: Sequence[VideoFile | None] = (),
        registered: bool = False,
    ) -> Job:
        have = results or [None] * request.candidates
        try:
            with self.database.writing() as db:
                row = submission.repeated(db, request.tenant, idempotency, request.id)
                if row is None:
                    have = references.standing(db, request.tenant, have)
                    if registered:
                        tenancy.require(db, request.tenant)
                    now = self._clock()
                    admission.admit(db, request.tenant, caps, now, waiting=have.count(None))
                    row = submission.submit(db, request, idempotency, have, now)
                return families.to_jobs(db, [row])[0]
        except IntegrityError as error:  # Postgres: two inserted at once
            with self.database.reading() as db:
                row = submission.repeated(db, request.tenant, idempotency, request.id)
                if row is None:
                    why = f"the job that {request.id} repeats was deleted just now"
                    raise StoreUnavailable(why) from error
                return families.to_jobs(db, [row])[0]

    def find(self, tenant: str, idempotency: Idempotency) -> Job | None:
        with self.database.reading() as db:
            row = submission.repeated(db, tenant, idempotency)
            return None if row is None else families.to_jobs(db, [row])[0]

    def get(self, tenant: str, job_id: str) -> Job:
        with self.database.reading() as db:
            return families.to_jobs(db, [row_of(db, tenant, job_id)])[0]

    def get_many(self, job_ids: Collection[str]) -> list[Job]:
        with self.database.reading() as db:
            rows = db.execute(select(jobs).where(jobs.c.id.in_(job_ids))).all()
            return families.to_jobs(db, rows)

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
        category: str | None = None,
        batch_id: str | None = None,
    ) -> list[Job]:
        with self.database.reading() as db:
            page = listing.page(db, tenant, limit, after, order, status, sku, category, batch_id)
            return families.to_jobs(db, page)

    def cancel(self, tenant: str, job_id: str) -> Job:
        with self.database.writing() as db:
            row = ending.cancel(db, tenant, job_id, self._clock())
            return families.to_jobs(db, [row])[0]

    def delete(self, tenant: str, job_id: str) -> Purge:
        with self.database.writing() as db:
            row = row_of(db, tenant, job_id, lock=True)
            return families.forget(db, row, self._clock())

    def purges(self, limit: int) -> list[Purge]:
        with self.database.reading() as db:
            return references.unfinished_purges(db, limit)

    def purged(self, purge: Purge) -> None:
        with self.database.writing() as db:
            references.finish_purge(db, purge)

    def retry(self, job_id: str) -> Job:
        with self.database.writing() as db:
            return families.to_jobs(db, [ending.retry(db, job_id)])[0]

    def rate(self, tenant: str, job_id: str, feedback: Feedback) -> Job:
        with self.database.writing() as db:
            row = row_of(db, tenant, job_id, lock=True)
            if row.status is not JobStatus.COMPLETED:
                raise IllegalTransition(job_id, row.status, "rated")
            # A part of how it ended, which is to be recorded anew.
            rated = {"feedback": feedback_json(feedback), "recorded": False}
            return families.to_jobs(db, [ending.change(db, row, rated)])[0]

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
            now = self._clock()
            return leasing.renew(db, updates, now + self._config.lease_s, now)

    def complete(self, attempt: Attempt, video: VideoFile, events: Sequence[JobEvent] = ()) -> Job:
        with self.database.writing() as db:
            row = ending.owned(db, attempt)
            if references.is_being_purged(db, row.tenant, video.result_id):
                raise ResultPurged(video.result_id)
            made = {"result": video.to_json().decode(), "result_id": video.result_id}
            told = made | _with(row, events)
            return to_job(ending.end(db, row, JobStatus.COMPLETED, self._clock(), told))

    def fail(
        self, attempt: Attempt, code: str, message: str, events: Sequence[JobEvent] = ()
    ) -> Job:
        with self.database.writing() as db:
            row = ending.owned(db, attempt)
            told = {"error_code": code, "error_message": message} | _with(row, events)
            return to_job(ending.end(db, row, JobStatus.FAILED, self._clock(), told))

    def release(
        self,
        attempt: Attempt,
        reason: str,
        charge: bool = True,
        events: Sequence[JobEvent] = (),
    ) -> Job:
        with self.database.writing() as db:
            row = ending.owned(db, attempt)
            told = {"failures": row.failures + charge} | _with(row, events)
            most = self._config.max_attempts
            return to_job(ending.give_back(db, row, reason, most, self._clock(), told))

    def made(self, tenant: str, result_ids: Sequence[str]) -> list[VideoFile | None]:
        with self.database.reading() as db:
            return listing.made(db, tenant, result_ids)

    def queue_position(self, job_id: str) -> int | None:
        with self.database.reading() as db:
            return self._lines.position(db, job_id)

    def queued(self) -> int:
        with self.database.reading() as db:
            return listing.queued(db)

    def counts(self) -> dict[JobStatus, int]:
        with self.database.reading() as db:
            return listing.counts(db)


def _with(row: Row[Any], events: Sequence[JobEvent]) -> dict[str, Any]:
    return {"events": with_events(row.events, events)}
