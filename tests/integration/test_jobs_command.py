"""`shopreel jobs` and `shopreel tenants purge`: on the stores themselves, no API is up."""

import fcntl
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.embedded_s3 import EmbeddedS3
from storage import keys
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import JobEvent, JobStatus
from storage.lifecycle.records import record_ends
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration.bucket import all_keys, commit, record, request_of
from tests.integration.live import write_config
from tests.integration.test_commands import shopreel
from tests.sample_jobs import lease_one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def store(data: Path) -> SqlJobStore:
    return SqlJobStore(JobStoreConfig(url=f"sqlite:///{data / 'jobs.sqlite'}"))


@pytest.fixture
def config(tmp_path: Path, s3: ObjectStoreConfig) -> Path:
    bucket = s3.model_dump() | {"secret_key": s3.secret_key.get_secret_value()}
    return write_config(tmp_path / "config.yaml", object_store=bucket)


@pytest.fixture
def run(data: Path, config: Path) -> Callable[..., str]:
    """The output of a command, which must succeed unless a `code` is given; then what it says."""

    def call(*command: str, code: int = 0) -> str:
        ran = shopreel(*command, "--config", config, "--data", data)
        assert ran.returncode == code, ran.stderr
        assert "Traceback" not in ran.stderr
        return ran.stderr if code else ran.stdout

    return call


def test_jobs_of_all_tenants_are_listed_newest_first(
    store: SqlJobStore, run: Callable[..., str]
) -> None:
    store.create(request_of("first"))
    store.create(request_of("second", tenant="rival"))
    store.cancel("rival", "second")
    store.create(replace(request_of("third"), sku="[bold]MUG"))
    listed = json.loads(run("jobs", "list", "--json"))
    assert [job["id"] for job in listed] == ["third", "second", "first"]
    assert [job["tenant"] for job in listed] == ["shop", "rival", "shop"]
    some = json.loads(run("jobs", "list", "--tenant", "shop", "--limit", "1", "--json"))
    assert [job["id"] for job in some] == ["third"]
    ended = json.loads(run("jobs", "list", "--status", "cancelled", "--json"))
    assert [job["id"] for job in ended] == ["second"]
    table = run("jobs", "list")
    assert "[bold]MUG" in table


def test_a_job_is_shown_with_its_timeline_its_objects_and_its_webhooks(
    store: SqlJobStore, s3: ObjectStoreConfig, run: Callable[..., str]
) -> None:
    request = replace(request_of("a"), webhook="https://shop.example/hook")
    store.create(request)
    event = JobEvent(1e9, "preempted", "a node [left]")
    store.complete(
        lease_one(store, store.next_epoch()), commit(S3ObjectStore(s3), request), [event]
    )
    shown = run("jobs", "show", "a")
    for words in (
        "2001-09-09 01:46:40",
        "preempted: a node [left]",
        "webhook to https://shop.example/hook: due",
        keys.result_key("shop", request.result_id),
        "attempts/a/1/video.mp4",
        "denoising",
    ):
        assert words in shown
    document = json.loads(run("jobs", "show", "a", "--json"))
    assert (document["id"], document["status"]) == ("a", "completed")
    assert document["webhooks"][0]["url"] == "https://shop.example/hook"
    assert "no video 'nobody'" in run("jobs", "show", "nobody", code=1)


def test_a_cancelled_job_is_no_more_the_dispatchers(
    store: SqlJobStore, run: Callable[..., str]
) -> None:
    store.create(request_of("a"))
    attempt = lease_one(store, store.next_epoch())
    run("jobs", "cancel", "a")
    assert store.get("shop", "a").status is JobStatus.CANCELLED
    assert store.owned([attempt]) == set()
    assert "has ended already: cancelled" in run("jobs", "cancel", "a", code=1)


def test_a_failed_job_is_queued_again_and_loses_its_recorded_end(
    store: SqlJobStore, s3: ObjectStoreConfig, run: Callable[..., str]
) -> None:
    objects = S3ObjectStore(s3)
    store.create(request_of("a"))
    store.fail(lease_one(store, store.next_epoch()), "internal", "broken")
    record_ends(store.database, objects, 10)
    assert objects.stat(keys.end_key("a")) is not None
    run("jobs", "retry", "a")
    assert store.get("shop", "a").status is JobStatus.QUEUED
    assert objects.stat(keys.end_key("a")) is None
    assert "cannot become queued" in run("jobs", "retry", "a", code=1)


