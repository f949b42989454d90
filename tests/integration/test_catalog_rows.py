"""What becomes of single rows: addresses that cannot be, photos that change, videos that go."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalogue.products import WAYS, write_products
from benchmarks.catalogue.table import wrong_rows
from catalog.run.errors import PhotoUnusable
from catalog.run.photos import Photos
from catalog.run.service import Service as HttpService
from deployments.egress.client import Egress, EgressConfig
from storage import keys
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobStatus
from storage.lifecycle.collector import Collector
from storage.lifecycle.records import record_ends
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig
from tests.faults.served import on_socket
from tests.integration.service import CARD, Service, jpeg
from tests.integration.test_catalog_run import NOISE, Maker, Shop
from tests.integration.test_lifecycle import Clock


@pytest.fixture
def shop(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Shop]:
    service = Service(s3, tmp_path)
    with on_socket(service) as url:
        yield Shop(s3, service, url, tmp_path)


def begin(shop: Shop, jobs: int) -> None:
    """As a driver that dies once it has asked for so many videos, none of which is made yet."""

    async def dying() -> None:
        driving = asyncio.create_task(shop.drive(in_flight=jobs))
        async with asyncio.timeout(20):
            while len(await asyncio.to_thread(shop.jobs)) < jobs:
                await asyncio.sleep(0.05)
        driving.cancel()
        await asyncio.wait([driving])

    asyncio.run(dying())


def test_addresses_that_cannot_be_fail_their_rows_only(shop: Shop) -> None:
    bucket = shop.s3.bucket
    ways = {
        "s3://my photos/a.jpg": "bad_image_uri",
        "s3://ab/a.jpg": "bad_image_uri",
        "s3://10.0.0.1/a.jpg": "image_uri_unusable",
        f"s3://{bucket}/../a.jpg": "image_uri_unusable",
        f"s3://{bucket}/ ": "image_uri_unusable",
        f"s3://{bucket}/{'k' * 1100}.jpg": "image_not_found",  # 400 on other servers
        "s3://nowhere-at-all/a.jpg": "image_not_found",
        "//[x/a.jpg": "image_not_found",
        "https://[x/a.jpg": "fetch_blocked",
        "file:///a%00.jpg": "image_uri_unusable",
    }
    rows = shop.products(len(ways) + 1)
    for row, uri in zip(rows, ways, strict=False):
        row["image_uri"] = uri
    shop.write(rows)
    with Maker(shop.service):
        assert shop.run().complete
    found = shop.table()
    assert [row["error_code"] for row in found] == [*ways.values(), None]
    assert all(row["error_type"] and row["error_message"] for row in found[:-1])


def test_every_way_in_which_a_benchmarks_row_is_bad_has_its_code(shop: Shop) -> None:
    products = write_products(shop.manifest.parent / "bench", rows=2 * WAYS, bad_every=2)
    shop.manifest = products.manifest
    with Maker(shop.service):
        assert shop.run().complete
    assert wrong_rows(shop.table(), products, shop.output) == []


@contextmanager
def refusing(status: int) -> Iterator[ObjectStoreConfig]:
    """A store that answers everything so, with an error code of its own."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ObjectStoreConfig(
            endpoint=f"127.0.0.1:{server.server_port}",
            bucket="photos",
            access_key="a",
            secret_key="b",
            retries=0,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def read_from(store: ObjectStoreConfig) -> bytes:
    photos = Photos(store, Egress(EgressConfig()), 1 << 20)
    return asyncio.run(photos.read("s3://photos/a.jpg"))


@pytest.mark.parametrize("status", [400, 403, 414])
def test_a_photo_that_a_store_refuses_is_the_rows_affair(status: int) -> None:
    with refusing(status) as store, pytest.raises(PhotoUnusable) as raised:
        read_from(store)
    assert raised.value.code == "image_not_readable"


def test_a_photo_of_a_store_that_is_unwell_is_worth_waiting_for() -> None:
    with refusing(503) as store, pytest.raises(StoreUnavailable):
        read_from(store)


def test_a_key_may_hold_what_means_something_in_other_addresses(shop: Shop) -> None:
    names = ["mug?size=2.jpg", "mug #1.jpg", "100%25 mug.jpg", "mug;v=1&[2].jpg"]
    rows = shop.products(len(names))
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        shop.objects.put(f"photos/{name}", jpeg(quality=50 + index), "image/jpeg")
        row["image_uri"] = f"s3://{shop.s3.bucket}/photos/{name}"
    shop.write(rows)
    with Maker(shop.service):
        shop.run()
    assert [row["error_code"] for row in shop.table()] == [None] * len(names)


def test_a_photo_that_was_replaced_while_no_driver_lived_is_made_as_it_is_now(shop: Shop) -> None:
    rows = shop.products(3)
    shop.write(rows)
    begin(shop, jobs=3)
    (shop.manifest.parent / rows[1]["image_uri"]).write_bytes(jpeg(quality=95))
    with Maker(shop.service):
        assert shop.run().complete
    assert [row["error_code"] for row in shop.table()] == [None] * 3
    assert len(shop.jobs()) == 4


