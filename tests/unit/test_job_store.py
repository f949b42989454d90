"""The JobStore contract, on SQLite and Postgres: creating, reading, forgetting."""

from typing import Literal

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from storage.errors import IdempotencyConflict, JobNotFound, StaleAttempt
from storage.job_contract import Progress
from storage.job_store import Idempotency, JobStore, JobStoreConfig, SqlJobStore
from storage.jobs import JobStatus, Stage
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request

# --- creating and reading


def test_a_created_job_is_queued_and_comes_back_whole(store: JobStore, clock: Clock) -> None:
    job = store.create(make_request("a", sku="BAG"))
    assert job.request == make_request("a", sku="BAG")
    assert (job.status, job.created_at, job.attempt) == (JobStatus.QUEUED, clock.now, 0)
    assert (job.started_at, job.completed_at, job.lease_until, job.stage) == (None,) * 4
    assert job.result is None
    assert store.get("shop", "a") == job


def test_a_job_outlives_the_process(config: JobStoreConfig, store: SqlJobStore) -> None:
    job = store.create(make_request("a"))
    store.close()
    reopened = SqlJobStore(config)
    assert reopened.get("shop", "a") == job
    reopened.close()


def test_a_stage_that_only_a_newer_release_knows_is_none(store: SqlJobStore) -> None:
    """Both share the table while one replaces the other."""
    job = store.create(make_request("a"))
    epoch = store.next_epoch()
    attempt = lease_one(store, epoch)
    for stage in Stage:
        store.record_progress([Progress(attempt, stage, 3)], epoch)
        assert store.get("shop", job.id).stage is stage
    with store.database.writing() as db:
        db.execute(text("UPDATE jobs SET stage = 'mastering'"))
    read = store.get("shop", job.id)
    assert (read.status, read.stage, read.step) == (JobStatus.IN_PROGRESS, None, 3)


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
    with pytest.raises(IdempotencyConflict, match="request, a"):
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


def test_listings_filter_by_category_and_show_no_candidates(store: JobStore) -> None:
    store.create(make_request("a", category="watch"))
    store.create(make_request("b", category="home"))
    store.create(make_request("c", category="watch", candidates=2))
    store.create(make_request("d", "rival", category="watch"))
    assert [job.id for job in store.list_jobs("shop", limit=9, category="watch")] == ["c", "a"]
    older = store.list_jobs("shop", limit=9, category="watch", after="c")
    assert [job.id for job in older] == ["a"]
    assert store.list_jobs("shop", limit=9, category="toy") == []


def test_counts_name_every_status(store: JobStore) -> None:
    assert store.counts() == dict.fromkeys(JobStatus, 0)
    for job_id in "abc":
        store.create(make_request(job_id))
    lease_one(store, store.next_epoch())
    store.cancel("shop", "b")
    expected = {JobStatus.IN_PROGRESS: 1, JobStatus.CANCELLED: 1, JobStatus.QUEUED: 1}
    assert store.counts() == dict.fromkeys(JobStatus, 0) | expected


# --- forgetting


def test_deleting_forgets_the_job_and_its_key(store: JobStore) -> None:
    first = store.create(make_request("a"), Idempotency("key", "body"))
    attempt = lease_one(store, store.next_epoch())
    assert store.delete("shop", "a").job_id == first.id
    with pytest.raises(JobNotFound):
        store.get("shop", "a")
    with pytest.raises(StaleAttempt):
        store.complete(attempt, VIDEO)
    assert store.create(make_request("b"), Idempotency("key", "another")).id == "b"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", ""])
def test_databases_that_cannot_hold_jobs_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        JobStoreConfig(url=url)
