"""The JobStore contract, on SQLite files."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from storage.errors import (
    IdempotencyConflict,
    IllegalTransition,
    JobNotFound,
    StaleAttempt,
    StaleDispatcher,
    StoreUnavailable,
)
from storage.job_store import Idempotency, JobStore, JobStoreConfig, Progress, SqlJobStore
from storage.jobs import Attempt, JobStatus, Stage
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, VIDEO, Clock, make_request, ways_out


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(tmp_path: Path) -> JobStoreConfig:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    return JobStoreConfig(url=url, lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS)


@pytest.fixture
def store(config: JobStoreConfig, clock: Clock) -> Iterator[JobStore]:
    store = SqlJobStore(config, clock)
    yield store
    store.close()


def lease_one(store: JobStore, epoch: int) -> Attempt:
    (job,) = store.lease(epoch, 1)
    return job.current_attempt


# --- creating and reading


def test_a_created_job_is_queued_and_comes_back_whole(store: JobStore, clock: Clock) -> None:
    job = store.create(make_request("a", sku="BAG"))
    assert job.request == make_request("a", sku="BAG")
    assert (job.status, job.created_at, job.attempt) == (JobStatus.QUEUED, clock.now, 0)
    assert (job.started_at, job.completed_at, job.lease_until, job.stage) == (None,) * 4
    assert job.result is None
    assert store.get("shop", "a") == job


def test_a_job_outlives_the_process(config: JobStoreConfig, store: JobStore) -> None:
    job = store.create(make_request("a"))
    assert SqlJobStore(config).get("shop", "a") == job


@pytest.mark.parametrize("job_id", ["nobody", "a"])
def test_another_tenants_job_is_not_found(store: JobStore, job_id: str) -> None:
    store.create(make_request("a"))
    for call in (store.get, store.cancel, store.delete):
        with pytest.raises(JobNotFound):
            call("rival", job_id)
    assert store.get("shop", "a").status is JobStatus.QUEUED


def test_the_same_idempotency_key_gives_the_first_job(store: JobStore) -> None:
    first = store.create(make_request("a"), Idempotency("key", "body"))
    assert store.create(make_request("b"), Idempotency("key", "body")) == first
    assert store.counts()[JobStatus.QUEUED] == 1


def test_the_same_idempotency_key_with_another_body_is_refused(store: JobStore) -> None:
    store.create(make_request("a"), Idempotency("key", "body"))
    with pytest.raises(IdempotencyConflict, match="video a"):
        store.create(make_request("b"), Idempotency("key", "other body"))


def test_idempotency_keys_belong_to_a_tenant(store: JobStore) -> None:
    for tenant in ("shop", "rival"):
        store.create(make_request(f"of-{tenant}", tenant), Idempotency("key", tenant))
    assert store.counts()[JobStatus.QUEUED] == 2


def test_creating_the_same_job_again_changes_nothing(store: JobStore) -> None:
    first = store.create(make_request("a"))
    assert store.create(make_request("a")) == first


# --- listing


@pytest.mark.parametrize(("order", "expected"), [("asc", "abcde"), ("desc", "edcba")])
def test_pages_follow_the_order_of_creation(
    store: JobStore, order: Literal["asc", "desc"], expected: str
) -> None:
    for job_id in "abcde":  # all within one tick of the clock
        store.create(make_request(job_id))
        store.create(make_request(f"x{job_id}", "rival"))
    seen: list[str] = []
    while page := store.list_jobs("shop", limit=2, after=seen[-1] if seen else None, order=order):
        seen += [job.id for job in page]
    assert "".join(seen) == expected


def test_a_cursor_stands_when_new_jobs_arrive(store: JobStore) -> None:
    for job_id in "abc":
        store.create(make_request(job_id))
    (newest,) = store.list_jobs("shop", limit=1)
    store.create(make_request("d"))
    assert [job.id for job in store.list_jobs("shop", limit=9, after=newest.id)] == ["b", "a"]


@pytest.mark.parametrize("after", ["nobody", "x"])
def test_an_unknown_cursor_is_refused(store: JobStore, after: str) -> None:
    store.create(make_request("x", "rival"))
    with pytest.raises(JobNotFound):
        store.list_jobs("shop", limit=1, after=after)


def test_listings_filter_by_status_and_sku(store: JobStore) -> None:
    store.create(make_request("a", sku="BAG"))
    store.create(make_request("b", sku="SHOE"))
    store.create(make_request("c", sku="BAG"))
    store.cancel("shop", "a")
    assert [job.id for job in store.list_jobs("shop", limit=9, sku="BAG")] == ["c", "a"]
    queued = store.list_jobs("shop", limit=9, sku="BAG", status=JobStatus.QUEUED)
    assert [job.id for job in queued] == ["c"]


def test_counts_name_every_status(store: JobStore) -> None:
    assert store.counts() == dict.fromkeys(JobStatus, 0)
    for job_id in "abc":
        store.create(make_request(job_id))
    store.lease(store.next_epoch(), 1)
    store.cancel("shop", "b")
    expected = {JobStatus.IN_PROGRESS: 1, JobStatus.CANCELLED: 1, JobStatus.QUEUED: 1}
    assert store.counts() == dict.fromkeys(JobStatus, 0) | expected


def test_queue_position_counts_the_queued_before(store: JobStore) -> None:
    for job_id in "abcd":
        store.create(make_request(job_id))
    store.lease(store.next_epoch(), 1)
    store.cancel("shop", "b")
    assert [store.queue_position(job_id) for job_id in "abcd"] == [None, None, 0, 1]
    assert store.queue_position("nobody") is None


# --- leasing


def test_the_oldest_are_leased_first(store: JobStore, clock: Clock) -> None:
    for job_id in "abc":
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    clock.now += 5
    first, second = store.lease(epoch, 2)
    assert (first.id, second.id) == ("a", "b")
    assert first.status is JobStatus.IN_PROGRESS
    assert (first.attempt, first.epoch, first.started_at) == (1, epoch, clock.now)
    assert first.lease_until == clock.now + LEASE_S
    assert store.get("shop", "a") == first
    assert [job.id for job in store.lease(epoch, 9)] == ["c"]
    assert store.lease(epoch, 9) == []


def test_leasing_nothing_or_less(store: JobStore) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    assert store.lease(epoch, 0) == []
    with pytest.raises(ValueError, match="-1"):
        store.lease(epoch, -1)


def test_an_expired_lease_goes_to_the_next_attempt(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    epoch, began = store.next_epoch(), clock.now
    first = lease_one(store, epoch)
    clock.now += LEASE_S - 0.1
    assert store.lease(epoch, 1) == []
    clock.now += 0.1
    (job,) = store.lease(epoch, 1)
    assert (job.attempt, job.started_at) == (2, began)
    with pytest.raises(StaleAttempt, match="attempt 1"):
        store.complete(first, VIDEO)
    assert store.complete(job.current_attempt, VIDEO).result == VIDEO


def test_a_late_worker_may_finish_while_nobody_took_its_job(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    clock.now += 10 * LEASE_S
    assert store.complete(attempt, VIDEO).status is JobStatus.COMPLETED


def test_a_job_that_loses_every_worker_fails(store: JobStore, clock: Clock) -> None:
    store.create(make_request("poison"))
    store.create(make_request("healthy"))
    epoch = store.next_epoch()
    for number in range(1, MAX_ATTEMPTS + 1):
        assert lease_one(store, epoch) == Attempt("poison", number, epoch)
        clock.now += LEASE_S
    assert lease_one(store, epoch).job_id == "healthy"
    job = store.get("shop", "poison")
    assert (job.status, job.error_code, job.completed_at) == (
        JobStatus.FAILED,
        "worker_lost",
        clock.now,
    )


def test_a_superseded_dispatcher_neither_leases_nor_renews(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    store.create(make_request("b"))
    old = store.next_epoch()
    attempt = lease_one(store, old)
    new = store.next_epoch()
    assert new > old
    with pytest.raises(StaleDispatcher, match=f"{old} is superseded by {new}"):
        store.lease(old, 1)
    with pytest.raises(StaleDispatcher):
        store.record_progress([Progress(attempt, Stage.DENOISING, 1)], old)
    clock.now += LEASE_S
    assert lease_one(store, new) == Attempt("a", 2, new)


def test_an_epoch_nobody_registered_cannot_lease(store: JobStore) -> None:
    with pytest.raises(StaleDispatcher):
        store.lease(1, 1)


# --- progress


def test_progress_is_written_and_renews_the_lease(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    clock.now += LEASE_S - 1
    assert store.record_progress([Progress(attempt, Stage.DENOISING, 12)], epoch) == []
    job = store.get("shop", "a")
    assert (job.stage, job.step) == (Stage.DENOISING, 12)
    clock.now += LEASE_S - 1
    assert store.lease(epoch, 1) == []


def test_progress_names_the_jobs_that_are_gone(store: JobStore, clock: Clock) -> None:
    for job_id in ("kept", "cancelled", "deleted", "completed", "lost"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    attempts = {job.id: job.current_attempt for job in store.lease(epoch, 9)}
    store.cancel("shop", "cancelled")
    store.delete("shop", "deleted")
    store.complete(attempts["completed"], VIDEO)
    alive = [Progress(attempts["kept"], Stage.ENCODING, 0)]
    clock.now += LEASE_S - 1
    store.record_progress(alive, epoch)
    clock.now += 1
    assert lease_one(store, epoch).job_id == "lost"
    reports = [Progress(attempt, Stage.DECODING, 4) for attempt in attempts.values()]
    gone = store.record_progress(reports, epoch)
    assert set(gone) == {attempts[name] for name in ("cancelled", "deleted", "completed", "lost")}
    assert store.get("shop", "kept").stage is Stage.DECODING
    assert store.get("shop", "lost").stage is None


# --- ending


def test_an_uncharged_release_never_uses_a_job_up(store: JobStore) -> None:
    store.create(make_request("job"))
    epoch = store.next_epoch()
    for number in range(1, 3 * MAX_ATTEMPTS):
        attempt = lease_one(store, epoch)
        assert attempt.number == number  # the fence moves on all the same
        assert store.release(attempt, "drained", charge=False).status is JobStatus.QUEUED
    for left in reversed(range(MAX_ATTEMPTS)):
        job = store.release(lease_one(store, epoch), "worker_lost")
        assert job.status is (JobStatus.QUEUED if left else JobStatus.FAILED)


def test_completing(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    clock.now += 9
    job = store.complete(attempt, VIDEO)
    assert (job.status, job.result, job.completed_at) == (JobStatus.COMPLETED, VIDEO, clock.now)
    assert job.lease_until is None
    assert store.get("shop", "a") == job


def test_failing(store: JobStore) -> None:
    store.create(make_request("a"))
    job = store.fail(lease_one(store, store.next_epoch()), "out_of_memory", "too big")
    assert (job.status, job.error_code, job.error_message) == (
        JobStatus.FAILED,
        "out_of_memory",
        "too big",
    )


def test_releasing_queues_again_in_the_old_place(store: JobStore) -> None:
    store.create(make_request("a"))
    store.create(make_request("b"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    store.record_progress([Progress(attempt, Stage.DENOISING, 3)], epoch)
    job = store.release(attempt, "preempted")
    assert (job.status, job.stage, job.step, job.completed_at) == (JobStatus.QUEUED, None, 0, None)
    assert store.queue_position("a") == 0
    assert lease_one(store, epoch) == Attempt("a", 2, epoch)


def test_releasing_the_last_attempt_fails_with_the_reason(store: JobStore) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    for _ in range(MAX_ATTEMPTS - 1):
        assert store.release(lease_one(store, epoch), "no_space").status is JobStatus.QUEUED
    job = store.release(lease_one(store, epoch), "no_space")
    assert (job.status, job.error_code) == (JobStatus.FAILED, "no_space")


def test_cancelling_wins_over_the_worker_and_stays(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    cancelled = store.cancel("shop", "a")
    assert (cancelled.status, cancelled.completed_at) == (JobStatus.CANCELLED, clock.now)
    clock.now += 1
    assert store.cancel("shop", "a") == cancelled
    for leave in ways_out(store):
        with pytest.raises(IllegalTransition, match="is cancelled"):
            leave(attempt)


def test_a_completed_job_cannot_be_cancelled_any_more(store: JobStore) -> None:
    store.create(make_request("a"))
    store.complete(lease_one(store, store.next_epoch()), VIDEO)
    assert store.cancel("shop", "a").status is JobStatus.COMPLETED


def test_a_foreign_fence_changes_nothing(store: JobStore) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    before = store.get("shop", "a")
    for wrong in (
        dataclasses.replace(attempt, number=2),
        dataclasses.replace(attempt, epoch=attempt.epoch + 1),
        dataclasses.replace(attempt, job_id="nobody"),
    ):
        for leave in ways_out(store):
            with pytest.raises(StaleAttempt):
                leave(wrong)
    assert store.get("shop", "a") == before


def test_deleting_forgets_the_job_and_its_key(store: JobStore) -> None:
    first = store.create(make_request("a"), Idempotency("key", "body"))
    attempt = lease_one(store, store.next_epoch())
    assert store.delete("shop", "a").request == first.request
    with pytest.raises(JobNotFound):
        store.get("shop", "a")
    with pytest.raises(StaleAttempt):
        store.complete(attempt, VIDEO)
    assert store.create(make_request("b"), Idempotency("key", "another")).id == "b"


# --- the database itself


def test_sqlite_is_set_up_to_lose_nothing(store: SqlJobStore) -> None:
    with store._reads.connect() as db:
        read = [
            db.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous")
        ]
    assert read == ["wal", 2]  # 2 is FULL


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        SqlJobStore(JobStoreConfig(url=f"sqlite:///{tmp_path}/missing/jobs.sqlite"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", ""])
def test_databases_that_cannot_hold_jobs_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        JobStoreConfig(url=url)
