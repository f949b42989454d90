"""The ledger finds what it is there to find, in a real job table and a real bucket."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from cluster.embedded_s3 import EmbeddedS3
from storage import keys
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Attempt, Job, JobRequest
from storage.object_store import S3ObjectStore
from tests.faults.ledger import account
from tests.sample_jobs import VIDEO, make_request

MP4 = b"not really an MP4"
Damage = Callable[[S3ObjectStore, Job], None]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{tmp_path / 'jobs.sqlite'}"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def objects(server: EmbeddedS3) -> S3ObjectStore:
    bucket = f"test-{uuid4().hex[:12]}"
    store = S3ObjectStore(server.config.model_copy(update={"bucket": bucket}))
    store.ensure_bucket()
    return store


def completed_job(jobs: SqlJobStore, objects: S3ObjectStore, job_id: str) -> Job:
    request = replace(make_request(job_id), photo_sha256=job_id)
    video = replace(
        VIDEO,
        result_id=request.result_id,
        video_key=keys.video_key(Attempt(job_id, 1, 1)),
        sha256=sha256(MP4).hexdigest(),
    )
    objects.put(video.video_key, MP4, "video/mp4")
    objects.put(commit_key(request), video.to_json(), "application/json")
    return jobs.create(request, results=[video])


def commit_key(request: JobRequest) -> str:
    return keys.result_key(request.tenant, request.result_id)


def lose_commit(objects: S3ObjectStore, job: Job) -> None:
    objects.delete(commit_key(job.request))


def lose_video(objects: S3ObjectStore, job: Job) -> None:
    objects.delete(keys.video_key(Attempt(job.id, 1, 1)))


def change_video(objects: S3ObjectStore, job: Job) -> None:
    objects.put(keys.video_key(Attempt(job.id, 1, 1)), b"other bytes", "video/mp4")


def commit_twice(objects: S3ObjectStore, job: Job) -> None:
    commit = objects.get(commit_key(job.request))
    objects.put(keys.result_key(job.request.tenant, "f" * 64), commit, "application/json")


def commit_other_files(objects: S3ObjectStore, job: Job) -> None:
    assert job.result is not None
    other = replace(job.result, video_key=keys.video_key(Attempt(job.id, 2, 1)))
    objects.put(other.video_key, MP4, "video/mp4")
    objects.put(commit_key(job.request), other.to_json(), "application/json")


def test_what_is_whole_is_neither_lost_nor_duplicate(
    jobs: SqlJobStore, objects: S3ObjectStore
) -> None:
    ids = [completed_job(jobs, objects, f"whole{n}").id for n in range(3)]
    assert account(jobs, objects, ids) == ([], [])


def test_a_job_without_an_end_or_a_row_is_lost(jobs: SqlJobStore, objects: S3ObjectStore) -> None:
    jobs.create(make_request("queued"))
    lost, duplicates = account(jobs, objects, ["queued", "gone"])
    assert sorted(lost) == ["gone: no row", "queued: still queued"]
    assert duplicates == []


@pytest.mark.parametrize("damage", [lose_commit, lose_video, change_video])
def test_a_video_that_cannot_be_read_is_lost(
    jobs: SqlJobStore, objects: S3ObjectStore, damage: Damage
) -> None:
    ids = [completed_job(jobs, objects, name).id for name in ("hurt", "whole")]
    damage(objects, jobs.get("shop", "hurt"))
    lost, duplicates = account(jobs, objects, ids)
    assert [line.split(":")[0] for line in lost] == ["hurt"]
    assert duplicates == []


@pytest.mark.parametrize("damage", [commit_twice, commit_other_files])
def test_a_second_visible_result_is_a_duplicate(
    jobs: SqlJobStore, objects: S3ObjectStore, damage: Damage
) -> None:
    ids = [completed_job(jobs, objects, name).id for name in ("twice", "once")]
    damage(objects, jobs.get("shop", "twice"))
    lost, duplicates = account(jobs, objects, ids)
    assert lost == []
    assert [line.split(":")[0] for line in duplicates] == ["twice"]
