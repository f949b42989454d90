"""The JobStore contract, on SQLite and Postgres: who waits in which place, and for how long."""

import pytest

from diffusion.params import Priority
from storage.job_store import JobStore
from storage.jobs import JobStatus
from tests.sample_jobs import (
    LEASE_S,
    VIDEO,
    Clock,
    lease_next,
    lease_one,
    make_request,
)


def create(store: JobStore, job_id: str, tenant: str = "shop") -> None:
    """Batch when its id begins with b."""
    priority = Priority.BATCH if job_id.startswith("b") else Priority.INTERACTIVE
    store.create(make_request(job_id, tenant, priority=priority))


def waiting(store: JobStore, per_tenant: int) -> list[str]:
    return [job.id for job in store.waiting(per_tenant)]


# --- the candidates


def test_interactive_jobs_wait_before_batch_ones(store: JobStore) -> None:
    for job_id in ("b1", "i1", "b2", "i2"):
        create(store, job_id)
    assert waiting(store, 9) == ["i1", "i2", "b1", "b2"]
    assert [job.id for job in lease_next(store, store.next_epoch(), 3)] == ["i1", "i2", "b1"]
    assert store.waiting(9) == [store.get("shop", "b2")]


def test_every_tenant_sends_its_first_of_each_priority(store: JobStore) -> None:
    for number in range(5):
        create(store, f"b-big{number}", "big")
        create(store, f"i-big{number}", "big")
    for job_id, tenant in [("b-a", "a"), ("i-z1", "z"), ("i-z2", "z"), ("i-z3", "z"), ("b-z", "z")]:
        create(store, job_id, tenant)
    assert waiting(store, 1) == ["i-big0", "i-z1", "b-big0", "b-a", "b-z"]
    assert waiting(store, 2) == [
        *("i-big0", "i-big1", "i-z1", "i-z2"),
        *("b-big0", "b-big1", "b-a", "b-z"),
    ]


def test_a_lost_job_waits_in_its_old_place(store: JobStore, clock: Clock) -> None:
    for job_id in ("i1", "i2", "i3", "b1", "b2"):
        create(store, job_id)
    create(store, "i-rival", "rival")
    epoch = store.next_epoch()
    store.lease(epoch, dict.fromkeys(("i2", "b1", "i-rival"), "cpu"))
    assert waiting(store, 2) == ["i1", "i3", "b2"]
    clock.now += LEASE_S
    assert waiting(store, 2) == ["i1", "i2", "i-rival", "b1", "b2"]
    assert waiting(store, 1) == ["i1", "i-rival", "b1"]


def test_what_ended_or_runs_does_not_wait(store: JobStore) -> None:
    for job_id in ("done", "cancelled", "running", "given-back", "deleted"):
        create(store, job_id)
    attempts = {job.id: job.current_attempt for job in lease_next(store, store.next_epoch(), 5)}
    store.complete(attempts["done"], VIDEO)
    store.cancel("shop", "cancelled")
    store.delete("shop", "deleted")
    store.release(attempts["given-back"], "preempted")
    assert waiting(store, 9) == ["given-back"]


def test_nobody_waits_in_an_empty_table(store: JobStore) -> None:
    assert store.waiting(1) == []


@pytest.mark.parametrize("per_tenant", [0, -1])
def test_candidates_are_asked_for_by_a_number(store: JobStore, per_tenant: int) -> None:
    with pytest.raises(ValueError, match=str(per_tenant)):
        store.waiting(per_tenant)


# --- the position


def test_queue_position_counts_the_queued_before(store: JobStore) -> None:
    for job_id in "acde":
        create(store, job_id)
    lease_one(store, store.next_epoch())
    store.cancel("shop", "c")
    assert [store.queue_position(job_id) for job_id in "acde"] == [None, None, 0, 1]
    assert store.queue_position("nobody") is None


def test_interactive_jobs_stand_before_batch_ones_of_all_tenants(store: JobStore) -> None:
    for job_id, tenant in [("b1", "a"), ("i1", "b"), ("b2", "b"), ("i2", "a")]:
        create(store, job_id, tenant)
    assert [store.queue_position(job_id) for job_id in ("i1", "i2", "b1", "b2")] == [0, 1, 2, 3]


# --- deadlines


def test_a_job_that_waited_too_long_fails(store: JobStore, clock: Clock) -> None:
    for job_id, deadline_at in [("late", 1010.0), ("later", 1020.0), ("patient", None)]:
        store.create(make_request(job_id, deadline_at=deadline_at))
    epoch = store.next_epoch()
    clock.now = 1010.0
    assert store.expire(epoch) == []
    clock.now = 1052.4
    assert store.expire(epoch) == ["late", "later"]
    job = store.get("shop", "late")
    assert (job.status, job.error_code, job.completed_at) == (
        JobStatus.FAILED,
        "deadline_exceeded",
        clock.now,
    )
    assert job.error_message == "still waited 42 s after its deadline"
    assert store.expire(epoch) == []
    assert waiting(store, 9) == ["patient"]
    assert store.cancel("shop", "late") == job


def test_a_deadline_is_for_waiting_only(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a", deadline_at=1010.0))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    clock.now = 1020.0
    assert store.expire(epoch) == []
    store.release(attempt, "preempted")
    assert store.expire(epoch) == ["a"]
