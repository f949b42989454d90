"""The JobStore contract, on SQLite and Postgres: taking jobs."""

import pytest

from storage.errors import StaleAttempt, StaleDispatcher
from storage.job_store import JobStore, Progress
from storage.jobs import Attempt, JobStatus, Stage
from tests.sample_jobs import (
    LEASE_S,
    MAX_ATTEMPTS,
    VIDEO,
    Clock,
    lease_next,
    lease_one,
    make_request,
)


def test_the_oldest_are_leased_first(store: JobStore, clock: Clock) -> None:
    for job_id in "abc":
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    clock.now += 5
    first, second = lease_next(store, epoch, 2)
    assert (first.id, second.id) == ("a", "b")
    assert first.status is JobStatus.IN_PROGRESS
    assert (first.attempt, first.epoch, first.started_at) == (1, epoch, clock.now)
    assert first.lease_until == clock.now + LEASE_S
    assert store.get("shop", "a") == first
    assert [job.id for job in lease_next(store, epoch, 9)] == ["c"]
    assert lease_next(store, epoch, 9) == []


def test_the_named_jobs_are_leased_in_the_order_named(store: JobStore) -> None:
    for job_id in "abcd":
        store.create(make_request(job_id))
    leased = store.lease(store.next_epoch(), {"d": "a100", "a": "rtx4090", "c": "a100"})
    assert [(job.id, job.tier) for job in leased] == [
        ("d", "a100"),
        ("a", "rtx4090"),
        ("c", "a100"),
    ]
    assert [store.get("shop", job.id) for job in leased] == leased
    untouched = store.get("shop", "b")
    assert (untouched.status, untouched.tier) == (JobStatus.QUEUED, None)


def test_jobs_that_wait_no_more_are_left_out(store: JobStore) -> None:
    for job_id in ("waits", "leased", "cancelled", "completed", "deleted"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    (job,) = store.lease(epoch, {"completed": "a100"})
    store.complete(job.current_attempt, VIDEO)
    taken = store.lease(epoch, {"leased": "a100"})
    store.cancel("shop", "cancelled")
    store.delete("shop", "deleted")
    names = ("deleted", "completed", "cancelled", "leased", "waits", "nobody")
    assert [job.id for job in store.lease(epoch, dict.fromkeys(names, "rtx4090"))] == ["waits"]
    assert [store.get("shop", "leased")] == taken


def test_leasing_nothing(store: JobStore) -> None:
    store.create(make_request("a"))
    assert store.lease(store.next_epoch(), {}) == []
    assert store.get("shop", "a").status is JobStatus.QUEUED


def test_an_expired_lease_goes_to_the_next_attempt(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    epoch, began = store.next_epoch(), clock.now
    first = lease_one(store, epoch)
    store.record_progress([Progress(first, Stage.DENOISING, 3)], epoch)
    clock.now += LEASE_S - 0.1
    assert store.waiting(1) == []
    assert store.lease(epoch, {"a": "a100"}) == []
    clock.now += 0.1
    (job,) = store.lease(epoch, {"a": "a100"})
    assert (job.attempt, job.started_at, job.tier) == (2, began, "a100")
    assert (job.stage, job.step) == (None, 0)
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
    assert [job.id for job in store.waiting(9)] == ["poison", "healthy"]  # until a lease sees it
    assert [job.id for job in store.lease(epoch, {"healthy": "cpu"})] == ["healthy"]
    job = store.get("shop", "poison")
    assert (job.status, job.error_code, job.completed_at) == (
        JobStatus.FAILED,
        "worker_lost",
        clock.now,
    )


def test_only_those_fail_of_which_nothing_came(store: JobStore, clock: Clock) -> None:
    for job_id in "ab":
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    for _ in range(MAX_ATTEMPTS):
        attempts = [job.current_attempt for job in lease_next(store, epoch, 2)]
        clock.now += LEASE_S
    assert store.lease(epoch, {"a": "cpu", "b": "cpu"}, {"b"}) == []
    assert store.get("shop", "b").error_code == "worker_lost"
    assert store.get("shop", "a").status is JobStatus.IN_PROGRESS
    assert store.complete(attempts[0], VIDEO).status is JobStatus.COMPLETED


def test_a_lease_of_a_clock_that_was_put_back_since_is_not_believed(
    store: JobStore, clock: Clock
) -> None:
    store.create(make_request("a"))
    lease_one(store, store.next_epoch())
    before = store.get("shop", "a")
    clock.now -= 500
    epoch = store.next_epoch()
    assert store.get("shop", "a").lease_until == clock.now + LEASE_S
    assert store.get("shop", "a").rev == before.rev  # nobody who watches it has to hear of this
    clock.now += LEASE_S
    assert lease_one(store, epoch).number == 2


def test_a_lease_that_may_be_is_left_alone_when_a_dispatcher_starts(
    store: JobStore, clock: Clock
) -> None:
    store.create(make_request("a"))
    lease_one(store, store.next_epoch())
    clock.now += 1
    store.next_epoch()
    assert store.get("shop", "a").lease_until == clock.now - 1 + LEASE_S


def test_a_superseded_dispatcher_neither_leases_nor_renews(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    store.create(make_request("b"))
    old = store.next_epoch()
    attempt = lease_one(store, old)
    new = store.next_epoch()
    assert new > old
    with pytest.raises(StaleDispatcher, match=f"{old} is superseded by {new}"):
        store.lease(old, {"b": "cpu"})
    with pytest.raises(StaleDispatcher):
        store.expire(old)
    with pytest.raises(StaleDispatcher):
        store.record_progress([Progress(attempt, Stage.DENOISING, 1)], old)
    clock.now += LEASE_S
    assert lease_one(store, new) == Attempt("a", 2, new)


def test_an_epoch_nobody_registered_cannot_lease(store: JobStore) -> None:
    with pytest.raises(StaleDispatcher):
        store.lease(1, {})
