"""The JobStore contract, on SQLite and Postgres: what an attempt reports, and its end."""

import dataclasses

import pytest

from storage.errors import IllegalTransition, StaleAttempt
from storage.job_store import JobStore, Progress
from storage.jobs import Attempt, JobEvent, JobStatus, Stage
from storage.sql.rows import EVENTS_KEPT
from tests.sample_jobs import (
    LEASE_S,
    MAX_ATTEMPTS,
    VIDEO,
    Clock,
    lease_next,
    lease_one,
    make_request,
    ways_out,
)

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
    assert store.waiting(1) == []


def test_a_foreseen_end_is_that_of_the_attempt(store: JobStore) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    store.record_progress([Progress(attempt, Stage.DENOISING, 1, predicted_at=1234.5)], epoch)
    store.record_progress([Progress(attempt, Stage.DENOISING, 2)], epoch)  # not known is no news
    assert store.get("shop", "a").predicted_at == 1234.5
    assert store.release(attempt, "preempted").predicted_at is None


def test_progress_names_the_jobs_that_are_gone(store: JobStore, clock: Clock) -> None:
    for job_id in ("kept", "cancelled", "deleted", "completed", "lost"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    attempts = {job.id: job.current_attempt for job in lease_next(store, epoch, 9)}
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
    assert (job.lease_until, job.tier) == (None, "cpu")
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
    assert (job.tier, job.lease_until) == (None, None)
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


def test_a_job_given_back_is_not_the_attempts_any_more(store: JobStore) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    queued = store.release(attempt, "preempted")
    for leave in ways_out(store):
        with pytest.raises(StaleAttempt):
            leave(attempt)
    assert store.get("shop", "a") == queued


# --- owning


def test_zombies_are_told_from_those_who_own_their_job(store: JobStore, clock: Clock) -> None:
    ended = ("cancelled", "deleted", "completed", "failed", "released")
    for job_id in ("alive", "silent", *ended, "lost"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    attempts = {job.id: job.current_attempt for job in lease_next(store, epoch, 9)}
    store.cancel("shop", "cancelled")
    store.delete("shop", "deleted")
    store.complete(attempts["completed"], VIDEO)
    store.fail(attempts["failed"], "internal", "")
    store.release(attempts["released"], "preempted")
    clock.now += LEASE_S
    store.record_progress([Progress(attempts["alive"], Stage.DENOISING, 1)], epoch)
    store.next_epoch()  # a restart alone disowns nobody
    assert store.owned(list(attempts.values())) == {
        attempts[name] for name in ("alive", "silent", "lost")
    }
    (second,) = store.lease(epoch + 1, {"lost": "cpu"})
    assert store.owned([attempts["lost"], second.current_attempt]) == {second.current_attempt}
    assert store.owned([attempts["lost"]]) == set()
    assert store.owned([Attempt("nobody", 1, epoch)]) == set()
    assert store.owned([]) == set()


def test_asking_who_owns_renews_nothing(store: JobStore) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    before = store.get("shop", "a")
    assert store.owned([attempt]) == {attempt}
    assert store.get("shop", "a") == before


# --- events


def test_events_of_all_attempts_are_kept_in_order(store: JobStore) -> None:
    assert store.create(make_request("a")).events == ()
    epoch = store.next_epoch()
    first = lease_one(store, epoch)
    chunked, again, preempted, resumed, decoded = (
        JobEvent(1000.5 + number, kind, f"größer als {number} GB")
        for number, kind in enumerate(
            ("chunked_unet", "precision_retry", "preempted", "resumed", "decode_chunk")
        )
    )
    store.record_progress([Progress(first, Stage.DENOISING, 3, (chunked, again))], epoch)
    store.record_progress([Progress(first, Stage.DENOISING, 4)], epoch)
    assert store.get("shop", "a").events == (chunked, again)
    released = store.release(first, "preempted", charge=False, events=[preempted])
    assert released.events == (chunked, again, preempted)
    second = lease_one(store, epoch)
    store.record_progress([Progress(second, Stage.DENOISING, 4, (resumed,))], epoch)
    job = store.complete(second, VIDEO, [decoded])
    assert job.events == (chunked, again, preempted, resumed, decoded)
    assert store.get("shop", "a") == job


@pytest.mark.parametrize("way", range(3))
def test_every_way_out_writes_its_events(store: JobStore, way: int) -> None:
    store.create(make_request("a"))
    attempt = lease_one(store, store.next_epoch())
    event = JobEvent(1.0, "other_tier", "")
    ways_out(store, [event])[way](attempt)
    assert store.get("shop", "a").events == (event,)


def test_only_the_last_events_are_kept(store: JobStore) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    events = tuple(JobEvent(float(number), "solo_rows", "") for number in range(EVENTS_KEPT + 5))
    store.record_progress([Progress(attempt, Stage.DENOISING, 1, events[:2])], epoch)
    store.record_progress([Progress(attempt, Stage.DENOISING, 1, events[2:-1])], epoch)
    assert store.complete(attempt, VIDEO, events[-1:]).events == events[-EVENTS_KEPT:]


def test_who_does_not_own_the_job_writes_no_event(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    zombie = lease_one(store, epoch)
    clock.now += LEASE_S
    owner = lease_one(store, epoch)
    event = JobEvent(1.0, "resumed", "")
    refused = [Progress(zombie, Stage.DENOISING, 1, (event,))]
    assert store.record_progress(refused, epoch) == [zombie]
    for leave in ways_out(store, [event]):
        with pytest.raises(StaleAttempt):
            leave(zombie)
    store.cancel("shop", "a")
    assert store.record_progress([Progress(owner, Stage.DENOISING, 1, (event,))], epoch) == [owner]
    for leave in ways_out(store, [event]):
        with pytest.raises(IllegalTransition):
            leave(owner)
    assert store.get("shop", "a").events == ()
