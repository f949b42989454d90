"""The job table made again from a real S3 server after its file was lost."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from storage import keys
from storage.deliveries import SqlDeliveries
from storage.errors import IdempotencyConflict, WrongBucket
from storage.job_contract import Idempotency
from storage.job_store import SqlJobStore
from storage.jobs import Attempt, Feedback, Job, JobEvent, JobRequest, JobStatus
from storage.lifecycle.collector import Collector
from storage.lifecycle.rebuild import Rebuilt, rebuild
from storage.lifecycle.records import JobEnd, JobRecord, record_ends
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.tables import purges
from tests.integration.bucket import commit, put_checkpoint, put_files, record, request_of
from tests.sample_jobs import Clock, lease_one, sqlite_url, store_config

KEY = Idempotency("key-1", "f" * 64)


class Bench:
    """A job store that can be lost, over a bucket that stays."""

    def __init__(self, folder: Path, s3: ObjectStoreConfig) -> None:
        self.folder, self.clock = folder, Clock()
        self.objects = S3ObjectStore(s3)
        self.store = SqlJobStore(store_config(sqlite_url(folder)), self.clock)

    def lose(self) -> None:
        self.store.close()
        for file in self.folder.glob("jobs.sqlite*"):
            file.unlink()
        self.store = SqlJobStore(store_config(sqlite_url(self.folder)), self.clock)

    def rebuild(self, report: Callable[[int, int], None] = lambda seen, made: None) -> Rebuilt:
        return rebuild(self.store, self.objects, self.clock(), report)

    def create(self, job_id: str, photo: str, idempotency: Idempotency | None = None) -> Job:
        self.clock.now += 1
        job = self.store.create(request_of(job_id, photo), idempotency)
        data = JobRecord(job.request, idempotency, job.created_at).to_json()
        self.objects.put(keys.request_key(job_id), data, "application/json")
        return job

    def lease(self) -> Attempt:
        return lease_one(self.store, self.store.next_epoch())

    def restored(self, job_id: str) -> Job:
        return self.store.get("shop", job_id)


@pytest.fixture
def bench(tmp_path: Path, s3: ObjectStoreConfig) -> Bench:
    return Bench(tmp_path, s3)


def same(before: Job, after: Job) -> bool:
    """Revisions begin anew, and an attempt of a lost Dispatcher is nobody's."""
    unlike = {"rev": 0, "epoch": 0, "lease_until": None, "stage": None, "predicted_at": None}
    return replace(before, **unlike) == replace(after, **unlike)  # type: ignore[arg-type]


def test_every_state_comes_back(bench: Bench) -> None:
    event = JobEvent(5.0, "preempted", "a node left")
    bench.create("1-done", "a", KEY)
    done = bench.lease()
    bench.store.complete(done, commit(bench.objects, request_of("1-done", "a")), [event])
    bench.store.rate("shop", "1-done", Feedback(1, ("sharp",), 9.0))
    bench.create("2-failed", "b")
    bench.store.fail(bench.lease(), "out_of_memory", "too big", [event])
    bench.create("3-cancelled", "c")
    bench.store.cancel("shop", "3-cancelled")
    bench.create("4-running", "d")
    bench.lease()
    put_files(bench.objects, request_of("4-running", "d"), 1)
    put_checkpoint(bench.objects, "4-running", 3)
    bench.create("5-queued", "e")
    bench.create("6-unrecorded", "f")
    assert record_ends(bench.store.database, bench.objects, 100) == 3
    assert record_ends(bench.store.database, bench.objects, 100) == 0
    commit(bench.objects, request_of("6-unrecorded", "f"))
    before = {job.id: job for job in bench.store.list_jobs("shop", limit=100)}
    bench.lose()
    seen = []
    found = bench.rebuild(lambda *progress: seen.append(progress))
    assert found.restored == {
        JobStatus.QUEUED: 2,
        JobStatus.IN_PROGRESS: 0,
        JobStatus.COMPLETED: 2,
        JobStatus.FAILED: 1,
        JobStatus.CANCELLED: 1,
    }
    assert seen == [(6, 6)]
    for job_id in ("1-done", "2-failed", "3-cancelled"):
        assert same(before[job_id], bench.restored(job_id))
    running, queued = bench.restored("4-running"), bench.restored("5-queued")
    assert (running.status, running.attempt) == (JobStatus.QUEUED, 4)
    assert (queued.status, queued.attempt) == (JobStatus.QUEUED, 1)
    assert queued.created_at == before["5-queued"].created_at
    unrecorded = bench.restored("6-unrecorded")
    assert unrecorded.status is JobStatus.COMPLETED
    assert unrecorded.result is not None
    assert bench.objects.get(unrecorded.result.video_key) == b"attempts/6-unrecorded/1/"
    in_order = [job.id for job in bench.store.list_jobs("shop", limit=100, order="asc")]
    assert in_order == sorted(before)
    assert bench.lease() == Attempt("4-running", 5, 1)  # it finds the checkpoint of try 3


