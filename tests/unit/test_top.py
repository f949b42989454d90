"""`shopreel top`: what goes on, as the job table has it."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.eta import FACT, Snapshot, TierState, Work
from diffusion.params import Priority
from serve.cli import app
from storage.facts import SqlFacts
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import JobStatus, Stage
from storage.sql.overview import scene
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request, sqlite_url


def test_a_scene_counts_who_waits_who_runs_and_what_ended_lately(
    store: SqlJobStore, clock: Clock
) -> None:
    epoch = store.next_epoch()
    for name in ("old", "done", "broken", "runs"):
        store.create(make_request(name))
        if name == "runs":
            lease_one(store, epoch)
            continue
        attempt = lease_one(store, epoch)
        if name == "broken":
            store.fail(attempt, "internal", "no reason", ())
        else:
            store.complete(attempt, VIDEO, ())
        clock.now += 60
    store.create(make_request("first", priority=Priority.BATCH))
    clock.now += 5
    store.create(make_request("second", priority=Priority.BATCH))

    seen = scene(store.database, since=clock.now - 130)
    assert seen.lines[Priority.INTERACTIVE].length == 0
    assert seen.lines[Priority.INTERACTIVE].oldest_at is None
    assert seen.lines[Priority.BATCH].length == 2
    assert seen.lines[Priority.BATCH].oldest_at == clock.now - 5
    assert [job.id for job in seen.running] == ["runs"]
    assert seen.ended == {JobStatus.COMPLETED: 1, JobStatus.FAILED: 1}
    assert seen.failures == {"internal": 1}
    assert [job.id for job in seen.failed] == ["broken"]


def test_candidates_count_each_for_itself(store: SqlJobStore) -> None:
    store.create(replace(make_request("four"), candidates=4))
    assert scene(store.database, since=0).lines[Priority.INTERACTIVE].length == 4


@pytest.fixture
def table(tmp_path: Path) -> SqlJobStore:
    return SqlJobStore(JobStoreConfig(url=sqlite_url(tmp_path)))


def top(data: Path) -> str:
    ran = CliRunner().invoke(app, ["top", "--once", "--data", str(data)], env={"COLUMNS": "120"})
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_top_shows_tiers_stages_and_failures(table: SqlJobStore, tmp_path: Path) -> None:
    epoch = table.next_epoch()
    table.create(make_request("video_1"))
    table.fail(lease_one(table, epoch), "out_of_memory", "the card [is] full", ())
    table.create(make_request("video_2"))
    lease_one(table, epoch)
    nothing = dict.fromkeys(Priority, Work())
    tier = TierState(2, 4, 60.0, False, 125.0, nothing | {Priority.BATCH: Work(3, 90)}, nothing)
    snapshot = Snapshot({"a100": tier}, {Stage.DECODING: 1.25}, 0.1)
    SqlFacts(table.database).put(FACT, snapshot.to_json())
    shown = top(tmp_path)
    assert "the Dispatcher runs" in shown
    assert "3 / 8" in shown  # clips / slots
    assert "45 s" in shown  # 90 s of work on two replicas
    assert "1.25" in shown
    assert "out_of_memory: the card [is] full" in shown
    assert "video_2" in shown


def test_top_says_when_no_dispatcher_is_there(table: SqlJobStore, tmp_path: Path) -> None:
    assert "no Dispatcher has ever run here" in top(tmp_path)
    SqlFacts(table.database, lambda: 1_000.0).put(FACT, Snapshot({}).to_json())
    assert "no word from the Dispatcher for" in top(tmp_path)


def test_top_names_the_folder_that_has_no_table(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["top", "--once", "--data", str(tmp_path / "elsewhere")])
    assert ran.exit_code == 1
    assert "no job table at" in ran.stderr
