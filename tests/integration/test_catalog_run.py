"""A run's driver against the real HTTP API, job table and S3 server. Only the GPUs are replaced: a
thread leases jobs as the Dispatcher does and completes them with the same small file."""

import asyncio
import csv
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from catalog.report.summary import RunSummary
from catalog.results.output import RunOutput
from catalog.results.row import RowStatus
from catalog.run.cancel import ask_to_cancel, forget_cancelling
from catalog.run.drive import Surroundings, drive
from catalog.run.errors import PlanChanged, RunCancelled, TooManyFailures
from catalog.run.options import RunOptions
from catalog.run.progress import read_progress
from deployments.egress.client import EgressConfig
from storage import keys
from storage.jobs import Job, JobStatus, VideoFile
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.faults.served import on_socket
from tests.integration.service import Service, jpeg
from tests.sample_jobs import lease_next
from video.quality import Quality

NOISE = Quality(score=0.1, flicker=0.5, warp_error=0.5, tracked=0.1, motion=0.3)


class Maker(threading.Thread):
    """Completes whatever waits, as if a GPU had made it; `score` by seed, `fail` by prompt."""

    def __init__(self, service: Service, pause_s: float = 0.0):
        super().__init__(daemon=True)
        self._service, self._pause_s = service, pause_s
        self._leaving = threading.Event()
        self.made: list[Job] = []

    def __enter__(self) -> "Maker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self.join()

    def run(self) -> None:
        jobs = self._service.jobs
        epoch = jobs.next_epoch()
        while not self._leaving.wait(0.01):
            for job in lease_next(jobs, epoch, 8):
                time.sleep(self._pause_s)
                self._make(job)

    def _make(self, job: Job) -> None:
        service, attempt = self._service, job.current_attempt
        self.made.append(job)
        if "break" in job.request.sampling.prompt:
            service.jobs.fail(attempt, "encode_failed", "it broke")
            return
        objects = service.objects
        objects.put(keys.video_key(attempt), job.id.encode(), "video/mp4")
        objects.put(keys.poster_key(attempt), b"webp", "image/webp")
        score = 0.9 if job.request.sampling.seed >= 1000 else 0.4
        video = VideoFile(
            result_id=job.request.result_id,
            video_key=keys.video_key(attempt),
            poster_key=keys.poster_key(attempt),
            spritesheet_key=keys.spritesheet_key(attempt),
            manifest_key=keys.manifest_key(attempt),
            sha256="ab" * 32,
            size_bytes=len(job.id),
            width=640,
            height=480,
            frames=16,
            fps=8.0,
            seconds=2.0,
            timings={"denoising": 1.5},
            peak_vram_bytes=12 << 30,
            quality=replace(NOISE, score=score),
        )
        service.jobs.complete(attempt, video)


class Shop:
    """A manifest of products, a service, and the folder where their videos go."""

    def __init__(self, s3: ObjectStoreConfig, service: Service, url: str, folder: Path):
        self.s3, self.service, self._folder = s3, service, folder
        self.around = Surroundings(url, None, s3, EgressConfig(), 1 << 20)
        self.objects = S3ObjectStore(s3)
        self.output = RunOutput(self.objects, s3.bucket, "runs/one", "run")
        self.manifest = folder / "products.csv"

    def products(self, number: int) -> list[dict[str, Any]]:
        """Rows with a photo each, all different."""
        rows = []
        for index in range(number):
            photo = self._folder / f"{index}.jpg"
            photo.write_bytes(jpeg(quality=20 + index))
            prompt = f"mug {index} turns slowly to the left"
            rows.append({"sku": f"P{index}", "image_uri": photo.name, "prompt": prompt})
        return rows

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        with self.manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    async def drive(self, **options: Any) -> RunSummary:
        given = {"shard_rows": 5, "in_flight": 4, "patience_s": 20, **options}
        asked = RunOptions(manifest_uri=str(self.manifest), output_uri=self.output.uri, **given)
        return await drive(asked, self.around)

    def run(self, **options: Any) -> RunSummary:
        return asyncio.run(self.drive(**options))

    def run_until(self, met: Callable[[], object]) -> None:
        """As a driver that dies then: nothing of it goes on, and it says nothing."""

        async def dying() -> None:
            driving = asyncio.create_task(self.drive())
            while not await asyncio.to_thread(met):
                assert not driving.done()
                await asyncio.sleep(0.02)
            driving.cancel()
            with suppress(asyncio.CancelledError):
                await driving

        asyncio.run(dying())

    def table(self) -> list[dict[str, Any]]:
        """All rows of results, as whoever reads the folder finds them."""
        parts = self.objects.iter_objects("runs/one/results/")
        tables = [pq.read_table(io.BytesIO(self.objects.get(part.key))) for part in parts]
        return [row for table in tables for row in table.to_pylist()]

    def jobs(self) -> list[Job]:
        return self.service.jobs.list_jobs("default", limit=1000)