def test_a_second_rebuild_changes_nothing(bench: Bench) -> None:
    for number in range(3):
        bench.create(f"job-{number}", str(number))
    bench.lose()
    assert sum(bench.rebuild().restored.values()) == 3
    bench.store.cancel("shop", "job-1")
    before = bench.store.list_jobs("shop", limit=10)
    again = bench.rebuild()
    assert (sum(again.restored.values()), again.standing) == (0, 3)
    assert bench.store.list_jobs("shop", limit=10) == before


def test_idempotency_keys_come_back(bench: Bench) -> None:
    bench.create("a", "a", KEY)
    bench.lose()
    bench.rebuild()
    assert bench.store.create(request_of("b", "b"), KEY).id == "a"
    with pytest.raises(IdempotencyConflict):
        bench.store.find("shop", Idempotency(KEY.key, "0" * 64))


def test_a_key_used_again_since_the_loss_stays_with_the_new_job(bench: Bench) -> None:
    bench.create("a", "a", KEY)
    bench.lose()
    bench.store.create(request_of("b", "b"), KEY)
    assert bench.rebuild().restored[JobStatus.QUEUED] == 1
    found = bench.store.find("shop", KEY)
    assert found is not None
    assert found.id == "b"


def test_jobs_are_created_while_it_runs(bench: Bench) -> None:
    for number in range(450):
        request = request_of(f"old-{number:03}", str(number))
        record(bench.objects, Job(request=request, status=JobStatus.QUEUED, created_at=number))
    created: list[str] = []
    ended = threading.Event()

    def create() -> None:
        while not ended.is_set():
            job = bench.store.create(request_of(f"new-{len(created)}", f"new-{len(created)}"))
            record(bench.objects, job)
            created.append(job.id)

    creator = threading.Thread(target=create)
    creator.start()
    try:
        found = bench.rebuild()
    finally:
        ended.set()
        creator.join()
    assert found.restored[JobStatus.QUEUED] == 450
    assert len(created) > 10
    everything = bench.store.list_jobs("shop", limit=10_000, order="asc")
    assert len(everything) == 450 + len(created)
    assert len({job.id for job in everything}) == len(everything)
    old = [job.id for job in everything if job.id.startswith("old")]
    assert old == sorted(old)


def test_damaged_records_are_told_and_the_rest_comes_back(bench: Bench) -> None:
    bench.create("good", "a")
    for job_id, body in {
        "cut": b'{"request": {',
        "empty": b"{}",
        "list": b"[]",
        "stranger": JobRecord(request_of("other", "x"), None, 1.0).to_json(),
    }.items():
        bench.objects.put(keys.request_key(job_id), body, "application/json")
    bench.create("odd-end", "b")
    bench.objects.put(keys.end_key("odd-end"), b'{"status": "queued"}', "application/json")
    bench.lose()
    time.sleep(1.1)  # the store dates objects by the second; now each is beyond the grace period
    bench.clock.now = time.time()  # as the store's clock goes: the table is younger than they are
    found = bench.rebuild()
    assert (found.damaged, found.restored[JobStatus.QUEUED]) == (5, 1)
    for job_id in ("cut", "empty", "list", "stranger", "odd-end"):
        assert any(f"jobs/{job_id}/" in complaint for complaint in found.complaints)
    # Their folders are no garbage for that.
    collector = Collector(
        bench.store, bench.objects, Retention(grace_s=0.001), lambda: bench.clock.now + 1e10
    )
    collector.run_once()
    collector.close()
    assert bench.objects.stat(keys.request_key("cut")) is not None


def test_records_of_the_first_release_are_read(bench: Bench) -> None:
    bare = request_of("old", "a").to_json()
    assert "request" not in json.loads(bare)
    bench.objects.put(keys.request_key("old"), bare, "application/json")
    bench.rebuild()
    written = bench.objects.stat(keys.request_key("old"))
    assert written is not None
    assert bench.restored("old").created_at == pytest.approx(written.modified_at, abs=1)


