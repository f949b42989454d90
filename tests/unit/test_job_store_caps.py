"""The JobStore contract, on SQLite and Postgres: how many jobs may be there."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select

from storage.errors import QueueFull, QuotaExceeded, TenantNotFound
from storage.files import SqlFiles, StoredFile
from storage.job_contract import Caps
from storage.job_store import Idempotency, JobStore, SqlJobStore
from storage.jobs import JobStatus
from storage.sql.tables import creations
from storage.tenants import SqlTenants
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request


def test_a_full_queue_takes_no_more(store: JobStore) -> None:
    caps = Caps(queued=2)
    store.create(make_request("a"), caps=caps)
    store.create(make_request("b", "rival"), caps=caps)
    with pytest.raises(QueueFull, match="2 jobs wait already"):
        store.create(make_request("c", "third"), caps=caps)
    assert store.queued() == 2
    lease_one(store, store.next_epoch())  # what runs waits no more
    store.create(make_request("c", "third"), caps=caps)


def test_a_tenant_may_queue_so_many(store: JobStore) -> None:
    caps = Caps(tenant_queued=1)
    store.create(make_request("a"), caps=caps)
    with pytest.raises(QuotaExceeded, match="queued jobs: 1") as refused:
        store.create(make_request("b"), caps=caps)
    assert (refused.value.quota, refused.value.limit) == ("queued_jobs", 1)
    assert refused.value.retry_after_s > 0
    store.create(make_request("c", "rival"), caps=caps)
    lease_one(store, store.next_epoch())
    store.create(make_request("b"), caps=caps)


def test_a_tenant_may_have_so_many_unfinished(store: JobStore) -> None:
    caps = Caps(tenant_unfinished=2)
    store.create(make_request("a"), caps=caps)
    attempt = lease_one(store, store.next_epoch())
    store.create(make_request("b"), caps=caps)
    with pytest.raises(QuotaExceeded) as refused:
        store.create(make_request("c"), caps=caps)
    assert refused.value.quota == "unfinished_jobs"
    store.complete(attempt, VIDEO)
    store.create(make_request("c"), caps=caps)


def test_a_tenant_may_create_so_many_in_a_minute(store: JobStore, clock: Clock) -> None:
    caps = Caps(tenant_creates_per_minute=2)
    store.create(make_request("a"), caps=caps)
    clock.now += 20
    store.create(make_request("b"), caps=caps)
    store.delete("shop", "a")  # the rate is that of creation, whatever becomes of it
    clock.now += 15
    with pytest.raises(QuotaExceeded) as refused:
        store.create(make_request("c"), caps=caps)
    assert (refused.value.quota, refused.value.retry_after_s) == ("creates_per_minute", 25)
    store.create(make_request("x", "rival"), caps=caps)
    clock.now += refused.value.retry_after_s
    store.create(make_request("c"), caps=caps)


@pytest.mark.parametrize(
    "none",
    [
        Caps(queued=0),
        Caps(tenant_queued=0),
        Caps(tenant_unfinished=0),
        Caps(tenant_creates_per_minute=0),
    ],
)
def test_a_cap_of_none_lets_nothing_in(store: JobStore, none: Caps) -> None:
    with pytest.raises((QueueFull, QuotaExceeded)):
        store.create(make_request("a"), caps=none)
    assert store.counts() == dict.fromkeys(JobStatus, 0)


def test_results_that_are_there_count_as_creations(store: JobStore, clock: Clock) -> None:
    caps = Caps(tenant_creates_per_minute=2)
    store.create(make_request("a"), caps=caps, results=[VIDEO])
    store.create(make_request("b"), caps=caps, results=[VIDEO])
    for result in (VIDEO, None):
        with pytest.raises(QuotaExceeded) as refused:
            store.create(make_request("c"), caps=caps, results=[result])
        assert (refused.value.quota, refused.value.retry_after_s) == ("creates_per_minute", 60)
    clock.now += 60
    store.create(make_request("c"), caps=caps, results=[VIDEO])


def test_what_is_refused_is_no_creation(store: JobStore) -> None:
    caps = Caps(tenant_queued=1, tenant_creates_per_minute=2)
    store.create(make_request("a"), caps=caps)
    for _ in range(3):
        with pytest.raises(QuotaExceeded, match="queued jobs"):
            store.create(make_request("b"), caps=caps)
    lease_one(store, store.next_epoch())
    store.create(make_request("b"), caps=caps)


def test_no_more_creations_are_kept_than_a_minute_may_have(
    store: SqlJobStore, clock: Clock
) -> None:
    for number in range(20):
        clock.now += 31
        store.create(make_request(f"job-{number}"), caps=Caps(tenant_creates_per_minute=2))
    with store.database.reading() as db:
        assert db.scalar(select(func.count()).select_from(creations)) == 2


def test_a_tenant_must_be_registered_where_that_is_asked_for(store: SqlJobStore) -> None:
    tenants = SqlTenants(store.database)
    for tenant in ("nobody", "shop"):
        with pytest.raises(TenantNotFound):
            store.create(make_request("a", tenant), registered=True)
    assert store.counts() == dict.fromkeys(JobStatus, 0)
    tenants.put("shop", None)
    store.create(make_request("a"), registered=True)
    tenants.remove("shop")
    with pytest.raises(TenantNotFound):
        store.create(make_request("b"), registered=True)


def test_repeats_and_results_that_are_there_pass_the_caps_of_the_queue(store: JobStore) -> None:
    first = store.create(make_request("a"), Idempotency("key", "body"))
    full = Caps(0, 0, 0, 0)
    assert store.create(make_request("b"), Idempotency("key", "body"), caps=full) == first
    assert store.create(make_request("a"), caps=full) == first
    full = Caps(0, 0, 0)
    done = store.create(make_request("c"), caps=full, results=[VIDEO])
    assert done.status is JobStatus.COMPLETED
    store.delete("shop", "c")
    with pytest.raises(QueueFull):  # its result is going: it would be work
        store.create(make_request("d"), caps=full, results=[VIDEO])


def test_creations_at_the_same_moment_share_one_cap(store: SqlJobStore) -> None:
    together = Barrier(8)

    def is_taken(name: str) -> bool:
        together.wait()
        try:
            store.create(make_request(name), caps=Caps(tenant_queued=2))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(is_taken, "abcdefgh")) == 2


def test_uploads_at_the_same_moment_share_one_cap(store: SqlJobStore) -> None:
    together, files = Barrier(8), SqlFiles(store.database)

    def is_taken(name: str) -> bool:
        file = StoredFile(
            id=name,
            tenant="shop",
            purpose="vision",
            filename="a.jpg",
            media_type="image/jpeg",
            size_bytes=10,
            sha256="0" * 64,
        )
        together.wait()
        try:
            files.add(file, max_stored_bytes=20)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(is_taken, "abcdefgh")) == 2