@pytest.fixture
def shop(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Shop]:
    service = Service(s3, tmp_path)
    with on_socket(service) as url:
        yield Shop(s3, service, url, tmp_path)


def test_every_row_has_one_result_and_a_bad_one_says_why(shop: Shop) -> None:
    rows = shop.products(12)
    rows[2]["image_uri"] = "nowhere.jpg"
    rows[3]["sku"] = "P1"
    rows[5]["seed"] = "abc"
    rows[6]["preset"] = "gigantic"
    rows[7]["prompt"] = "break it slowly to the left"
    rows[8]["image_uri"] = shop.manifest.name  # a CSV
    shop.write([{**row, "colour": f"c{index}"} for index, row in enumerate(rows)])
    with Maker(shop.service):
        summary = shop.run()
    found = shop.table()
    assert [row["row"] for row in found] == list(range(12))
    assert {row["row"]: row["error_code"] for row in found if row["status"] == "failed"} == {
        2: "image_not_found",
        3: "duplicate_sku",
        5: "bad_seed",
        6: "invalid_parameter",
        7: "encode_failed",
        8: "image_unsupported",
    }
    assert all(row["error_message"] for row in found if row["status"] == "failed")
    assert [row["colour"] for row in found] == [f"c{index}" for index in range(12)]
    for row in found:
        if row["status"] == "ok":
            key = row["video_uri"].removeprefix(f"s3://{shop.s3.bucket}/")
            assert shop.objects.get(key) == row["video_id"].encode()
            assert shop.objects.stat(key.replace(".mp4", ".webp")) is not None
            assert row["gpu_seconds"] == 1.5
            assert row["peak_vram_bytes"] == 12 << 30
            assert row["t_queue"] >= 0
    assert summary.complete
    assert summary.tally.rows == 12
    assert b"100 %" in shop.objects.get("runs/one/report.html") or summary.percent == 100
    progress = read_progress(shop.output)
    assert progress is not None
    assert (progress["done"], progress["ok"], progress["failed"]) == (12, 6, 6)


def test_a_driver_that_was_killed_again_and_again_makes_no_job_twice(shop: Shop) -> None:
    shop.write(shop.products(30))
    with Maker(shop.service, pause_s=0.05) as maker:
        for made in (4, 11, 19):
            shop.run_until(lambda made=made: len(maker.made) >= made)  # type: ignore[misc]
        summary = shop.run()
    assert summary.complete
    assert Counter(row["row"] for row in shop.table()) == Counter(range(30))
    assert {row["status"] for row in shop.table()} == {"ok"}
    assert len(maker.made) == len(shop.jobs()) == 30


def test_a_run_that_is_over_asks_nothing_of_the_service(shop: Shop) -> None:
    shop.write(shop.products(7))
    with Maker(shop.service) as maker:
        shop.run()
        made = len(maker.made)
        assert shop.run().complete
    assert len(maker.made) == made == 7


