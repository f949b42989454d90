"""Deletions, expiry and the collection of garbage on a real S3 server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from storage import keys
from storage.batches import Batch, SqlBatches
from storage.errors import ResultPurged, StoreUnavailable
from storage.job_store import SqlJobStore
from storage.jobs import Job, JobRequest, JobStatus, VideoFile
from storage.lifecycle.collector import Collector
from storage.lifecycle.records import record_ends
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.tables import batches
from storage.tenants import SqlTenants
from tests.integration.bucket import (
    all_keys,
    commit,
    folder_keys,
    put_checkpoint,
    put_files,
    put_photo,
    record,
    request_of,
)
from tests.sample_jobs import lease_one, sqlite_url, store_config

SOON = Retention(inputs_s=1, attempts_s=1, checkpoints_s=1, deliveries_s=1, grace_s=1)
SETTLED_S = 2.5  # beyond SOON, and the whole seconds that listings round to


class Clock:
    """The real time, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def linger(collector: Collector, clock: Clock) -> None:
    """A little more than a minute, in which the Housekeeper comes by every few seconds."""
    for _ in range(13):
        clock.ahead_s += 5
        collector.finish_purges()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqlJobStore]:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)), clock)
    yield store
    store.close()


@pytest.fixture
def objects(s3: ObjectStoreConfig) -> S3ObjectStore:
    return S3ObjectStore(s3)


@pytest.fixture
def collect(
    store: SqlJobStore, objects: S3ObjectStore, clock: Clock
) -> Iterator[Callable[[Retention], Collector]]:
    made = []

    def new(retention: Retention) -> Collector:
        made.append(Collector(store, objects, retention, clock))
        return made[-1]

    yield new
    for collector in made:
        collector.close()


@pytest.fixture
def collector(collect: Callable[[Retention], Collector]) -> Collector:
    """Of a table that began before anything else was written."""
    made = collect(SOON)
    time.sleep(SOON.grace_s + 1)
    return made


def accept(store: SqlJobStore, objects: S3ObjectStore, request: JobRequest) -> Job:
    put_photo(objects, request)
    job = store.create(request)
    record(objects, job)
    return job


def finish(store: SqlJobStore, objects: S3ObjectStore, request: JobRequest) -> Job:
    """The whole life of a job."""
    accept(store, objects, request)
    attempt = lease_one(store, store.next_epoch())
    assert attempt.job_id == request.id
    return store.complete(attempt, commit(objects, request, attempt.number))


def test_a_deleted_job_leaves_nothing(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector, clock: Clock
) -> None:
    finish(store, objects, request_of("a"))
    put_checkpoint(objects, "a", 1)
    record_ends(store.database, objects, 100)
    store.delete("shop", "a")
    report = collector.finish_purges()
    assert report.deleted == {"purged jobs": 1}
    assert all_keys(objects) == {"inputs/shop/123"}
    time.sleep(SETTLED_S)
    assert collector.run_once().deleted["inputs"] == 1
    assert all_keys(objects) == set()


