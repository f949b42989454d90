"""`shopreel catalog …` beside a run: cancelled, followed and reported. Ray apart, all is real: what
stands for its jobs runs a driver in this process."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from ray.job_submission import JobStatus as RayStatus

from catalog.report.publish import FILES
from catalog.results.output import RunOutput
from catalog.run.cancel import ask_to_cancel, is_cancelled
from catalog.run.drive import drive
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.submission import STOPPED, DriverJob
from serve.commands import catalog_follow
from serve.commands.catalog import run_cancel, run_report, run_run, run_status
from serve.commands.catalog_cluster import Cluster
from storage.jobs import JobStatus
from storage.object_store import ObjectInfo, ObjectStoreConfig, S3ObjectStore
from tests.faults.served import on_socket
from tests.integration.batch_desk import Drivers
from tests.integration.service import Service
from tests.integration.test_catalog_run import Maker, Shop


@dataclass
class DriversHere(Drivers):
    """Each job is over when it is started; of `lost` ones nothing is made."""

    shop: Shop | None = None
    lost: int = 0
    silences: int = 0  # of the dashboard, at the next questions

    def start(self, options: RunOptions, tenant: str, command: Sequence[str]) -> bool:
        started = super().start(options, tenant, command)
        if not started:
            return False
        if self.lost:
            self.lost -= 1
            self.end(RayStatus.FAILED, -9, "bang\n")
            return True
        assert self.shop is not None
        try:
            asyncio.run(drive(options, self.shop.around))
        except RunError as e:
            self.end(RayStatus.FAILED, STOPPED, f"stopped: {e}\n")
        else:
            self.end(RayStatus.SUCCEEDED, 0)
        return True

    def find(self, run_id: str) -> DriverJob | None:
        if self.silences:
            self.silences -= 1
            raise ConnectionError("the Ray dashboard does not answer")
        return super().find(run_id)


@dataclass(frozen=True)
class OneShop(Cluster):
    """The cluster of a Shop."""

    jobs: DriversHere
    s3: ObjectStoreConfig

    def drivers(self) -> DriversHere:  # type: ignore[override]  # the same methods
        return self.jobs

    def bucket(self, name: str) -> S3ObjectStore:
        return S3ObjectStore(self.s3.model_copy(update={"bucket": name}))


@pytest.fixture
def shop(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Shop]:
    service = Service(s3, tmp_path)
    with on_socket(service) as url:
        yield Shop(s3, service, url, tmp_path)


@pytest.fixture
def cluster(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> OneShop:
    monkeypatch.setattr(catalog_follow, "_POLL_S", 0.01)
    dashboard = "http://127.0.0.1:8265"
    return OneShop(None, Path("nowhere"), dashboard, DriversHere(shop=shop), shop.s3)


def test_cancelling_a_run_whose_driver_died_cancels_its_jobs(
    shop: Shop, cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(shop.products(4))
    shop.run_until(lambda: len(shop.jobs()) >= 2)
    assert {job.status for job in shop.jobs()} == {JobStatus.QUEUED}
    cluster.jobs.lost = 1
    run_cancel(shop.output.uri, "default", cluster)
    assert len(cluster.jobs.started) == 2
    assert {job.status for job in shop.jobs()} == {JobStatus.CANCELLED}
    assert "cancelled" in capsys.readouterr().out
    run_status(shop.output.uri, cluster, as_json=False)
    assert "driver: stopped (cancelled; " in capsys.readouterr().out


@pytest.mark.parametrize("driver", ["ended", "forgotten by Ray"])
def test_cancelling_a_run_that_is_completed_leaves_it_so(
    shop: Shop, cluster: OneShop, driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(shop.products(1))
    with Maker(shop.service):
        asked = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
        run_run(asked, "default", False, False, cluster)
    if driver == "forgotten by Ray":
        cluster.jobs.job = None
    names = [shop.output.key(name) for name in FILES]
    before = [shop.objects.stat(name) for name in names]
    run_cancel(shop.output.uri, "default", cluster)
    assert [shop.objects.stat(name) for name in names] == before
    assert "it had ended before" in capsys.readouterr().out


def test_what_is_wrong_is_told_in_plain_words(
    cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        run_status("s3://shopreel/nothing-[red]-here", cluster, as_json=False)
    told = capsys.readouterr().err
    assert told.startswith("error: no run has begun in s3://shopreel/nothing-[red]-here")


def test_a_run_is_not_continued_before_its_cancelled_driver_has_left(
    shop: Shop, cluster: OneShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write(shop.products(1))
    jobs, cancelled = cluster.jobs, list[bool]()
    options = RunOptions(manifest_uri=str(shop.manifest), output_uri=shop.output.uri)
    Drivers.start(jobs, options, "default", [])
    ask_to_cancel(shop.output)

    def find(_: DriversHere, run_id: str) -> DriverJob | None:
        if len(cancelled) < 3:
            cancelled.append(is_cancelled(shop.output))
        else:
            jobs.end(RayStatus.FAILED, STOPPED, "stopped: cancelled\n")
        return jobs.job

    monkeypatch.setattr(DriversHere, "find", find)
    with Maker(shop.service):
        asked = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
        run_run(asked, "default", False, False, cluster)
    assert cancelled == [True] * 3  # for as long as it was at work
    assert len(jobs.started) == 2
    assert len(shop.table()) == 1


def test_a_mistyped_run_is_not_cancelled(
    shop: Shop, cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        run_cancel(f"{shop.output.uri}-typo", "default", cluster)
    assert "no run has begun" in capsys.readouterr().err
    assert list(shop.objects.iter_objects("")) == []


def test_whoever_follows_a_run_outlasts_a_dashboard_and_drivers_that_are_lost(
    shop: Shop, cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(shop.products(2))
    cluster.jobs.lost, cluster.jobs.silences = 2, 3
    options = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
    with Maker(shop.service):
        run_run(options, "default", False, True, cluster)
    assert len(cluster.jobs.started) == 3
    assert len({options.submission for options in cluster.jobs.started}) == 1
    assert "2 of 2: 2 videos" in capsys.readouterr().out


def test_whoever_follows_a_run_that_stops_can_tell_it_from_one_to_try_again(
    shop: Shop, cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = shop.products(3)
    for row in rows:
        row["image_uri"] = "nowhere.jpg"
    shop.write(rows)
    options = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
    with Maker(shop.service), pytest.raises(typer.Exit) as stopped:
        run_run(options | {"max_failures": "1"}, "default", False, True, cluster)
    assert stopped.value.exit_code == STOPPED
    assert "rows failed" in capsys.readouterr().err
    cluster.jobs.lost = 99
    with pytest.raises(typer.Exit) as lost:
        run_run(options, "default", False, True, cluster)
    assert lost.value.exit_code == 1


def test_whoever_continues_a_run_is_told_that_its_manifest_has_changed(
    shop: Shop, cluster: OneShop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write(shop.products(2))
    options = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
    with Maker(shop.service):
        run_run(options, "default", False, False, cluster)
        assert "has changed" not in capsys.readouterr().err
        shop.write(shop.products(3))
        run_run(options, "default", False, False, cluster)
    assert "has changed" in capsys.readouterr().err
    assert len(shop.table()) == 2


def test_a_driver_that_ray_has_not_yet_seen_die_is_replaced(shop: Shop, cluster: OneShop) -> None:
    shop.write(shop.products(1))
    jobs = cluster.jobs
    options = RunOptions(manifest_uri=str(shop.manifest), output_uri=shop.output.uri)
    Drivers.start(jobs, options, "default", [])  # at work, by Ray's word

    def seen_after(looks: int) -> Callable[[RunOutput], float]:
        left = iter(range(looks))

        def look(_: RunOutput) -> float:
            if next(left, None) is None:
                jobs.end(RayStatus.FAILED, -9)
            return 1.0

        return look

    with Maker(shop.service), pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalog_follow, "_written_at", seen_after(3))
        asked = {"manifest_uri": str(shop.manifest), "output_uri": shop.output.uri}
        run_run(asked, "default", False, False, cluster)
    assert len(jobs.started) == 2
    assert len(shop.table()) == 1


def report(cluster: OneShop, shop: Shop, out: Path) -> dict[str, object]:
    run_report(shop.output.uri, out, False, cluster)
    found: dict[str, object] = json.loads((out / "run.json").read_bytes())
    return found


def test_a_report_says_why_a_run_stopped_and_leaves_the_runs_own_as_it_is(
    shop: Shop, cluster: OneShop, tmp_path: Path
) -> None:
    rows = shop.products(6)
    for row in rows[:4]:
        row["image_uri"] = "nowhere.jpg"
    shop.write(rows)
    with Maker(shop.service), pytest.raises(RunError):
        shop.run(max_failures="1", shard_rows=2)
    before = shop.objects.stat("runs/one/run.json")
    found = report(cluster, shop, tmp_path / "out")
    assert found["status"] == "stopped"
    assert "rows failed" in str(found["stopped_because"])
    assert shop.objects.stat("runs/one/run.json") == before
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def test_a_report_on_a_run_whose_driver_was_killed_does_not_call_it_under_way(
    shop: Shop, cluster: OneShop, tmp_path: Path
) -> None:
    shop.write(shop.products(2))
    shop.run_until(shop.jobs)
    found = report(cluster, shop, tmp_path / "out")
    assert found["status"] == "stopped"
    assert "no driver is at work" in str(found["stopped_because"])
    options = RunOptions(manifest_uri=str(shop.manifest), output_uri=shop.output.uri)
    Drivers.start(cluster.jobs, options, "default", [])
    assert report(cluster, shop, tmp_path / "out")["status"] == "in_progress"


def test_a_later_report_has_each_row_once_in_its_tables(
    shop: Shop, cluster: OneShop, tmp_path: Path
) -> None:
    rows = shop.products(2)
    rows[1]["image_uri"] = "late.jpg"
    shop.write(rows)
    out = tmp_path / "out"
    with Maker(shop.service):
        shop.run()
        report(cluster, shop, out)
        shop.run(retry_failed=True)
        report(cluster, shop, out)
    assert [path.name for path in (out / "results").iterdir()] == ["part-00000.r1.parquet"]
    assert not is_cancelled(shop.output)


def test_a_report_deletes_nothing_that_is_not_its_own(
    shop: Shop, cluster: OneShop, tmp_path: Path
) -> None:
    shop.write(shop.products(1))
    folder = tmp_path / "out" / "results"
    folder.mkdir(parents=True)
    theirs = ["part-autumn.parquet", "part-00001.parquet", "part-00000.parquet.bak", "notes.txt"]
    for name in theirs:
        (folder / name).write_bytes(b"theirs")
    (folder / "part-00000.r1.parquet").write_bytes(b"of another round")
    with Maker(shop.service):
        shop.run()
    report(cluster, shop, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {*theirs, "part-00000.parquet"}


@pytest.mark.parametrize("name", ["results/../../outside", "videos/../../outside", "{}/outside"])
def test_a_report_writes_nothing_outside_its_folder(
    shop: Shop,
    cluster: OneShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    shop.write(shop.products(1))
    with Maker(shop.service):
        shop.run()
    # Many servers keep no such key, and some do.
    strange = ObjectInfo(shop.output.key(name.format(tmp_path)), 3, "", None, 0.0)
    objects, get = S3ObjectStore.iter_objects, S3ObjectStore.get

    def listed(store: S3ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
        yield from objects(store, prefix)
        if prefix == shop.output.key(""):
            yield strange

    def read(store: S3ObjectStore, key: str) -> bytes:
        return b"bad" if key == strange.key else get(store, key)

    monkeypatch.setattr(S3ObjectStore, "iter_objects", listed)
    monkeypatch.setattr(S3ObjectStore, "get", read)
    with pytest.raises(typer.Exit):
        run_report(shop.output.uri, tmp_path / "out", True, cluster)
    assert "is no name of a file" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "outside").exists()
