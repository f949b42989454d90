"""Any sequence of calls on the job store, compared with a model in a dictionary."""

import tempfile
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.errors import IllegalTransition, StaleAttempt, StorageError
from storage.job_store import JobStoreConfig, Progress, SqlJobStore
from storage.jobs import Attempt, JobStatus, Stage
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, Clock, make_request, ways_out


@dataclass
class Expected:
    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    epoch: int = 0
    lease_until: float = 0.0


class JobStoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        url = f"sqlite:///{self.folder.name}/jobs.sqlite"
        config = JobStoreConfig(url=url, lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS)
        self.store = SqlJobStore(config, self.clock)
        self.epoch = self.store.next_epoch()
        self.jobs: dict[str, Expected] = {}  # in order of creation
        self.attempts: list[Attempt] = []  # ever begun, stale ones included

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule()
    def create(self) -> None:
        job_id = f"job-{len(self.jobs)}"
        self.store.create(make_request(job_id))
        self.jobs[job_id] = Expected()

    @rule()
    def restart_dispatcher(self) -> None:
        self.epoch = self.store.next_epoch()

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(limit=st.integers(0, 3))
    def lease(self, limit: int) -> None:
        expected: list[Attempt] = []
        for job_id, job in self.jobs.items():
            lost = job.status is JobStatus.IN_PROGRESS and job.lease_until <= self.clock.now
            if lost and job.attempt >= MAX_ATTEMPTS:
                job.status = JobStatus.FAILED
            elif (lost or job.status is JobStatus.QUEUED) and len(expected) < limit:
                job.status = JobStatus.IN_PROGRESS
                job.attempt, job.epoch = job.attempt + 1, self.epoch
                job.lease_until = self.clock.now + LEASE_S
                expected.append(Attempt(job_id, job.attempt, job.epoch))
        leased = [job.current_attempt for job in self.store.lease(self.epoch, limit)]
        assert leased == expected
        self.attempts += leased

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        reported = data.draw(st.lists(st.sampled_from(self.attempts), max_size=3))
        updates = [Progress(attempt, Stage.DENOISING, 1) for attempt in reported]
        gone = [a for a in reported if not self.owns(a, JobStatus.IN_PROGRESS)]
        assert self.store.record_progress(updates, self.epoch) == gone
        for attempt in reported:
            if self.owns(attempt, JobStatus.IN_PROGRESS):
                self.jobs[attempt.job_id].lease_until = self.clock.now + LEASE_S

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), way=st.integers(0, 2))
    def leave(self, data: st.DataObject, way: int) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        job = self.jobs[attempt.job_id]
        if self.owns(attempt, JobStatus.IN_PROGRESS):
            ways_out(self.store)[way](attempt)
            again = JobStatus.QUEUED if attempt.number < MAX_ATTEMPTS else JobStatus.FAILED
            job.status = (JobStatus.COMPLETED, JobStatus.FAILED, again)[way]
        else:
            refusal: type[StorageError] = (
                IllegalTransition if self.owns(attempt, job.status) else StaleAttempt
            )
            with pytest.raises(refusal):
                ways_out(self.store)[way](attempt)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        self.store.cancel("shop", job_id)
        if not self.jobs[job_id].status.is_terminal:
            self.jobs[job_id].status = JobStatus.CANCELLED

    def owns(self, attempt: Attempt, status: JobStatus) -> bool:
        job = self.jobs[attempt.job_id]
        return (job.attempt, job.epoch, job.status) == (attempt.number, attempt.epoch, status)

    @invariant()
    def the_table_agrees(self) -> None:
        table = self.store.list_jobs("shop", limit=99, order="asc")
        assert [(job.id, job.status, job.attempt, job.epoch) for job in table] == [
            (job_id, job.status, job.attempt, job.epoch) for job_id, job in self.jobs.items()
        ]


TestAnySequence = JobStoreMachine.TestCase
TestAnySequence.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