def test_a_shared_result_goes_with_the_second_of_two_jobs(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    made = finish(store, objects, request_of("maker"))
    second = finish(store, objects, request_of("adopter"))
    assert made.result is not None
    assert second.result == made.result
    store.delete("shop", "maker")
    time.sleep(SETTLED_S)
    collector.run_once()
    # The files lie in the folder of the deleted job, and are another one's content.
    assert objects.get(made.result.video_key) == b"attempts/maker/1/"
    assert folder_keys("maker", 1) <= all_keys(objects)
    assert not any(
        key.startswith(("jobs/maker/", "attempts/adopter/")) for key in all_keys(objects)
    )
    store.delete("shop", "adopter")
    collector.run_once()
    assert {key.split("/")[0] for key in all_keys(objects)} <= {"inputs"}


def test_nothing_of_a_live_attempt_is_touched_however_old(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    job = accept(store, objects, request_of("live", "live-photo"))
    attempt = lease_one(store, store.next_epoch())
    put_checkpoint(objects, "live", 1)
    commit(objects, job.request)  # and nobody was told yet
    accept(store, objects, request_of("queued", "queued-photo"))
    put_checkpoint(objects, "queued", 1)
    mine = all_keys(objects)
    time.sleep(SETTLED_S)
    accept(store, objects, request_of("ended", "ended-photo"))
    store.cancel("shop", "ended")
    collector.run_once()
    assert mine <= all_keys(objects)
    done = store.complete(attempt, commit(objects, job.request))
    assert done.status is JobStatus.COMPLETED


def test_losing_and_failed_attempts_go_and_the_winner_stays(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    put_files(objects, request_of("winner"), 7)  # of a try that lost its lease
    put_checkpoint(objects, "winner", 1)
    finish(store, objects, request_of("winner"))
    accept(store, objects, request_of("failed", "other"))
    put_files(objects, request_of("failed", "other"), 1)
    store.fail(lease_one(store, store.next_epoch()), "internal", "broken")
    time.sleep(SETTLED_S)
    report = collector.run_once()
    left = all_keys(objects)
    assert folder_keys("winner", 1) <= left
    assert not (folder_keys("winner", 7) | folder_keys("failed", 1)) & left
    assert not any(key.startswith("checkpoints/") for key in left)
    assert (report.deleted["attempts"], report.deleted["checkpoints"]) == (8, 1)
    assert report.bytes_freed > 8


def test_files_committed_by_a_cancelled_job_stay_while_another_shows_them(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    for job_id, gone in (("cancelled", store.cancel), ("deleted", store.delete)):
        request = request_of(job_id, photo=job_id)
        accept(store, objects, request)
        lease_one(store, store.next_epoch())
        gone("shop", job_id)
        collector.finish_purges()
        commit(objects, request)  # its worker had not heard
        finish(store, objects, request_of(f"{job_id}-adopter", photo=job_id))
    time.sleep(SETTLED_S)
    collector.run_once()
    assert folder_keys("cancelled", 1) | folder_keys("deleted", 1) <= all_keys(objects)


def test_a_commit_that_nobody_refers_to_goes_with_its_files(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    request = request_of("zombie")
    accept(store, objects, request)
    store.delete("shop", "zombie")
    collector.finish_purges()
    record(objects, Job(request=request, status=JobStatus.QUEUED, created_at=0.0))  # late, too
    commit(objects, request)
    put_checkpoint(objects, "zombie", 1)
    time.sleep(SETTLED_S)
    collector.run_once()
    assert all_keys(objects) == set()


def test_what_is_young_is_left(
    store: SqlJobStore, objects: S3ObjectStore, collect: Callable[[Retention], Collector]
) -> None:
    collector = collect(SOON.model_copy(update={"grace_s": 60.0}))
    put_photo(objects, request_of("a"))  # its row is still to come
    commit(objects, request_of("b", "other"))
    before = all_keys(objects)
    time.sleep(SETTLED_S)
    collector.run_once()
    assert all_keys(objects) == before


def test_a_photo_uploaded_again_is_young_again(
    store: SqlJobStore, objects: S3ObjectStore, collect: Callable[[Retention], Collector]
) -> None:
    collector = collect(SOON.model_copy(update={"inputs_s": 5.0}))  # for a busy machine to begin
    time.sleep(SOON.grace_s + 1)
    put_photo(objects, request_of("a"))
    time.sleep(5.0 + SETTLED_S)
    put_photo(objects, request_of("b"))
    collector.run_once()
    assert all_keys(objects) == {"inputs/shop/123"}


def test_an_empty_table_makes_no_orphans_of_what_is_older(
    store: SqlJobStore, objects: S3ObjectStore, collect: Callable[[Retention], Collector]
) -> None:
    job = Job(request=request_of("lost"), status=JobStatus.QUEUED, created_at=1.0)
    put_photo(objects, job.request)
    record(objects, job)
    commit(objects, job.request)
    put_checkpoint(objects, "lost", 1)
    before = all_keys(objects)
    time.sleep(SETTLED_S)
    report = collect(SOON).run_once()
    assert all_keys(objects) == before
    assert sum(report.left.values()) == len(before)
    assert not any(report.deleted.values())


def test_an_expired_video_is_gone_and_its_job_stays(
    store: SqlJobStore,
    objects: S3ObjectStore,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    collector = collect(SOON.model_copy(update={"results_s": 1000.0, "grace_s": 600.0}))
    done = finish(store, objects, request_of("a"))
    assert done.result is not None
    record_ends(store.database, objects, 100)
    clock.ahead_s = 900
    assert collector.run_once().deleted["expired results"] == 0
    clock.ahead_s = 1100
    assert collector.run_once().deleted["expired results"] == 1
    assert store.get("shop", "a").expired
    assert objects.stat(done.result.video_key) is None
    assert objects.stat(keys.result_key("shop", done.result.result_id)) is None
    assert objects.stat(keys.request_key("a")) is not None


def test_old_jobs_are_forgotten_with_all_they_have(
    store: SqlJobStore,
    objects: S3ObjectStore,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    collector = collect(SOON.model_copy(update={"rows_s": 1000.0}))
    finish(store, objects, request_of("old"))
    clock.ahead_s = 2000
    fresh = finish(store, objects, request_of("fresh", "other"))
    time.sleep(SETTLED_S)
    report = collector.run_once()
    assert report.deleted["jobs"] == 1
    assert [job.id for job in store.get_many(["old", "fresh"])] == ["fresh"]
    assert fresh.result is not None
    assert objects.stat(fresh.result.video_key) is not None
    assert not any("old" in key for key in all_keys(objects))


def test_old_batches_are_forgotten_with_what_they_wrote_and_live_ones_stay(
    store: SqlJobStore,
    objects: S3ObjectStore,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    collector = collect(SOON.model_copy(update={"rows_s": 1000.0}))
    kept = SqlBatches(store.database, clock)
    for batch_id in ("over", "late", "live"):
        uri = f"s3://bucket/{batch_id}"
        kept.create(Batch(id=batch_id, tenant="shop", request="{}", output_uri=uri))
        for name in ("manifest.parquet", "results/part-0.parquet"):
            objects.put(f"{keys.batch_folder('shop', batch_id)}/{name}", b"x", "text/plain")
    with store.database.writing() as db:
        for batch_id, ended_at in (("over", clock()), ("late", clock() + 1900)):
            ended = {"due_at": None, "moments": json.dumps({"completed": ended_at})}
            db.execute(update(batches).where(batches.c.id == batch_id).values(ended))
    assert collector.run_once().deleted.get("batches", 0) == 0
    clock.ahead_s = 2000
    report = collector.run_once()
    assert (report.deleted["batches"], report.deleted["files of batches"]) == (1, 2)
    left = [batch.id for batch in kept.list_batches("shop", limit=9, after=None)]
    assert left == ["live", "late"]
    assert not any("/over/" in key for key in all_keys(objects))
    assert sum(key.startswith("batches/") for key in all_keys(objects)) == 4


def test_a_folder_stays_for_as_long_as_any_batch_goes_on_with_it(
    store: SqlJobStore,
    objects: S3ObjectStore,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    collector = collect(SOON.model_copy(update={"rows_s": 1000.0}))
    kept, uri = SqlBatches(store.database, clock), "s3://bucket/batches/shop/first"
    report = f"{keys.batch_folder('shop', 'first')}/report.html"

    def end(batch_id: str) -> None:
        kept.create(Batch(id=batch_id, tenant="shop", request="{}", output_uri=uri))
        with store.database.writing() as db:
            ended = {"due_at": None, "moments": json.dumps({"completed": clock()})}
            db.execute(update(batches).where(batches.c.id == batch_id).values(ended))

    end("first")
    objects.put(report, b"x", "text/html")
    clock.ahead_s = 900
    end("retry")
    clock.ahead_s = 1100  # the first one's time is over
    collector.run_once()
    assert len(kept.list_batches("shop", limit=9, after=None)) == 2
    assert report in all_keys(objects)
    clock.ahead_s = 2000
    for _ in range(2):  # the last one first
        collector.run_once()
    assert kept.list_batches("shop", limit=9, after=None) == []
    assert report not in all_keys(objects)


def test_a_worker_that_read_the_commit_before_it_went_is_refused(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector, clock: Clock
) -> None:
    finish(store, objects, request_of("a"))
    accept(store, objects, request_of("b"))
    attempt = lease_one(store, store.next_epoch())
    adopted = commit(objects, request_of("b"))
    store.delete("shop", "a")
    collector.finish_purges()
    with pytest.raises(ResultPurged):
        store.complete(attempt, adopted)
    collector.finish_purges()
    assert len(store.purges(10)) == 1
    linger(collector, clock)
    assert store.purges(10) == []
    video = store.complete(attempt, commit(objects, request_of("b"), 2)).result
    assert video is not None
    assert objects.get(video.video_key) == b"attempts/b/2/"


def test_time_in_which_nobody_heard_of_the_table_does_not_count(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector, clock: Clock
) -> None:
    """It may have been away for the worker too, that has read the commit."""
    finish(store, objects, request_of("a"))
    accept(store, objects, request_of("b"))
    attempt = lease_one(store, store.next_epoch())
    adopted = commit(objects, request_of("b"))
    store.delete("shop", "a")
    collector.finish_purges()
    clock.ahead_s = 3600
    collector.finish_purges()
    with pytest.raises(ResultPurged):
        store.complete(attempt, adopted)
    clock.ahead_s = 0  # and a clock that is put back stops nothing
    collector.finish_purges()
    linger(collector, clock)
    assert store.purges(10) == []


def test_a_purge_goes_on_where_another_process_left_it(
    store: SqlJobStore,
    objects: S3ObjectStore,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    finish(store, objects, request_of("a"))
    store.delete("shop", "a")
    collect(SOON).finish_purges()
    made_anew = commit(objects, request_of("b"))
    other = collect(SOON)
    other.finish_purges()
    assert objects.stat(made_anew.video_key) is not None
    linger(other, clock)
    assert store.purges(10) == []
    assert objects.stat(made_anew.video_key) is not None


def test_creations_that_race_with_purges_never_show_a_video_that_is_gone(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector, clock: Clock
) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []

    def purge() -> None:
        try:
            while not ended.is_set():
                collector.finish_purges()
        except BaseException as error:
            failures.append(error)

    purger = threading.Thread(target=purge)
    purger.start()
    shown = queued = 0
    try:
        for number in range(60):
            linger(collector, clock)  # nobody is on the way from a commit to the table now
            request = request_of(f"maker-{number}", photo="same")
            video = commit(objects, request)
            made = store.create(request, results=[video])
            again = store.create(request_of(f"again-{number}", photo="same"), results=[video])
            if made.status is JobStatus.COMPLETED:
                store.delete("shop", made.id)
            third = store.create(request_of(f"third-{number}", photo="same"), results=[video])
            for job in (again, third):
                if job.status is JobStatus.COMPLETED and job.result is not None:
                    # As long as its row stands, so does what it shows.
                    assert objects.stat(job.result.video_key) is not None
                    shown += 1
                else:
                    queued += 1
                store.delete("shop", job.id)
    finally:
        ended.set()
        purger.join()
    assert failures == []
    assert shown > 0


def test_a_purge_that_broke_off_is_finished_by_the_next_run(
    store: SqlJobStore,
    objects: S3ObjectStore,
    s3: ObjectStoreConfig,
    collector: Collector,
    clock: Clock,
) -> None:
    finish(store, objects, request_of("a"))
    store.delete("shop", "a")
    nowhere = s3.model_copy(update={"endpoint": "127.0.0.1:9", "retries": 0})
    broken = Collector(store, S3ObjectStore(nowhere), SOON, clock)
    with pytest.raises(StoreUnavailable):
        broken.finish_purges()
    broken.close()
    assert len(store.purges(10)) == 1
    collector.finish_purges()
    assert all_keys(objects) == {"inputs/shop/123"}


def test_of_two_runs_at_once_one_waits_for_the_other(
    store: SqlJobStore, s3: ObjectStoreConfig, clock: Clock
) -> None:
    class Slow(S3ObjectStore):
        reads, read, go_on = 0, threading.Event(), threading.Event()

        def get(self, key: str) -> bytes:
            data = super().get(key)
            self.reads += 1
            self.read.set()
            self.go_on.wait(10)
            return data

    objects = Slow(s3)
    objects.go_on.set()
    finish(store, objects, request_of("a"))
    store.delete("shop", "a")
    objects.reads = 0
    objects.read.clear()
    objects.go_on.clear()
    collector = Collector(store, objects, SOON, clock)
    runs = [threading.Thread(target=collector.finish_purges) for _ in range(2)]
    for run in runs:
        run.start()
        assert objects.read.wait(10)
    time.sleep(0.3)
    objects.go_on.set()
    for run in runs:
        run.join()
    collector.close()
    # The second found the note of the first: what is made anew meanwhile is safe from it.
    assert objects.reads == 1


def test_a_purge_that_another_process_has_overtaken_deletes_nothing_made_since(
    store: SqlJobStore,
    s3: ObjectStoreConfig,
    collect: Callable[[Retention], Collector],
    clock: Clock,
) -> None:
    """Two Housekeepers: a new cluster takes over from one whose reads are slow."""
    other, anew = collect(SOON), list[VideoFile]()

    class Crawling(S3ObjectStore):
        def get(self, key: str) -> bytes:
            data = super().get(key)
            if not anew and key.startswith("results/"):
                other.finish_purges()
                linger(other, clock)
                assert store.purges(10) == []
                anew.append(commit(other_objects, request_of("b")))
            return data

    other_objects = S3ObjectStore(s3)
    finish(store, other_objects, request_of("a"))
    store.delete("shop", "a")
    overtaken = Collector(store, Crawling(s3), SOON, clock)
    overtaken.finish_purges()
    overtaken.close()
    (video,) = anew
    standing = other_objects.get(keys.result_key("shop", video.result_id))
    assert VideoFile.from_json(standing) == video
    assert folder_keys("b", 1) <= all_keys(other_objects)


def test_probes_of_killed_processes_go(objects: S3ObjectStore, collector: Collector) -> None:
    objects.put("_probe/killed", b"", "text/plain")
    time.sleep(SETTLED_S)
    assert collector.run_once().deleted["probes"] == 1
    assert all_keys(objects) == set()


def test_a_tenant_is_purged_and_another_one_is_not(
    store: SqlJobStore, objects: S3ObjectStore, collector: Collector
) -> None:
    tenants = SqlTenants(store.database)
    for tenant in ("shop", "rival"):
        tenants.put(tenant, None)
        tenants.issue_key(tenant, "all")
        finish(store, objects, request_of(f"{tenant}-done", tenant=tenant))
        accept(store, objects, request_of(f"{tenant}-queued", "other", tenant))
        put_files(objects, request_of(f"{tenant}-queued", "other", tenant), 1)
        put_checkpoint(objects, f"{tenant}-queued", 1)
        commit(objects, request_of(f"{tenant}-forgotten", "third", tenant))
        store.cancel(tenant, f"{tenant}-queued")
    record_ends(store.database, objects, 100)
    report = collector.purge_tenant("shop")
    assert (report.deleted["jobs"], report.deleted["inputs"], report.deleted["results"]) == (
        2,
        2,
        2,
    )
    assert not any("shop" in key for key in all_keys(objects))
    assert [tenant.name for tenant in tenants.list_tenants()] == ["rival"]
    assert [key.tenant for key in tenants.keys(None)] == ["rival"]
    assert store.list_jobs("shop", limit=10) == []
    rivals = store.list_jobs("rival", limit=10)
    assert len(rivals) == 2
    assert sum("rival" in key for key in all_keys(objects)) == 21
    assert not any(collector.purge_tenant("shop").deleted.values())
    assert replace(rivals[0], rev=0) == replace(store.get("rival", rivals[0].id), rev=0)
