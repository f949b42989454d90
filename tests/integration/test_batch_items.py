"""What became of each row of a batch, page by page."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from catalog.results.row import RowStatus
from catalog.run.row_jobs import job_key
from storage.lifecycle.forgetting import expire_results
from storage.object_store import ObjectStoreConfig
from storage.sql.tables import jobs
from tests.integration.batch_desk import Desk, drive


@pytest.fixture
def desk(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(s3, tmp_path, max_upload_bytes=1000)
    with desk.service.http:
        yield desk


def test_items_tell_of_rows_that_are_done_under_way_and_to_come(desk: Desk) -> None:
    made = desk.create()
    # Two shards of three rows: the first one is finished, of the second one two rows have begun.
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED, RowStatus.OK], rows=6)
    headers = desk.keys["shop"]
    for row in (3, 4):
        key = job_key(made["run_id"], row, 0, 0, 0)
        fields = {"batch_id": made["run_id"], "sku": f"p{row}", "seed": row}
        desk.service.create(headers=headers, key=key, **fields)
    for key in ("mine", f"{made['run_id']}:mine"):  # a video that the tenant says is of it
        desk.service.create(headers=headers, key=key, batch_id=made["run_id"], seed=99)
    items = f"/batches/{made['id']}/items"
    page = desk.ask("GET", items).json()
    states = [(item["id"], item["sku"], item["status"]) for item in page["data"]]
    assert states == [
        ("row_0", "p0", "ok"),
        ("row_1", "p1", "failed"),
        ("row_2", "p2", "ok"),
        ("row_3", "p3", "queued"),
        ("row_4", "p4", "queued"),
        ("row_5", "p5", "pending"),
    ]
    assert page["data"][1]["error"] == {"code": "encode_failed", "message": "it broke"}
    assert page["data"][0]["video_uri"].endswith("/0.mp4")
    assert not page["has_more"]
    for status, rows in (("ok", [0, 2]), ("failed", [1]), ("queued", [3, 4]), ("pending", [5])):
        found = desk.ask("GET", items, params={"status": status}).json()
        assert [item["row"] for item in found["data"]] == rows, status
        assert not found["has_more"]


def test_a_failed_row_that_is_tried_again_is_under_way_and_nothing_else(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED, RowStatus.FAILED])
    key = job_key(made["run_id"], 1, 0, 0, 1)
    fields = {"batch_id": made["run_id"], "sku": "p1", "seed": 1}
    again = desk.service.create(headers=desk.keys["shop"], key=key, **fields).json()["id"]
    items = f"/batches/{made['id']}/items"

    def told(**params: str) -> list[tuple[int, str, str | None]]:
        page = desk.ask("GET", items, params=params).json()["data"]
        return [(item["row"], item["status"], item["video_id"]) for item in page]

    assert told()[1:] == [(1, "queued", again), (2, "failed", None)]
    assert told(status="queued") == [(1, "queued", again)]
    assert told(status="failed") == [(2, "failed", None)]


def test_an_item_is_the_last_job_that_its_row_asked_for(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK] * 3, rows=6)
    service, headers = desk.service, desk.keys["shop"]

    def create(row: int, again: int) -> str:
        key = job_key(made["run_id"], row, 0, again, 0)
        fields = {"batch_id": made["run_id"], "sku": f"p{row}", "seed": 10 * row + again}
        video_id: str = service.create(headers=headers, key=key, **fields).json()["id"]
        return video_id

    expired = service.finish(create(3, 0), b"mp4")
    with service.jobs.database.writing() as db:
        db.execute(update(jobs).where(jobs.c.id == expired.id).values(recorded=True))
        expire_results(db, before=time.time() + 1, now=time.time(), limit=1)
    assert service.jobs.get("shop", expired.id).expired
    cancelled, outlived = create(4, 0), create(5, 0)
    service.http.post(f"/v1/videos/{cancelled}/cancel", headers=headers)

    def items() -> list[tuple[str, str | None]]:
        page = desk.ask("GET", f"/batches/{made['id']}/items").json()["data"]
        return [(item["status"], item["video_id"]) for item in page[3:]]

    # What is lost is asked for again; a photo that was replaced (409) shows by the next job only.
    assert items() == [("pending", None), ("pending", None), ("queued", outlived)]
    later = [create(row, 1) for row in (3, 4, 5)]
    assert items() == [("queued", video_id) for video_id in later]


@pytest.mark.parametrize("status", [None, "ok", "failed", "pending"])
def test_pages_of_items_add_up_to_all_of_them(desk: Desk, status: str | None) -> None:
    made = desk.create()
    done = [RowStatus.OK if row % 3 else RowStatus.FAILED for row in range(60)]
    drive(desk, made, done, rows=120, shard_rows=1)  # more shards than a page looks into
    seen, after = [], None
    for _ in range(200):
        params = {"limit": 7, "status": status, "after": after}
        page = desk.ask(
            "GET",
            f"/batches/{made['id']}/items",
            params={name: value for name, value in params.items() if value is not None},
        ).json()
        assert len(page["data"]) <= 7
        seen += [item["row"] for item in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    failed, whole = [*range(0, 60, 3)], [*range(120)]
    ok = [row for row in range(60) if row not in failed]
    expected = {None: whole, "ok": ok, "failed": failed, "pending": whole[60:]}
    assert seen == expected[status]
