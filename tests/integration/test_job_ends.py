"""Every end of a job is counted once, whoever ended it: on its way into the object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.job_ends import count_end
from monitoring import metrics
from storage.job_store import SqlJobStore
from storage.jobs import Feedback, Job, JobStatus
from storage.lifecycle.records import record_ends
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.recorded import Recorded
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request, sqlite_url, store_config


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)), Clock())
    yield store
    store.close()


def test_an_end_is_told_once_and_again_when_it_changes(
    s3: ObjectStoreConfig, store: SqlJobStore
) -> None:
    objects, told = S3ObjectStore(s3), list[Job]()
    store.create(make_request("made"), results=[VIDEO])
    store.create(make_request("failed"))
    store.fail(lease_one(store, store.next_epoch()), "internal", "broken")
    store.create(make_request("queued"))
    while record_ends(store.database, objects, 1, told.append):
        pass
    assert {job.id: job.status for job in told} == {
        "made": JobStatus.COMPLETED,
        "failed": JobStatus.FAILED,
    }
    assert len(told) == 2
    store.rate("shop", "made", Feedback(1))
    store.retry("failed")
    store.cancel("shop", "failed")
    record_ends(store.database, objects, 100, told.append)
    assert {(job.id, job.status) for job in told[2:]} == {
        ("made", JobStatus.COMPLETED),
        ("failed", JobStatus.CANCELLED),
    }


def test_an_end_that_two_processes_record_at_once_is_told_once(
    s3: ObjectStoreConfig, store: SqlJobStore
) -> None:
    told = list[Job]()
    store.create(make_request("made"), results=[VIDEO])

    class Overtaken(S3ObjectStore):
        def put(self, key: str, data: bytes, content_type: str) -> None:
            super().put(key, data, content_type)
            record_ends(store.database, S3ObjectStore(s3), 100, told.append)

    record_ends(store.database, Overtaken(s3), 100, told.append)
    assert [job.id for job in told] == ["made"]


def test_what_is_recorded_again_for_its_rating_is_not_counted_again(
    s3: ObjectStoreConfig, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, objects = Recorded(monkeypatch), S3ObjectStore(s3)
    store.create(make_request("made"), results=[VIDEO])
    assert record_ends(store.database, objects, 100, count_end) == 1
    store.rate("shop", "made", Feedback(-1))
    assert record_ends(store.database, objects, 100, count_end) == 1
    assert recorded.values(metrics.JOBS, tier="none", outcome="completed") == [1.0]