def test_a_cancelled_run_stops_its_jobs_and_goes_on_when_asked_again(shop: Shop) -> None:
    shop.write(shop.products(10))

    async def cancelled() -> None:
        driving = asyncio.create_task(shop.drive())
        while len(await asyncio.to_thread(shop.jobs)) < 4:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(ask_to_cancel, shop.output)
        await driving

    with pytest.raises(RunCancelled):
        asyncio.run(cancelled())
    assert {job.status for job in shop.jobs()} == {JobStatus.CANCELLED}
    assert b"cancelled" in shop.objects.get("runs/one/run.json")
    with pytest.raises(RunCancelled):  # it stays so until somebody says otherwise
        shop.run()
    forget_cancelling(shop.output)
    with Maker(shop.service):
        assert shop.run().complete
    assert {row["status"] for row in shop.table()} == {"ok"}


def test_too_many_failures_stop_a_run_which_a_higher_limit_continues(shop: Shop) -> None:
    rows = shop.products(20)
    for row in rows[:6]:
        row["image_uri"] = "nowhere.jpg"
    shop.write(rows)
    with Maker(shop.service):
        with pytest.raises(TooManyFailures, match="3 rows failed, 2 may"):
            shop.run(max_failures="10%")
        assert shop.run(max_failures="30%").complete
    assert Counter(row["status"] for row in shop.table()) == {"ok": 14, "failed": 6}


def test_failed_rows_are_tried_again_when_asked_for_and_videos_are_kept(shop: Shop) -> None:
    rows = shop.products(8)
    for index in (2, 6):
        rows[index]["image_uri"] = f"late-{index}.jpg"
    rows[3]["seed"] = "abc"
    shop.write([{**row, "colour": "red"} for row in rows])
    with Maker(shop.service) as maker:
        shop.run()
        before = shop.table()
        for index in (2, 6):
            (shop.manifest.parent / f"late-{index}.jpg").write_bytes(jpeg(quality=90 + index))
        shop.run()
        assert shop.table() == before
        summary = shop.run(retry_failed=True)
    after = shop.table()
    assert Counter(row["row"] for row in after) == Counter(range(8))
    assert {row["row"]: row["error_code"] for row in after if row["status"] != "ok"} == {
        3: "bad_seed"
    }
    kept = [row for row in before if row["status"] == "ok"]
    assert all(row in after for row in kept)
    assert len(maker.made) == 7
    assert summary.tally.count(RowStatus.OK) == 7


def test_the_quality_gate_tries_other_seeds_and_says_when_none_is_good_enough(shop: Shop) -> None:
    shop.write(shop.products(2))
    with Maker(shop.service) as maker:
        shop.run(min_score=0.8, quality_retries=1)
    assert {row["score"] for row in shop.table()} == {0.9}
    assert {row["seed"] for row in shop.table()} == {1_000_003}
    assert len(maker.made) == 4


def test_nothing_good_enough_is_an_error_that_tells_the_best_score(shop: Shop) -> None:
    shop.write(shop.products(1))
    with Maker(shop.service):
        shop.run(min_score=0.95, quality_retries=1)
    (row,) = shop.table()
    assert (row["status"], row["error_code"]) == ("failed", "quality_gate_failed")
    assert "0.90" in row["error_message"]


def test_a_queue_that_is_full_holds_the_run_back_and_fails_no_row(
    s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    service = Service(s3, tmp_path, max_queued_jobs=2)
    with on_socket(service) as url:
        shop = Shop(s3, service, url, tmp_path)
        shop.write(shop.products(12))
        with Maker(service, pause_s=0.1):
            assert shop.run(in_flight=8, patience_s=60).complete
    assert {row["status"] for row in shop.table()} == {"ok"}


def test_a_run_is_not_continued_with_options_that_would_make_other_videos(shop: Shop) -> None:
    shop.write(shop.products(2))
    with Maker(shop.service):
        shop.run(seed=1)
    with pytest.raises(PlanChanged, match="seed was 1, now it is 2"):
        shop.run(seed=2)


def test_a_limit_makes_the_first_rows_only(shop: Shop) -> None:
    shop.write(shop.products(9))
    with Maker(shop.service):
        assert shop.run(limit=7).complete
    assert [row["row"] for row in shop.table()] == list(range(7))
