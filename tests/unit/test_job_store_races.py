"""Two transactions at once, on SQLite and Postgres: neither misses what the other does.

Where the order matters, a test holds one transaction open while the other call is on its way.
"""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

from storage.errors import IllegalTransition, ResultPurged, StaleAttempt, StaleDispatcher
from storage.job_store import Progress, SqlJobStore
from storage.jobs import Job, JobRequest, JobStatus, Stage, VideoFile
from storage.sql import leasing, references, submission
from storage.sql.rows import row_of
from storage.sql.tables import deliveries
from tests.sample_jobs import LEASE_S, VIDEO, lease_next, lease_one, make_request

URL = "https://example.com/hook"


def must_wait(call: "Future[Any]") -> None:
    with pytest.raises(TimeoutError):
        call.result(timeout=0.2)


def both(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Runs the two at the same moment."""
    start = threading.Barrier(2)

    def run(call: Callable[[], object]) -> None:
        start.wait()
        call()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run, first), pool.submit(run, second)]:
            done.result(timeout=30)


# --- Dispatchers


def test_a_new_dispatcher_waits_for_what_the_old_one_is_at(store: SqlJobStore) -> None:
    """Else the old one would lease jobs after the new one has looked which are free."""
    old = store.next_epoch()
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            leasing.require_newest(db, old)
            new = pool.submit(store.next_epoch)
            must_wait(new)
        assert new.result(timeout=10) > old


def test_an_old_dispatcher_sees_the_new_one_that_registers(store: SqlJobStore) -> None:
    store.create(make_request("a"))
    old = store.next_epoch()
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            leasing.supersede(db, 0.0, LEASE_S)
            leased = pool.submit(store.lease, old, {"a": "cpu"})
            must_wait(leased)
        with pytest.raises(StaleDispatcher):
            leased.result(timeout=10)
    assert store.get("shop", "a").status is JobStatus.QUEUED


def test_many_that_register_at_once_have_an_epoch_each(store: SqlJobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(lambda _: store.next_epoch(), range(24)))
    assert len(set(epochs)) == 24
    store.lease(max(epochs), {})


# --- results


def test_no_job_adopts_a_result_whose_last_reference_goes(store: SqlJobStore) -> None:
    store.create(make_request("last"), results=[VIDEO])
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            references.forget(db, row_of(db, "shop", "last", lock=True), 0.0)
            adopts = pool.submit(store.create, make_request("b"), results=[VIDEO])
            must_wait(adopts)
        assert adopts.result(timeout=10).status is JobStatus.QUEUED


def test_no_attempt_completes_with_a_result_whose_last_reference_goes(store: SqlJobStore) -> None:
    store.create(make_request("last"), results=[VIDEO])
    store.create(make_request("b"))
    attempt = lease_one(store, store.next_epoch())
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            references.forget(db, row_of(db, "shop", "last", lock=True), 0.0)
            completes = pool.submit(store.complete, attempt, VIDEO)
            must_wait(completes)
        with pytest.raises(ResultPurged):
            completes.result(timeout=10)


def test_no_result_goes_that_a_job_is_about_to_adopt(store: SqlJobStore) -> None:
    store.create(make_request("first"), results=[VIDEO])
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            assert not references.is_being_purged(db, "shop", VIDEO.result_id)
            submission.submit(db, make_request("second"), None, [VIDEO], 0.0)
            deletes = pool.submit(store.delete, "shop", "first")
            must_wait(deletes)
        assert deletes.result(timeout=10).result_id is None
    assert store.delete("shop", "second").result_id == VIDEO.result_id


def test_a_result_is_either_referred_to_or_purged_whoever_is_quicker(store: SqlJobStore) -> None:
    for number in range(30):
        video = dataclasses.replace(VIDEO, result_id=f"r{number}")
        for name in ("a", "b"):
            store.create(make_request(f"{name}{number}"), results=[video])
        new = make_request(f"new{number}")

        def delete(number: int = number) -> None:
            for name in ("a", "b"):
                store.delete("shop", f"{name}{number}")

        def create(new: JobRequest = new, video: VideoFile = video) -> None:
            store.create(new, results=[video])

        both(delete, create)
        purged = video.result_id in {purge.result_id for purge in store.purges(999)}
        adopted = store.get("shop", new.id).status is JobStatus.COMPLETED
        assert purged != adopted


def test_two_last_references_deleted_at_once_leave_one_purge(store: SqlJobStore) -> None:
    for number in range(20):
        video = dataclasses.replace(VIDEO, result_id=f"r{number}")
        for name in ("a", "b"):
            store.create(make_request(f"{name}{number}"), results=[video])
        both(
            partial(store.delete, "shop", f"a{number}"), partial(store.delete, "shop", f"b{number}")
        )
        noted = [purge.result_id for purge in store.purges(999)]
        assert noted.count(video.result_id) == 1


# --- ends


def test_a_job_ends_once_whoever_is_quicker(store: SqlJobStore) -> None:
    for number in range(20):
        request = dataclasses.replace(make_request(f"job-{number}"), webhook=URL)
        store.create(request)
    epoch = store.next_epoch()
    for job in lease_next(store, epoch, 20):
        ends: list[JobStatus] = []

        def complete(job: Job = job, ends: list[JobStatus] = ends) -> None:
            try:
                ends.append(store.complete(job.current_attempt, VIDEO).status)
            except IllegalTransition:
                ends.append(JobStatus.CANCELLED)

        def cancel(job: Job = job, ends: list[JobStatus] = ends) -> None:
            ends.append(store.cancel("shop", job.id).status)

        both(complete, cancel)
        assert ends == [store.get("shop", job.id).status] * 2
    with store.database.reading() as db:
        assert db.scalar(select(func.count()).select_from(deliveries)) == 20


def test_a_job_deleted_at_work_is_gone_for_its_attempt(store: SqlJobStore) -> None:
    for number in range(20):
        store.create(make_request(f"job-{number}"))
    for job in lease_next(store, store.next_epoch(), 20):
        completed: list[bool] = []

        def complete(job: Job = job, completed: list[bool] = completed) -> None:
            video = dataclasses.replace(VIDEO, result_id=job.id)
            try:
                store.complete(job.current_attempt, video)
            except StaleAttempt:
                completed.append(False)
            else:
                completed.append(True)

        both(complete, partial(store.delete, "shop", job.id))
        (purge,) = (purge for purge in store.purges(99) if purge.job_id == job.id)
        assert (purge.result_id == job.id) == completed[0]


# --- many rows in one transaction


def test_reports_of_the_same_jobs_in_any_order_do_not_block_each_other(store: SqlJobStore) -> None:
    for number in range(40):
        store.create(make_request(f"job-{number}"))
    epoch = store.next_epoch()
    attempts = [job.current_attempt for job in lease_next(store, epoch, 40)]

    def report(order: int) -> None:
        updates = [Progress(attempt, Stage.DENOISING, 1) for attempt in attempts[::order]]
        for _ in range(10):
            assert store.record_progress(updates, epoch) == []

    both(lambda: report(1), lambda: report(-1))
    assert set(store.revisions([attempt.job_id for attempt in attempts]).values()) == {21}


def test_a_job_at_hand_elsewhere_does_not_hold_up_the_others(store: SqlJobStore) -> None:
    """On Postgres; with SQLite's one writer all wait for it."""
    for job_id in ("a", "b"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    with ThreadPoolExecutor(1) as pool:
        with store.database.writing() as db:
            row_of(db, "shop", "a", lock=True)
            leases = pool.submit(store.lease, epoch, {"a": "cpu", "b": "cpu"})
            if db.dialect.name == "sqlite":
                must_wait(leases)
                expected = ["a", "b"]
            else:
                expected = ["b"]
                leases.result(timeout=10)
        assert [job.id for job in leases.result(timeout=10)] == expected
