"""What a job store promises: the JobStore interface and the types that only its methods take."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from storage.jobs import (
    Attempt,
    Feedback,
    Job,
    JobEvent,
    JobRequest,
    JobStatus,
    Stage,
    VideoFile,
)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's promise that two submissions are one."""

    key: str  # unique within the tenant
    fingerprint: str  # sha256 of the body as it came: the seed drawn here is not part of it


@dataclass(frozen=True, slots=True)
class Caps:
    """How many jobs may be there before another one is refused; None: no limit."""

    queued: int | None = None  # of all tenants
    tenant_queued: int | None = None
    tenant_unfinished: int | None = None  # queued and in progress
    tenant_creates_per_minute: int | None = None


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Progress:
    attempt: Attempt
    stage: Stage
    step: int  # denoising steps done
    events: tuple[JobEvent, ...] = ()  # since the last report
    predicted_at: float | None = None  # foreseen end at its lease, Unix seconds; None: not known


@dataclass(frozen=True, slots=True)
class Purge:
    """What a deletion leaves to be done in the object store."""

    seq: int
    tenant: str
    job_id: str
    result_id: str | None  # this result goes too: no other job refers to it


class JobStore(Protocol):
    """Jobs and their order. Synchronous (use asyncio.to_thread), safe from several threads and
    processes; every method may raise StoreUnavailable, which is worth a retry."""

    def create(
        self,
        request: JobRequest,
        idempotency: Idempotency | None = None,
        *,
        caps: Caps = NO_CAPS,
        results: Sequence[VideoFile | None] = (),
        registered: bool = False,
    ) -> Job:
        """Queues the job, each of its candidates where it has several: those are what is leased,
        counted and capped, and the job itself is as they are. `results` are what its parts
        (`JobRequest.parts`) have already; such a part is completed at once, unless that is being
        purged. When its id or idempotency key is known, returns the job that stands, so
        `job.id != request.id` tells a replay. Raises IdempotencyConflict when the key came with
        another body, QueueFull and QuotaExceeded beyond the `caps` (which replays pass, and what
        has a result, the rate of creations excepted, where a job is one; on Postgres creations at
        the same moment may pass that of all together). Raises TenantNotFound where the tenant must
        be `registered` and is not, or not any more."""
        ...

    def find(self, tenant: str, idempotency: Idempotency) -> Job | None:
        """The job under this key, before any work is done for a repeat. Raises
        IdempotencyConflict."""
        ...

    def get(self, tenant: str, job_id: str) -> Job:
        """Raises JobNotFound, for another tenant's job too, and for a candidate: here and below
        only what is leased, ends or is `get_many` may be one."""
        ...

    def get_many(self, job_ids: Collection[str]) -> list[Job]:
        """Those that exist, of any tenant, in no order."""
        ...

    def revisions(self, job_ids: Collection[str]) -> dict[str, int]:
        """`Job.rev` of those that exist: one cheap question about all that somebody watches."""
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
        category: str | None = None,
        batch_id: str | None = None,
    ) -> list[Job]:
        """In order of creation, from behind job `after` on; JobNotFound when that is unknown."""
        ...

    def cancel(self, tenant: str, job_id: str) -> Job:
        """A job that has ended stays as it ended, and so does a candidate: with one that is
        completed the job is. Raises JobNotFound."""
        ...

    def delete(self, tenant: str, job_id: str) -> Purge:
        """Forgets the job, whatever its state. What is left to do, deleting its objects, stands in
        the table until `purged`. Raises JobNotFound."""
        ...

    def purges(self, limit: int) -> list[Purge]:
        """Deletions whose objects may not be gone yet, oldest first."""
        ...

    def purged(self, purge: Purge) -> None:
        """Its objects are gone."""
        ...

    def retry(self, job_id: str) -> Job:
        """An operator's second chance: queues a failed job again, with all its candidates and
        attempts and no deadline, in its request neither. Raises JobNotFound, and IllegalTransition
        for a job that has not failed."""
        ...

    def rate(self, tenant: str, job_id: str, feedback: Feedback) -> Job:
        """Keeps what a person thinks of a completed video; the last word counts. Raises
        JobNotFound, and IllegalTransition when it is not completed."""
        ...

    def next_epoch(self) -> int:
        """Registers a Dispatcher that starts. From now on older ones can neither lease nor renew;
        what they have in flight may still end, until its lease runs out and it is leased anew: in
        no longer than a lease from now, whatever the clock said when it was given."""
        ...

    def waiting(self, per_tenant: int) -> list[Job]:
        """The candidates for `lease`: of every tenant the first `per_tenant` interactive and the
        first `per_tenant` batch jobs, queued or in progress with a lease that ran out (those that
        `lease` will fail included). Interactive before batch, then in order of creation. Costs what
        it returns, however long the backlog. ValueError below 1."""
        ...

    def lease(
        self,
        epoch: int,
        job_ids: Mapping[str, str],
        worn_out: Collection[str] | None = None,
    ) -> list[Job]:
        """Begins an attempt of these jobs (id -> name of the tier it goes to), and returns them in
        this order, each with a new attempt number, its fence. Left out are those that wait no more:
        another Dispatcher was quicker, or a cancel. A lease that ran out is a failure of its job:
        those with no attempt left fail as `worker_lost`, in `job_ids` or not; only the `worn_out`
        where these are given, which nothing came of. Raises StaleDispatcher."""
        ...

    def expire(self, epoch: int) -> list[str]:
        """Fails the queued jobs whose deadline has passed as `deadline_exceeded`; their ids.
        Raises StaleDispatcher."""
        ...

    def owned(self, attempts: Sequence[Attempt]) -> set[Attempt]:
        """Those whose job is in progress and theirs; the others work for nobody. Renews nothing."""
        ...

    def record_progress(self, updates: Sequence[Progress], epoch: int) -> list[Attempt]:
        """Writes many reports in one transaction and renews their leases. Returns the attempts that
        own their job no more (lost, cancelled, deleted, ended): stop working on these, nothing of
        them was written. Raises StaleDispatcher."""
        ...

    def complete(self, attempt: Attempt, video: VideoFile, events: Sequence[JobEvent] = ()) -> Job:
        """Raises ResultPurged when the result is being deleted, StaleAttempt when the attempt does
        not own the job any more, IllegalTransition when that has ended (cancelled, say). So do
        `fail` and `release`, the first apart."""
        ...

    def fail(
        self, attempt: Attempt, code: str, message: str, events: Sequence[JobEvent] = ()
    ) -> Job: ...

    def release(
        self,
        attempt: Attempt,
        reason: str,
        charge: bool = True,
        events: Sequence[JobEvent] = (),
    ) -> Job:
        """Gives the job back for another attempt. A charged release counts as a failure of the
        job; with `max_attempts` of them it fails with code `reason`."""
        ...

    def made(self, tenant: str, result_ids: Sequence[str]) -> list[VideoFile | None]:
        """The results with these ids that jobs of this tenant refer to, in this order."""
        ...

    def queue_position(self, job_id: str) -> int | None:
        """How many queued jobs stand before it, interactive before batch, then in order of
        creation; None when it is not queued (or not known). Exact among the first 500 of a
        priority; further back within 64, and up to a second old, at the same cost."""
        ...

    def queued(self) -> int:
        """How many jobs are queued, of all tenants. Cheaper than `counts`, which reads all rows."""
        ...

    def counts(self) -> dict[JobStatus, int]:
        """Jobs in each status, of all tenants, zeros included."""
        ...
