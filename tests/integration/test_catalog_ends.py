"""How a run goes on and ends when something around it is gone: its manifest, a store, a driver."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.errors import PinDamaged
from catalog.manifest.pinned import PinnedManifest
from catalog.report.publish import published
from catalog.results.commit import finished_shards, read_markers
from catalog.run.cancel import ask_to_cancel
from catalog.run.errors import RunCancelled
from catalog.run.progress import read_progress
from storage.jobs import JobStatus
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.faults.served import on_socket
from tests.faults.tcp_proxy import TcpProxy
from tests.integration.service import Service, jpeg
from tests.integration.test_catalog_run import Maker, Shop


@pytest.fixture
def shop(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Shop]:
    service = Service(s3, tmp_path)
    with on_socket(service) as url:
        yield Shop(s3, service, url, tmp_path)


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_run_goes_on_with_its_rows_whatever_became_of_the_manifest(
    shop: Shop, change: str
) -> None:
    shop.write(shop.products(12))
    with Maker(shop.service, pause_s=0.05) as maker:
        shop.run_until(lambda: len(maker.made) >= 3)
        assert PinnedManifest.open(shop.objects, "runs/one") is not None
        if change == "deleted":
            shop.manifest.unlink()
        else:
            shop.write(shop.products(3))
        assert shop.run().complete
    assert [row["sku"] for row in shop.table()] == [f"P{index}" for index in range(12)]


@pytest.mark.parametrize("name", [b"cancelled.json", b"manifest.json", b"plan.json"])
def test_a_store_that_is_away_while_a_driver_starts_is_waited_for(
    shop: Shop, s3: ObjectStoreConfig, name: bytes
) -> None:
    shop.write(shop.products(1))
    with TcpProxy(s3.endpoint) as proxy, Maker(shop.service):
        far = s3.model_copy(update={"endpoint": proxy.endpoint, "retries": 0})
        shop.around = replace(shop.around, store=far)
        proxy.lose_reply_to(name)
        assert shop.run().complete
        assert proxy.lost_replies == 1


def rounds(shop: Shop) -> Sequence[int]:
    markers = read_markers(shop.output, finished_shards(shop.output).values())
    return [marker.round for marker in markers]


def test_what_was_tried_again_under_one_asking_is_not_tried_by_its_next_driver(
    shop: Shop,
) -> None:
    shop.write([row | {"prompt": f"break {row['sku']} to the left"} for row in shop.products(4)])

    async def dying() -> None:
        asked = {"shard_rows": 1, "in_flight": 1, "retry_failed": True, "submission": "again"}
        driving = asyncio.create_task(shop.drive(**asked))
        while 1 not in await asyncio.to_thread(rounds, shop):
            await asyncio.sleep(0.05)
        driving.cancel()

    with Maker(shop.service, pause_s=0.3) as maker:
        shop.run(shard_rows=1)
        assert len(maker.made) == 4
        asyncio.run(dying())
        assert set(rounds(shop)) == {0, 1}
        shop.run(shard_rows=1, retry_failed=True, submission="again")
        assert len(maker.made) == 8
        assert rounds(shop) == [1, 1, 1, 1]
        shop.run(shard_rows=1, retry_failed=True, submission="and again")
    assert len(maker.made) == 12


def test_a_row_that_is_tried_again_tells_what_all_its_rounds_took(shop: Shop) -> None:
    shop.write(shop.products(1))
    with Maker(shop.service):
        for retry in (False, True):  # the second time its video is a stored result
            shop.run(min_score=0.95, quality_retries=0, retry_failed=retry)
            (row,) = shop.table()
            assert (row["error_code"], row["gpu_seconds"]) == ("quality_gate_failed", 1.5)
    progress = read_progress(shop.output)
    assert progress is not None
    assert (progress["done"], progress["failed"], progress["gpu_seconds"]) == (1, 1, 1.5)


def test_a_row_that_comes_to_no_video_again_keeps_what_it_took_and_where(shop: Shop) -> None:
    rows = shop.products(1)
    shop.write(rows)
    with Maker(shop.service):
        shop.run(min_score=0.95, quality_retries=0)
        (before,) = shop.table()
        (shop.manifest.parent / rows[0]["image_uri"]).unlink()
        summary = shop.run(min_score=0.95, quality_retries=0, retry_failed=True)
    (after,) = shop.table()
    assert (after["error_code"], after["gpu_seconds"]) == ("image_not_found", 1.5)
    assert after["tier"] == before["tier"] is not None
    assert summary.tally.tiers[after["tier"]].gpu_seconds == 1.5


def test_what_failed_under_an_asking_is_not_tried_again_by_its_next_driver(shop: Shop) -> None:
    rows = shop.products(1)
    rows[0]["prompt"] = "break it slowly to the left"
    shop.write(rows)
    with Maker(shop.service) as maker:
        for _ in range(2):
            shop.run(retry_failed=True, submission="one")
    assert len(maker.made) == 1


def test_a_shard_that_another_driver_has_tried_again_meanwhile_is_finished(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shop.products(1)
    rows[0]["prompt"] = "break it slowly to the left"
    shop.write(rows)
    read = S3ObjectStore.get

    def get(store: S3ObjectStore, key: str) -> bytes:
        if key == shop.output.part_key(0):
            monkeypatch.undo()
            shop.run(retry_failed=True, submission="one")
        return read(store, key)

    with Maker(shop.service) as maker:
        shop.run()
        monkeypatch.setattr(S3ObjectStore, "get", get)
        assert shop.run(retry_failed=True, submission="two").complete
    assert rounds(shop) == [1]
    assert len(maker.made) == 2


def test_a_driver_that_finds_its_run_cancelled_cancels_what_a_killed_one_left(shop: Shop) -> None:
    shop.write(shop.products(6))
    shop.run_until(lambda: len(shop.jobs()) >= 2)
    left = [job for job in shop.jobs() if job.status is JobStatus.QUEUED]
    assert left
    other = shop.service.create(jpeg(quality=99)).json()
    ask_to_cancel(shop.output)
    with pytest.raises(RunCancelled):
        shop.run()
    states = {job.id: job.status for job in shop.jobs()}
    assert {states[job.id] for job in left} == {JobStatus.CANCELLED}
    assert states[other["id"]] is JobStatus.QUEUED
    said = published(shop.output)
    assert said is not None
    assert said.stopped is not None
    assert "cancelled" in said.stopped


def test_a_job_that_was_on_the_wire_when_its_run_was_cancelled_is_cancelled_too(
    shop: Shop,
) -> None:
    shop.write(shop.products(1))
    shop.run_until(shop.jobs)
    (job,) = shop.jobs()
    ask_to_cancel(shop.output)
    photo, run_id = jpeg(quality=99), job.request.batch_id

    def arrive() -> None:
        while shop.service.jobs.get("default", job.id).status is not JobStatus.CANCELLED:
            time.sleep(0.02)
        shop.service.create(photo, batch_id=run_id)

    wire = threading.Thread(target=arrive)
    wire.start()
    with pytest.raises(RunCancelled):
        shop.run()
    wire.join()
    assert [job.status for job in shop.jobs()] == [JobStatus.CANCELLED] * 2


def test_a_pin_that_is_damaged_ends_the_run_with_its_reason(shop: Shop) -> None:
    shop.write(shop.products(3))
    with Maker(shop.service):
        shop.run()
    standing = PinnedManifest.open(shop.objects, "runs/one")
    assert standing is not None
    data = shop.objects.get(standing.pin.key)  # its footer stays whole, so it opens
    spoilt = data[:4] + bytes(200) + data[204:]
    shop.objects.put(standing.pin.key, spoilt, "application/octet-stream")
    shop.objects.delete_prefix("runs/one/_shards/")
    with pytest.raises(PinDamaged):
        shop.run()
    said = published(shop.output)
    assert said is not None
    assert said.stopped is not None
    assert "damaged" in said.stopped
