"""The JobStore contract, on SQLite and Postgres: results that jobs share, and their deletion."""

import dataclasses

import pytest

from storage.errors import ResultPurged
from storage.job_store import Idempotency, JobStore, JobStoreConfig, SqlJobStore
from storage.jobs import JobStatus, VideoFile
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request

OTHER = dataclasses.replace(VIDEO, result_id="other")


def complete(store: JobStore, job_id: str, video: VideoFile = VIDEO, tenant: str = "shop") -> None:
    store.create(make_request(job_id, tenant))
    (job,) = store.lease(store.next_epoch(), {job_id: "cpu"})
    store.complete(job.current_attempt, video)


# --- a job whose result is there


def test_a_job_with_a_result_is_completed_at_once(store: JobStore, clock: Clock) -> None:
    job = store.create(make_request("a"), results=[VIDEO])
    assert (job.status, job.result) == (JobStatus.COMPLETED, VIDEO)
    assert (job.created_at, job.started_at, job.completed_at) == (clock.now, None, clock.now)
    assert (job.attempt, job.expired) == (0, False)
    assert store.get("shop", "a") == job
    assert store.waiting(9) == []


def test_a_repeat_gives_the_job_that_stands_not_the_result(store: JobStore) -> None:
    first = store.create(make_request("a"), Idempotency("key", "body"))
    assert store.create(make_request("b"), Idempotency("key", "body"), results=[VIDEO]) == first
    assert store.create(make_request("a"), results=[VIDEO]) == first


def test_a_result_that_is_being_deleted_is_made_anew(store: JobStore) -> None:
    store.create(make_request("a"), results=[VIDEO])
    purge = store.delete("shop", "a")
    again = store.create(make_request("b"), results=[VIDEO])
    assert (again.status, again.result) == (JobStatus.QUEUED, None)
    assert store.create(make_request("c"), results=[OTHER]).status is JobStatus.COMPLETED
    assert store.create(make_request("d", "rival"), results=[VIDEO]).status is JobStatus.COMPLETED
    store.purged(purge)
    assert store.create(make_request("e"), results=[VIDEO]).status is JobStatus.COMPLETED


def test_nobody_completes_with_a_result_that_is_being_deleted(store: JobStore) -> None:
    store.create(make_request("a"), results=[VIDEO])
    store.create(make_request("b"))
    attempt = lease_one(store, store.next_epoch())
    purge = store.delete("shop", "a")
    before = store.get("shop", "b")
    with pytest.raises(ResultPurged, match="result r is being deleted") as refused:
        store.complete(attempt, VIDEO)
    assert refused.value.retryable
    assert store.get("shop", "b") == before
    assert store.owned([attempt]) == {attempt}
    store.purged(purge)
    assert store.complete(attempt, VIDEO).result == VIDEO


# --- deleting


def test_a_deletion_takes_the_result_along(config: JobStoreConfig, store: SqlJobStore) -> None:
    complete(store, "a")
    purge = store.delete("shop", "a")
    assert (purge.tenant, purge.job_id, purge.result_id) == ("shop", "a", VIDEO.result_id)
    assert store.purges(9) == [purge]
    store.close()
    reopened = SqlJobStore(config)  # it stands until it is done, whoever asks
    assert reopened.purges(9) == [purge]
    reopened.purged(purge)
    reopened.purged(purge)
    assert reopened.purges(9) == []
    reopened.close()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_result_goes_with_the_last_job_that_refers_to_it(store: JobStore, order: str) -> None:
    complete(store, "a")
    store.create(make_request("b"), results=[VIDEO])
    complete(store, "of-a-rival", tenant="rival")
    complete(store, "other", OTHER)
    deleted = [store.delete("shop", job_id) for job_id in order]
    assert [purge.result_id for purge in deleted] == [None, VIDEO.result_id]


def test_deletions_are_handed_out_oldest_first(store: JobStore) -> None:
    for job_id in "cab":
        store.create(make_request(job_id))
    noted = [store.delete("shop", job_id) for job_id in "bca"]
    assert [purge.job_id for purge in store.purges(9)] == ["b", "c", "a"]
    assert store.purges(2) == noted[:2]
    store.purged(noted[0])
    assert store.purges(2) == noted[1:]
    assert store.delete("shop", store.create(make_request("d")).id).seq > noted[-1].seq


def test_a_job_without_a_result_leaves_its_own_objects_only(store: JobStore) -> None:
    store.create(make_request("queued"))
    store.create(make_request("running"))
    store.lease(store.next_epoch(), {"running": "cpu"})
    for job_id in ("queued", "running"):
        assert store.delete("shop", job_id).result_id is None