def test_deleted_jobs_do_not_come_back(bench: Bench) -> None:
    bench.create("a", "a")
    bench.store.delete("shop", "a")  # its objects are not gone yet
    found = bench.rebuild()
    assert (sum(found.restored.values()), found.standing) == (0, 0)


def test_an_expired_video_stays_expired(bench: Bench) -> None:
    bench.create("a", "a")
    attempt = bench.lease()
    request = request_of("a", "a")
    bench.store.complete(attempt, commit(bench.objects, request))
    record_ends(bench.store.database, bench.objects, 10)
    bench.objects.delete(keys.result_key("shop", request.result_id))
    commit(bench.objects, request_of("b", "a"))  # another job has made it anew
    bench.lose()
    bench.rebuild()
    assert bench.restored("a").expired


def test_a_job_that_was_retried_is_recorded_again(bench: Bench) -> None:
    bench.create("a", "a")
    bench.store.fail(bench.lease(), "internal", "broken")
    record_ends(bench.store.database, bench.objects, 10)
    bench.store.retry("a")
    bench.store.complete(bench.lease(), commit(bench.objects, request_of("a", "a"), 2))
    watched = bench.store.revisions(["a"])
    assert record_ends(bench.store.database, bench.objects, 10) == 1
    assert bench.store.revisions(["a"]) == watched  # who watches it hears nothing of this
    end = JobEnd.from_json(bench.objects.get(keys.end_key("a")))
    assert (end.status, end.attempt) == (JobStatus.COMPLETED, 2)


def test_what_a_person_thought_of_a_video_comes_back(bench: Bench) -> None:
    bench.create("a", "a")
    bench.store.complete(bench.lease(), commit(bench.objects, request_of("a", "a")))
    record_ends(bench.store.database, bench.objects, 10)
    bench.store.rate("shop", "a", Feedback(-1, ("warped",), 5.0))
    assert record_ends(bench.store.database, bench.objects, 10) == 1
    bench.lose()
    bench.rebuild()
    assert bench.restored("a").feedback == Feedback(-1, ("warped",), 5.0)


def test_the_caller_of_a_job_whose_end_was_not_recorded_is_told(bench: Bench) -> None:
    told = replace(request_of("a", "a"), webhook="https://shop.example/hook")
    recorded = replace(told, id="b", photo_sha256="b")
    for request in (told, recorded):
        record(bench.objects, bench.store.create(request))
        bench.store.complete(bench.lease(), commit(bench.objects, request))
    record_ends(bench.store.database, bench.objects, 10)
    bench.objects.delete(keys.end_key("a"))
    (before,) = SqlDeliveries(bench.store.database).of_job("a")
    bench.lose()
    bench.rebuild()
    deliveries = SqlDeliveries(bench.store.database)
    assert [len(deliveries.of_job(job_id)) for job_id in ("a", "b")] == [1, 0]
    assert deliveries.of_job("a")[0].id == before.id  # so a receiver that has heard knows it


def test_what_a_rebuild_could_not_restore_is_no_garbage(bench: Bench) -> None:
    bench.clock.now = time.time() - 3600
    bench.create("a", "a")
    bench.create("b", "b")
    bench.objects.put(keys.request_key("b"), b"{", "application/json")
    time.sleep(2.5)
    bench.clock.now = time.time()
    bench.lose()
    assert bench.rebuild().damaged == 1
    soon = Retention(inputs_s=1, attempts_s=1, checkpoints_s=1, grace_s=1)
    collector = Collector(bench.store, bench.objects, soon, bench.clock)
    collector.run_once()
    collector.close()
    assert bench.objects.get(keys.request_key("b")) == b"{"


def test_a_bucket_without_a_job_is_refused_and_nothing_counts_as_whole(bench: Bench) -> None:
    put_checkpoint(bench.objects, "unknown", 1)
    with pytest.raises(WrongBucket, match="no record of a job"):
        bench.rebuild()
    later = Collector(
        bench.store, bench.objects, Retention(grace_s=0.001), lambda: bench.clock.now + 1e10
    )
    time.sleep(1.1)
    assert later.run_once().deleted["checkpoints"] == 0
    later.close()


def test_the_bucket_of_another_service_is_refused(bench: Bench) -> None:
    bench.store.create(request_of("mine", "a"))
    other = Job(request=request_of("other", "b"), status=JobStatus.QUEUED, created_at=1.0)
    record(bench.objects, other)
    bench.clock.now += 100
    with pytest.raises(WrongBucket, match="none of the last 1"):
        bench.rebuild()
    assert bench.store.get_many(["other"]) == []
    record(bench.objects, bench.restored("mine"))
    assert bench.rebuild().restored[JobStatus.QUEUED] == 1