def expire(shop: Shop, videos: int) -> None:
    """All there are by now, and as many as that; their results may be made anew."""
    record_ends(shop.service.jobs.database, shop.objects, 100)
    clock = Clock()
    collector = Collector(shop.service.jobs, shop.objects, Retention(results_s=1000.0), clock)
    clock.ahead_s = 2000.0
    assert collector.run_once().deleted["expired results"] == videos
    for _ in range(8):  # until its notes are forgotten
        clock.ahead_s += 9
        collector.finish_purges()
    collector.close()


def delete(shop: Shop, video_id: str) -> None:
    """By its caller; its result may be made anew."""
    assert shop.service.http.delete(f"/v1/videos/{video_id}").status_code == 200
    expire(shop, videos=0)


def test_a_video_that_is_kept_no_more_when_its_run_goes_on_is_made_again(shop: Shop) -> None:
    shop.write(shop.products(2))
    begin(shop, jobs=2)
    with Maker(shop.service):
        while any(job.status is not JobStatus.COMPLETED for job in shop.jobs()):
            time.sleep(0.05)
    expire(shop, videos=2)
    assert all(job.expired for job in shop.jobs())
    with Maker(shop.service) as maker:
        assert shop.run().complete
    found = shop.table()
    assert [row["error_code"] for row in found] == [None, None]
    assert len(maker.made) == 2
    assert {row["gpu_seconds"] for row in found} == {3.0}  # of both times


@pytest.mark.parametrize("end", ["expires", "is deleted"])
@pytest.mark.parametrize("variant", ["video", "thumbnail"])
def test_a_video_that_goes_between_its_last_poll_and_its_download_is_made_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, end: str, variant: str
) -> None:
    shop.write(shop.products(2))
    content = HttpService.content
    gone: list[str] = []

    async def late(service: HttpService, video_id: str, wanted: str) -> bytes:
        if not gone and wanted == variant:
            gone.append(video_id)
            if end == "expires":
                await asyncio.to_thread(expire, shop, 1)
            else:
                await asyncio.to_thread(delete, shop, video_id)
        return await content(service, video_id, wanted)

    monkeypatch.setattr(HttpService, "content", late)
    with Maker(shop.service) as maker:
        assert shop.run(in_flight=1).complete
    found = shop.table()
    assert [row["error_code"] for row in found] == [None, None]
    assert [row["gpu_seconds"] for row in found] == [3.0, 1.5]
    assert found[0]["video_id"] not in gone
    assert len(maker.made) == 3


def test_a_video_whose_files_alone_are_gone_fails_its_row(shop: Shop) -> None:
    class Losing(Maker):
        def _make(self, job: Job) -> None:
            super()._make(job)
            self._service.objects.delete(keys.poster_key(job.current_attempt))

    shop.write(shop.products(1))
    with Losing(shop.service) as maker:
        assert shop.run().complete
    assert [row["error_code"] for row in shop.table()] == ["content_missing"]
    assert len(maker.made) == 1


def test_gpu_seconds_are_those_of_every_seed_that_was_tried(shop: Shop) -> None:
    shop.write(shop.products(2))
    with Maker(shop.service):
        summary = shop.run(min_score=0.8, quality_retries=1)
    assert {row["gpu_seconds"] for row in shop.table()} == {3.0}
    (tier,) = summary.tally.tiers.values()
    assert (tier.videos, tier.gpu_seconds) == (2, 6.0)


def test_a_row_tells_weights_and_measures_of_the_clip_that_was_selected(shop: Shop) -> None:
    row = {**shop.products(1)[0], "n": 2, "seed": 999}  # 1000 is the good one
    shop.write([row])
    with Maker(shop.service):
        shop.run()
    (found,) = shop.table()
    assert (found["seed"], found["score"]) == (1000, 0.9)
    assert found["model_revision"] == CARD.revision
    assert found["gpu_seconds"] == 3.0
    for name in ("flicker", "warp_error", "tracked", "motion", "color_shift", "lpips_mean"):
        assert found[name] == getattr(NOISE, name)


def test_an_equal_row_names_the_video_whose_result_it_shares(shop: Shop) -> None:
    row = shop.products(1)[0]
    shop.write([row, {**row, "sku": "twin"}])
    with Maker(shop.service):
        summary = shop.run(in_flight=1)
    first, twin = shop.table()
    assert (first["shared_with"], twin["shared_with"]) == (None, first["video_id"])
    assert (first["gpu_seconds"], twin["gpu_seconds"]) == (1.5, 0.0)
    assert summary.tally.shared == 1


class Failing(Maker):
    """As a stage does that finds fault with the photo, or with itself."""

    def _make(self, job: Job) -> None:
        code = "image_undecodable" if "photo" in job.request.sampling.prompt else "encode_failed"
        self._service.jobs.fail(job.current_attempt, code, "it cannot be")


def test_the_type_of_an_error_says_whose_it_is(shop: Shop) -> None:
    rows: list[dict[str, Any]] = shop.products(2)
    rows[0]["prompt"] = "a photo turns slowly to the left"
    shop.write(rows)
    with Failing(shop.service):
        shop.run()
    assert [row["error_type"] for row in shop.table()] == ["invalid_request_error", "server_error"]
