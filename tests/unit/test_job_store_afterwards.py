"""The JobStore contract, on SQLite and Postgres: a second chance, an opinion, a look."""

import pytest

from storage.errors import IdempotencyConflict, IllegalTransition, JobNotFound
from storage.job_store import Idempotency, JobStore, Progress
from storage.jobs import Attempt, Feedback, JobEvent, JobStatus, Stage
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, VIDEO, Clock, lease_one, make_request

# --- retry


def test_a_failed_job_gets_a_second_chance(store: JobStore, clock: Clock) -> None:
    store.create(make_request("a", deadline_at=clock.now + 1))
    epoch = store.next_epoch()
    event = JobEvent(1.0, "solo_rows", "")
    for _ in range(MAX_ATTEMPTS):
        attempt = lease_one(store, epoch)
        store.record_progress([Progress(attempt, Stage.DENOISING, 3, (event,))], epoch)
        store.release(attempt, "out_of_memory")
    failed = store.get("shop", "a")
    assert failed.status is JobStatus.FAILED
    clock.now += 100
    job = store.retry("a")
    assert (job.status, job.created_at) == (JobStatus.QUEUED, failed.created_at)
    assert (job.completed_at, job.error_code, job.error_message) == (None,) * 3
    assert (job.stage, job.step, job.tier, job.predicted_at) == (None, 0, None, None)
    assert job.events == (event,)
    assert job.rev > failed.rev
    assert store.get("shop", "a") == job
    assert job.request.deadline_at is None  # workers go by the request
    assert job.request.result_id == failed.request.result_id
    assert store.expire(epoch) == []  # its deadline is not counted any more
    for number in range(MAX_ATTEMPTS + 1, 2 * MAX_ATTEMPTS):
        attempt = lease_one(store, epoch)
        assert attempt == Attempt("a", number, epoch)  # the fence goes on
        assert store.release(attempt, "worker_lost").status is JobStatus.QUEUED
    assert store.complete(lease_one(store, epoch), VIDEO).status is JobStatus.COMPLETED


def test_a_job_failed_on_its_way_starts_over(store: JobStore) -> None:
    store.create(make_request("a"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    store.record_progress([Progress(attempt, Stage.DECODING, 16)], epoch)
    store.fail(attempt, "internal", "")
    job = store.retry("a")
    assert (job.stage, job.step, job.tier) == (None, 0, None)
    assert store.owned([attempt]) == set()


def test_only_a_failed_job_is_retried(store: JobStore) -> None:
    for job_id in ("running", "cancelled", "completed", "queued"):
        store.create(make_request(job_id))
    epoch = store.next_epoch()
    lease_one(store, epoch)
    store.cancel("shop", "cancelled")
    store.complete(lease_one(store, epoch), VIDEO)
    for job_id in ("running", "cancelled", "completed", "queued"):
        before = store.get("shop", job_id)
        with pytest.raises(IllegalTransition):
            store.retry(job_id)
        assert store.get("shop", job_id) == before
    with pytest.raises(JobNotFound):
        store.retry("nobody")


# --- feedback


def test_the_last_word_about_a_video_counts(store: JobStore) -> None:
    job = store.create(make_request("a"), results=[VIDEO])
    assert job.feedback is None
    first = store.rate("shop", "a", Feedback(-1, ("warped", "größer"), 5.0))
    assert first.feedback == Feedback(-1, ("warped", "größer"), 5.0)
    second = store.rate("shop", "a", Feedback(1))
    assert second.feedback == Feedback(1)
    assert store.get("shop", "a") == second
    assert job.rev < first.rev < second.rev


def test_only_a_completed_video_of_ones_own_is_rated(store: JobStore) -> None:
    store.create(make_request("queued"))
    store.create(make_request("mine"), results=[VIDEO])
    with pytest.raises(IllegalTransition):
        store.rate("shop", "queued", Feedback(1))
    for tenant, job_id in (("rival", "mine"), ("shop", "nobody")):
        with pytest.raises(JobNotFound):
            store.rate(tenant, job_id, Feedback(1))
    assert store.get("shop", "mine").feedback is None


# --- looking


def test_a_repeat_is_found_before_any_work(store: JobStore) -> None:
    key = Idempotency("key", "body")
    assert store.find("shop", key) is None
    job = store.create(make_request("a"), key)
    assert store.find("shop", key) == job
    assert store.find("rival", key) is None
    with pytest.raises(IdempotencyConflict, match="request, a"):
        store.find("shop", Idempotency("key", "another body"))
    store.delete("shop", "a")
    assert store.find("shop", key) is None


def test_many_jobs_are_read_at_once_of_any_tenant(store: JobStore) -> None:
    made = {
        job.id: job
        for job in (store.create(make_request("a")), store.create(make_request("b", "rival")))
    }
    store.create(make_request("c"))
    assert {job.id: job for job in store.get_many(["a", "b", "nobody"])} == made
    assert store.revisions(["a", "b", "nobody"]) == {"a": made["a"].rev, "b": made["b"].rev}
    assert store.get_many([]) == []
    assert store.revisions([]) == {}


def test_every_change_raises_the_revision(store: JobStore, clock: Clock) -> None:
    for job_id in ("a", "late", "lost"):
        store.create(make_request(job_id, deadline_at=1010.0 if job_id == "late" else None))
    epoch = store.next_epoch()
    seen = store.revisions(["a"])["a"]

    def changed(job_id: str = "a") -> None:
        nonlocal seen
        now = store.revisions([job_id])[job_id]
        assert now > seen
        assert store.get("shop", job_id).rev == now
        seen = now

    (job,) = store.lease(epoch, {"a": "cpu"})
    changed()
    store.record_progress([Progress(job.current_attempt, Stage.DENOISING, 1)], epoch)
    changed()
    store.release(job.current_attempt, "preempted")
    changed()
    (job,) = store.lease(epoch, {"a": "cpu"})
    changed()
    store.fail(job.current_attempt, "internal", "")
    changed()
    store.retry("a")
    changed()
    (job,) = store.lease(epoch, {"a": "cpu"})
    store.complete(job.current_attempt, VIDEO)
    changed()
    store.rate("shop", "a", Feedback(0))
    changed()
    store.cancel("shop", "a")
    assert store.revisions(["a"])["a"] == seen  # nothing was changed

    seen = store.revisions(["late"])["late"]
    clock.now = 1020.0
    assert store.expire(epoch) == ["late"]
    changed("late")

    seen = store.revisions(["lost"])["lost"]
    for _ in range(MAX_ATTEMPTS):
        store.lease(epoch, {"lost": "cpu"})
        changed("lost")
        clock.now += LEASE_S
    store.lease(epoch, {})
    assert store.get("shop", "lost").status is JobStatus.FAILED
    changed("lost")
