"""Looking after batches: drivers started, followed, replaced, stopped. Ray apart, all is real."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ray.job_submission import JobStatus as RayStatus

from catalog.batches import keeper
from catalog.results.row import RowStatus
from catalog.run.cancel import is_cancelled
from catalog.run.row_jobs import job_key
from catalog.run.submission import AWAY, STOPPED
from storage.deliveries import SqlDeliveries
from storage.object_store import ObjectStoreConfig
from tests.integration.batch_desk import Desk, drive, expire, put_manifest
from tests.integration.service import error_of


@pytest.fixture
def desk(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(s3, tmp_path, max_upload_bytes=1000)
    with desk.service.http:
        yield desk


def test_a_driver_is_started_once_and_followed_to_its_end(desk: Desk) -> None:
    made = desk.create(max_failures="5%", webhook="https://shop.example/hook")
    desk.look(3)
    (options,) = desk.drivers.started
    assert options.output_uri == made["output_prefix"]
    assert options.run_id == made["run_id"]
    assert options.max_failures == "5%"
    assert desk.drivers.commands[0][1:5] == [
        "-m",
        "serve.catalog_driver",
        "http://127.0.0.1:8265",
        "shop",
    ]
    assert desk.objects.get(options.manifest_uri.partition(f"{desk.s3.bucket}/")[2]).startswith(
        b"sku"
    )
    drive(desk, made, [RowStatus.OK, RowStatus.OK, RowStatus.FAILED])
    desk.drivers.end(RayStatus.SUCCEEDED)
    desk.look()
    found = desk.get(made)
    assert found["status"] == "completed"
    assert found["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert found["output_file_id"] == f"{made['output_prefix']}/results/"
    assert found["error_file_id"] == f"{made['output_prefix']}/errors.csv"
    (delivery,) = SqlDeliveries(desk.service.jobs.database).of_job(made["id"])
    assert json.loads(delivery.body)["type"] == "batch.completed"
    desk.look(3)
    assert len(desk.drivers.started) == 1


def test_a_driver_that_was_lost_is_started_again_until_it_is_in_vain(
    s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    desk = Desk(s3, tmp_path, max_starts=3)
    with desk.service.http:
        made = desk.create()
        desk.look()
        for number in (1, 2, 3):
            assert len(desk.drivers.started) == number
            assert desk.get(made)["status"] == "validating"
            desk.drivers.end(RayStatus.FAILED, -9, "bang\n")
            desk.look()
        found = desk.get(made)
        assert found["status"] == "failed"
        (error,) = found["errors"]["data"]
        assert error["code"] == "driver_lost"
        assert "3 times in a row: bang" in error["message"]


def test_a_cluster_that_forgot_its_jobs_gets_the_driver_anew(desk: Desk) -> None:
    desk.create()
    desk.look()
    desk.drivers.job = None
    desk.look()
    assert len(desk.drivers.started) == 2


def test_a_ray_that_takes_no_jobs_is_asked_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.create()
    with monkeypatch.context() as patched:
        patched.setattr(desk.drivers, "find", refusing("No available agent to submit job"))
        desk.look(3)
        assert desk.get(made)["status"] == "validating"
    desk.look()
    assert len(desk.drivers.started) == 1


def refusing(message: str) -> Callable[[str], None]:
    def refuse(_: str) -> None:
        raise RuntimeError(message)

    return refuse


def test_a_driver_that_stopped_says_why(desk: Desk) -> None:
    made = desk.create()
    desk.look()
    desk.drivers.end(RayStatus.FAILED, STOPPED, "x\nstopped: 3 rows failed, 1 may\n")
    desk.look()
    found = desk.get(made)
    assert found["status"] == "failed"
    assert found["errors"]["data"] == [
        {"code": "stopped", "message": "3 rows failed, 1 may", "param": None, "line": None}
    ]


@pytest.mark.parametrize("code", [STOPPED, -9])
def test_a_run_whose_report_is_written_is_over_however_its_driver_left(
    desk: Desk, code: int
) -> None:
    made = desk.create()
    desk.look()
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED])
    desk.drivers.end(RayStatus.FAILED, code, "stopped: the job table does not answer\n")
    desk.look()
    found = desk.get(made)
    assert (found["status"], found["errors"]) == ("completed", None)
    assert found["request_counts"] == {"total": 2, "completed": 1, "failed": 1}


def test_the_report_of_an_earlier_driver_is_not_the_last_ones_word(desk: Desk) -> None:
    made = desk.create(retry_failed=True)
    desk.look()
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED])
    desk.drivers.end(RayStatus.FAILED, -9)
    assert desk.drivers.job is not None  # which began after the report was written
    desk.drivers.job = replace(desk.drivers.job, started_at=time.time() + 1)
    desk.look()
    assert len(desk.drivers.started) == 2
    assert len({options.submission for options in desk.drivers.started}) == 1


def test_a_driver_that_found_nobody_is_followed_by_another(desk: Desk) -> None:
    made = desk.create()
    desk.look()
    desk.drivers.end(RayStatus.FAILED, AWAY, "stopped: no Ray dashboard answers\n")
    desk.look()
    assert len(desk.drivers.started) == 2
    assert desk.get(made)["status"] == "validating"


def test_a_batch_stays_claimed_while_the_markers_of_many_shards_are_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.create()
    desk.look()
    drive(desk, made, [RowStatus.OK] * 6, rows=7, shard_rows=1)
    desk.drivers.end(RayStatus.FAILED, STOPPED, "stopped: enough\n")
    desk.clock.now += 61
    monkeypatch.setattr(keeper, "_LEASE_S", 0.0)  # renewed at every chance
    renewed: list[str] = []
    monkeypatch.setattr(desk.batches, "renew", lambda batch, _: renewed.append(batch.id))
    claimed = desk.batches.claim(60)
    assert claimed is not None
    desk.keeper.look(claimed)
    assert renewed == [made["id"]] * 6
    found = desk.get(made)
    assert found["request_counts"] == {"total": 7, "completed": 6, "failed": 0}


def test_a_batch_continues_a_folder_whose_manifest_is_gone(desk: Desk) -> None:
    put_manifest(desk)
    uri = f"s3://{desk.s3.bucket}/goods/shop/b.csv"
    fields = {"input_uri": uri, "output_prefix": f"s3://{desk.s3.bucket}/made/shop/one/"}
    desk.objects.put("goods/shop/b.csv", b"sku,image_uri\na,x.jpg\n", "text/csv")
    first = desk.ask("POST", "/batches", json=fields).json()
    desk.look()
    drive(desk, first, [RowStatus.OK], shard_rows=1000)
    desk.drivers.end(RayStatus.SUCCEEDED)
    desk.look()
    assert desk.get(first)["status"] == "completed"
    desk.objects.delete("goods/shop/b.csv")
    second = desk.ask("POST", "/batches", json=fields | {"retry_failed": True}).json()
    desk.look()
    assert desk.get(second)["status"] != "failed"
    assert len(desk.drivers.started) == 2


def test_a_batch_that_continues_another_ones_folder_has_a_driver_of_its_own(desk: Desk) -> None:
    put_manifest(desk)
    fields = {
        "input_uri": f"s3://{desk.s3.bucket}/goods/shop/a.csv",
        "output_prefix": f"s3://{desk.s3.bucket}/made/shop/one/",
    }
    first = desk.ask("POST", "/batches", json=fields).json()
    taken = desk.ask("POST", "/batches", json=fields)
    assert (taken.status_code, error_of(taken)["code"]) == (409, "output_taken")
    desk.look()
    desk.ask("POST", f"/batches/{first['id']}/cancel")
    desk.look()
    desk.drivers.end(RayStatus.FAILED, STOPPED, "stopped: cancelled")
    desk.look()
    assert desk.get(first)["status"] == "cancelled"
    second = desk.ask("POST", "/batches", json=fields | {"retry_failed": True}).json()
    assert second["run_id"] == first["run_id"]
    desk.look()
    assert not is_cancelled(desk.output(second))
    assert [options.retry_failed for options in desk.drivers.started] == [False, True]


def test_cancelling_reaches_the_driver_and_then_its_jobs(desk: Desk) -> None:
    made = desk.create()
    desk.look()
    key = job_key(made["run_id"], 0, 0, 0, 0)
    headers = desk.keys["shop"]
    job = desk.service.create(headers=headers, key=key, batch_id=made["run_id"]).json()
    other = desk.service.create(headers=headers, batch_id="mine").json()
    cancelling = desk.ask("POST", f"/batches/{made['id']}/cancel").json()
    assert (cancelling["status"], cancelling["cancelled_at"]) == ("cancelling", None)
    assert not is_cancelled(desk.output(made))
    desk.look()
    assert is_cancelled(desk.output(made))
    assert desk.get(made)["status"] == "cancelling"
    desk.drivers.end(RayStatus.FAILED, -9)  # killed before it had heard
    desk.look()
    found = desk.get(made)
    assert found["status"] == "cancelled"
    assert found["cancelling_at"] <= found["cancelled_at"]
    states = [desk.ask("GET", f"/videos/{video['id']}").json()["status"] for video in (job, other)]
    assert states == ["cancelled", "queued"]
    assert len(desk.drivers.started) == 1


def test_a_batch_is_cancelled_before_it_began_without_a_driver(desk: Desk) -> None:
    made = desk.create()
    desk.ask("POST", f"/batches/{made['id']}/cancel")
    desk.look()
    assert desk.get(made)["status"] == "cancelled"
    assert desk.drivers.started == []


def test_a_window_that_ends_ends_the_batch(desk: Desk) -> None:
    made = desk.create(completion_window="1h")
    desk.look()
    row = desk.batches.get("shop", made["id"])
    expire(desk, row.id)
    desk.look()
    assert is_cancelled(desk.output(made))
    desk.drivers.end(RayStatus.FAILED, STOPPED, "stopped: cancelled")
    desk.look()
    assert desk.get(made)["status"] == "expired"


def test_a_dry_run_checks_every_row_and_makes_nothing(desk: Desk) -> None:
    data = b"sku,image_uri,seconds\na,a.jpg,2\nb,,2\nc,c.jpg,long\n"
    made = desk.create(data, dry_run=True)
    desk.look()
    found = desk.get(made)
    assert (found["status"], found["output_file_id"]) == ("completed", None)
    assert found["request_counts"] == {"total": 3, "completed": 0, "failed": 2}
    errors = found["errors"]["data"]
    assert [(error["code"], error["param"], error["line"]) for error in errors] == [
        ("missing_image", "image_uri", 3),
        ("bad_seconds", "seconds", 4),
    ]
    assert desk.drivers.started == []


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"name,photo\na,b\n", "a.csv", "manifest_refused"),
        (b'{"custom_id": "a", "body": {}}\n', "a.jsonl", "invalid_request"),
    ],
)
def test_what_is_no_manifest_fails_with_the_reason(
    desk: Desk, data: bytes, name: str, code: str
) -> None:
    body = {"input_file_id": desk.upload(data, name), "dry_run": True}
    made = desk.ask("POST", "/batches", json=body).json()
    desk.look()
    found = desk.get(made)
    assert found["status"] == "failed"
    assert {error["code"] for error in found["errors"]["data"]} == {code}


def test_a_manifest_that_is_not_there_fails_without_a_driver(desk: Desk) -> None:
    uri = f"s3://{desk.s3.bucket}/goods/shop/none.csv"
    made = desk.ask("POST", "/batches", json={"input_uri": uri}).json()
    desk.look()
    found = desk.get(made)
    assert [error["code"] for error in found["errors"]["data"]] == ["manifest_not_found"]
    assert desk.drivers.started == []