def test_a_job_that_version_1_completed_refers_to_its_result_once_recorded(bench: Bench) -> None:
    for job_id in ("a", "doomed"):
        bench.create(job_id, job_id)
        bench.store.complete(bench.lease(), commit(bench.objects, request_of(job_id, job_id)))
    doomed = request_of("doomed", "doomed")
    with bench.store.database.writing() as db:
        db.execute(text("UPDATE jobs SET result_id = NULL"))
        note = {"tenant": "shop", "job_id": "x", "result_id": doomed.result_id, "created_at": 0.0}
        db.execute(insert(purges).values(note))
    assert [bench.restored(job_id).expired for job_id in ("a", "doomed")] == [False, False]
    assert record_ends(bench.store.database, bench.objects, 10) == 2
    assert [bench.restored(job_id).expired for job_id in ("a", "doomed")] == [False, True]
    assert bench.store.delete("shop", "a").result_id == request_of("a", "a").result_id


def test_what_has_no_row_after_a_rebuild_is_garbage(bench: Bench) -> None:
    lost = Job(request=request_of("lost"), status=JobStatus.QUEUED, created_at=1.0)
    record(bench.objects, lost)
    put_checkpoint(bench.objects, "unknown", 1)
    retention = Retention(grace_s=0.001)
    later = Collector(bench.store, bench.objects, retention, lambda: bench.clock.now + 1e10)
    time.sleep(1.1)  # the store tells whole seconds
    assert later.run_once().deleted["checkpoints"] == 0
    bench.rebuild()
    assert later.run_once().deleted["checkpoints"] == 1
    later.close()


# --- jobs of several candidates


def of_several(job_id: str, photo: str) -> JobRequest:
    return replace(request_of(job_id, photo), candidates=2)


def test_jobs_of_several_candidates_come_back_with_each(bench: Bench) -> None:
    requests = [of_several(job_id, job_id) for job_id in ("1-done", "2-half", "3-cancelled")]
    for request in requests:
        record(bench.objects, bench.store.create(request))
    done, half, cancelled = requests
    leased = bench.store.lease(
        bench.store.next_epoch(), dict.fromkeys(("1-done_c0", "1-done_c1", "2-half_c1"), "cpu")
    )
    for job in leased:
        bench.store.complete(job.current_attempt, commit(bench.objects, job.request))
    bench.store.cancel("shop", cancelled.id)
    Collector(bench.store, bench.objects, Retention(), bench.clock).finish_purges()
    assert record_ends(bench.store.database, bench.objects, 100) == 7
    before = {request.id: bench.restored(request.id) for request in requests}
    bench.lose()
    assert sum(bench.rebuild().restored.values()) == 3
    assert same_family(before[done.id], bench.restored(done.id))
    assert same_family(before[cancelled.id], bench.restored(cancelled.id))
    back = bench.restored(half.id)
    assert (back.status, back.request) == (JobStatus.IN_PROGRESS, half)
    assert [part.status for part in back.children] == [JobStatus.QUEUED, JobStatus.COMPLETED]
    assert [job.id for job in bench.store.waiting(9)] == ["2-half_c0"]
    assert sum(bench.rebuild().restored.values()) == 0


def test_candidates_of_a_job_that_ended_are_not_run_again(bench: Bench) -> None:
    """The service died when the end of the whole was written, and theirs were not."""
    request = of_several("a", "a")
    record(bench.objects, bench.store.create(request))
    for job in bench.store.lease(bench.store.next_epoch(), {"a_c0": "cpu", "a_c1": "cpu"}):
        bench.store.complete(job.current_attempt, commit(bench.objects, job.request))
    Collector(bench.store, bench.objects, Retention(), bench.clock).finish_purges()
    while record_ends(bench.store.database, bench.objects, 100):
        pass
    for part in request.parts:
        bench.objects.delete(keys.end_key(part.id))
    bench.lose()
    bench.rebuild()
    back = bench.restored("a")
    assert (back.status, back.chosen, back.expired) == (JobStatus.COMPLETED, 0, False)
    assert [part.status for part in back.children] == [JobStatus.COMPLETED, JobStatus.CANCELLED]
    assert bench.store.waiting(9) == []


def same_family(before: Job, after: Job) -> bool:
    bare = replace(before, children=()), replace(after, children=())
    return same(*bare) and all(map(same, before.children, after.children))
