"""Any sequence of calls on the job store, compared with a model in a dictionary."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from diffusion.params import Priority
from storage.errors import IllegalTransition, StaleAttempt, StorageError
from storage.job_store import Progress, SqlJobStore
from storage.jobs import Attempt, Job, JobEvent, JobStatus, Stage
from storage.sql.rows import EVENTS_KEPT
from tests.postgres import Postgres
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, Clock, make_request, store_config, ways_out

TENANTS = ("shop", "rival", "third")


@dataclass
class Expected:
    tenant: str
    priority: Priority
    deadline_at: float | None
    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    failures: int = 0
    epoch: int = 0
    lease_until: float = 0.0
    tier: str | None = None
    events: list[JobEvent] = field(default_factory=list)


class JobStoreMachine(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = SqlJobStore(store_config(url), self.clock)
        self.epoch = self.store.next_epoch()
        self.jobs: dict[str, Expected] = {}  # in order of creation
        self.attempts: list[Attempt] = []  # ever begun, stale ones included
        self.numbers = count()
        self.seen: dict[tuple[str, int], Job] = {}  # by id and revision

    def teardown(self) -> None:
        self.store.close()

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(Priority),
        patience_s=st.sampled_from([None, None, 0.5, LEASE_S]),
    )
    def create(self, tenant: str, priority: Priority, patience_s: float | None) -> None:
        job_id = f"job-{len(self.jobs)}"
        deadline_at = None if patience_s is None else self.clock.now + patience_s
        request = make_request(job_id, tenant, priority=priority, deadline_at=deadline_at)
        self.store.create(request)
        self.jobs[job_id] = Expected(tenant, priority, deadline_at)

    @rule()
    def restart_dispatcher(self) -> None:
        self.epoch = self.store.next_epoch()

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(per_tenant=st.integers(1, 3))
    def waiting(self, per_tenant: int) -> None:
        expected = []
        for priority in (Priority.INTERACTIVE, Priority.BATCH):
            left = dict.fromkeys(TENANTS, per_tenant)
            for job_id, job in self.jobs.items():
                free = job.status is JobStatus.QUEUED or self.lost(job)
                if free and job.priority is priority and left[job.tenant]:
                    left[job.tenant] -= 1
                    expected.append(job_id)
        assert [job.id for job in self.store.waiting(per_tenant)] == expected

    @rule(data=st.data(), tier=st.sampled_from(["a100", "rtx4090"]))
    def lease(self, data: st.DataObject, tier: str) -> None:
        ids = st.sampled_from([*self.jobs, "nobody"])
        asked = data.draw(st.lists(ids, unique=True, max_size=4))
        for job in self.jobs.values():
            if self.lost(job) and job.failures + 1 >= MAX_ATTEMPTS:
                job.status = JobStatus.FAILED
        expected: list[Attempt] = []
        for job_id in asked:
            if job_id in self.jobs:
                job = self.jobs[job_id]
                if job.status is JobStatus.QUEUED or self.lost(job):
                    job.failures += self.lost(job)
                    job.status, job.tier = JobStatus.IN_PROGRESS, tier
                    job.attempt, job.epoch = job.attempt + 1, self.epoch
                    job.lease_until = self.clock.now + LEASE_S
                    expected.append(Attempt(job_id, job.attempt, job.epoch))
        jobs = self.store.lease(self.epoch, dict.fromkeys(asked, tier))
        leased = [job.current_attempt for job in jobs]
        assert leased == expected
        self.attempts += leased

    @rule()
    def expire(self) -> None:
        expected = [
            job_id
            for job_id, job in self.jobs.items()
            if job.status is JobStatus.QUEUED
            and job.deadline_at is not None
            and job.deadline_at < self.clock.now
        ]
        assert self.store.expire(self.epoch) == expected
        for job_id in expected:
            self.jobs[job_id].status = JobStatus.FAILED

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        reported = data.draw(st.lists(st.sampled_from(self.attempts), max_size=3))
        updates = [Progress(a, Stage.DENOISING, 1, self.draw_events(data)) for a in reported]
        gone = [a for a in reported if not self.owns(a, JobStatus.IN_PROGRESS)]
        assert self.store.record_progress(updates, self.epoch) == gone
        for update in updates:
            if update.attempt not in gone:
                job = self.jobs[update.attempt.job_id]
                job.lease_until = self.clock.now + LEASE_S
                job.events = [*job.events, *update.events][-EVENTS_KEPT:]

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), way=st.integers(0, 2))
    def leave(self, data: st.DataObject, way: int) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        events = self.draw_events(data)
        job = self.jobs[attempt.job_id]
        if self.owns(attempt, JobStatus.IN_PROGRESS):
            ways_out(self.store, events)[way](attempt)
            job.failures += way == 2
            again = JobStatus.QUEUED if job.failures < MAX_ATTEMPTS else JobStatus.FAILED
            job.status = (JobStatus.COMPLETED, JobStatus.FAILED, again)[way]
            job.tier = (job.tier, job.tier, None)[way]
            job.events = [*job.events, *events][-EVENTS_KEPT:]
        else:
            ended = job.status.is_terminal and self.owns(attempt, job.status)
            refusal: type[StorageError] = IllegalTransition if ended else StaleAttempt
            with pytest.raises(refusal):
                ways_out(self.store, events)[way](attempt)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[job_id]
        if job.status is not JobStatus.FAILED:
            with pytest.raises(IllegalTransition):
                self.store.retry(job_id)
            return
        self.store.retry(job_id)
        job.status, job.tier, job.deadline_at, job.failures = JobStatus.QUEUED, None, None, 0

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[job_id]
        self.store.cancel(job.tenant, job_id)
        if not job.status.is_terminal:
            job.status = JobStatus.CANCELLED

    def draw_events(self, data: st.DataObject) -> tuple[JobEvent, ...]:
        number = data.draw(st.sampled_from([0, 1, EVENTS_KEPT - 1]))
        return tuple(JobEvent(float(next(self.numbers)), "resumed", "") for _ in range(number))

    def lost(self, job: Expected) -> bool:
        return job.status is JobStatus.IN_PROGRESS and job.lease_until <= self.clock.now

    def owns(self, attempt: Attempt, status: JobStatus) -> bool:
        job = self.jobs[attempt.job_id]
        return (job.attempt, job.epoch, job.status) == (attempt.number, attempt.epoch, status)

    @invariant()
    def the_table_agrees(self) -> None:
        for tenant in TENANTS:
            table = self.store.list_jobs(tenant, limit=99, order="asc")
            assert [
                (job.id, job.status, job.attempt, job.epoch, job.tier, list(job.events))
                for job in table
            ] == [
                (job_id, job.status, job.attempt, job.epoch, job.tier, job.events)
                for job_id, job in self.jobs.items()
                if job.tenant == tenant
            ]

    @invariant()
    def a_revision_stands_for_one_state(self) -> None:
        jobs = self.store.get_many(self.jobs)
        assert self.store.revisions(self.jobs) == {job.id: job.rev for job in jobs}
        for job in jobs:
            assert self.seen.setdefault((job.id, job.rev), job) == job
            newest = max(rev for job_id, rev in self.seen if job_id == job.id)
            assert job.rev == newest

    @invariant()
    def the_queue_agrees(self) -> None:
        queued = [job_id for job_id, job in self.jobs.items() if job.status is JobStatus.QUEUED]
        queued.sort(key=lambda job_id: self.jobs[job_id].priority is Priority.BATCH)
        places = {job_id: place for place, job_id in enumerate(queued)}
        assert {job_id: self.store.queue_position(job_id) for job_id in self.jobs} == {
            job_id: places.get(job_id) for job_id in self.jobs
        }

    @invariant()
    def owners_agree(self) -> None:
        assert self.store.owned(self.attempts) == {
            attempt for attempt in self.attempts if self.owns(attempt, JobStatus.IN_PROGRESS)
        }


@pytest.fixture(params=["sqlite", "postgres"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes the URL of a new database at every call."""
    if request.param == "sqlite":
        numbers = count()
        yield lambda: f"sqlite:///{tmp_path}/{next(numbers)}.sqlite"
        return
    server: Postgres = request.getfixturevalue("postgres")
    made: list[str] = []

    def make() -> str:
        made.append(server.new_database())
        return made[-1]

    yield make
    for url in made:
        server.drop(url)


def test_any_sequence_of_calls_agrees_with_the_model(databases: Callable[[], str]) -> None:
    class OnItsOwnDatabase(JobStoreMachine):
        def __init__(self) -> None:
            super().__init__(databases())

    settled = settings(max_examples=30, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(OnItsOwnDatabase, settings=settled)