def test_a_lost_table_is_rebuilt_with_the_embedded_server_started_for_it(
    data: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "plain.yaml")
    with EmbeddedS3(data / "s3") as server:
        objects = S3ObjectStore(server.config)
        lost = SqlJobStore(JobStoreConfig(url=f"sqlite:///{tmp_path / 'lost.sqlite'}"))
        for job_id in ("a", "b"):
            record(objects, lost.create(request_of(job_id, photo=job_id)))
        commit(objects, request_of("b", photo="b"))
        lost.close()
    where = ("--config", config, "--data", data)
    ran = shopreel("jobs", "rebuild", *where, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["restored"] == {
        "queued": 1,
        "in_progress": 0,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
    }
    again = shopreel("jobs", "rebuild", *where)
    assert again.stdout.strip() == "restored: none; 2 had their row"
    with EmbeddedS3(data / "s3"):  # the one that it started is gone
        store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{data / 'jobs.sqlite'}"))
        assert store.get("shop", "b").status is JobStatus.COMPLETED
        store.close()


def test_a_rebuild_refuses_a_wrong_folder_and_a_table_that_a_cluster_holds(
    data: Path, config: Path, tmp_path: Path
) -> None:
    plain = write_config(tmp_path / "plain.yaml")
    ran = shopreel("jobs", "rebuild", "--config", plain, "--data", tmp_path / "typo")
    assert (ran.returncode, "--data" in ran.stderr) == (1, True)
    assert not (tmp_path / "typo").exists()
    with (data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = shopreel("jobs", "rebuild", "--config", config, "--data", data)
    assert (ran.returncode, "end it first" in ran.stderr) == (1, True)
    assert not (data / "jobs.sqlite").exists()


def test_a_rebuild_from_an_empty_bucket_says_so_with_a_status_of_its_own(
    store: SqlJobStore, run: Callable[..., str]
) -> None:
    assert "no record of a job" in run("jobs", "rebuild", code=3)
    assert "no record of a job" in run("jobs", "rebuild", "--json", code=3)


def test_damage_is_told_and_is_an_error(
    s3: ObjectStoreConfig, store: SqlJobStore, run: Callable[..., str]
) -> None:
    S3ObjectStore(s3).put(keys.request_key("cut"), b"{", "application/json")
    said = " ".join(run("jobs", "rebuild", code=1).split())
    assert "jobs/cut/request.json cannot be read" in said
    assert "1 jobs are not restored" in said


def test_a_tenant_is_purged_only_with_yes(
    s3: ObjectStoreConfig, store: SqlJobStore, run: Callable[..., str]
) -> None:
    objects = S3ObjectStore(s3)
    record(objects, store.create(request_of("a")))
    commit(objects, request_of("a"))
    assert "--yes" in run("tenants", "purge", "shop", code=2)
    assert len(all_keys(objects)) == 6
    report = json.loads(run("tenants", "purge", "shop", "--yes", "--json"))
    assert (report["deleted"]["jobs"], report["deleted"]["results"]) == (1, 1)
    assert all_keys(objects) == set()
    assert run("tenants", "purge", "shop", "--yes").strip() == "deleted: nothing"


def test_a_job_of_several_candidates_is_one_job_to_an_operator(
    store: SqlJobStore, s3: ObjectStoreConfig, run: Callable[..., str]
) -> None:
    objects = S3ObjectStore(s3)
    request = replace(request_of("a"), candidates=2, deadline_at=9e9)
    record(objects, store.create(request))
    assert "a_c0 is a candidate of a" in run("jobs", "cancel", "a_c0", code=1)
    for job in store.lease(store.next_epoch(), {"a_c0": "cpu", "a_c1": "cpu"}):
        store.fail(job.current_attempt, "encode_failed", f"no space for {job.id}")
    record_ends(store.database, objects, 10)
    (listed,) = json.loads(run("jobs", "list", "--json"))
    assert (listed["id"], listed["status"], listed["candidates"]) == ("a", "failed", 2)
    shown = run("jobs", "show", "a")
    assert "no space for a_c1" in shown
    assert "attempts/a_c1/" in run("jobs", "show", "a_c1")
    assert "a_c1 is a candidate of a" in run("jobs", "retry", "a_c1", code=1)
    run("jobs", "retry", "a")
    job = store.get("shop", "a")
    assert [part.status for part in (job, *job.children)] == 3 * [JobStatus.QUEUED]
    ends = [objects.stat(keys.end_key(part.id)) for part in (job, *job.children)]
    assert ends == [None, None, None]
    data = json.loads(objects.get(keys.request_key("a")))
    assert data["request"]["deadline_at"] is None
