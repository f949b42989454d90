"""`/v1/batches`: what is taken, what is refused, who sees it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import BatchNotFound
from storage.lifecycle.collector import Collector
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig
from storage.tenants import SqlTenants
from tests.integration.batch_desk import Desk
from tests.integration.service import error_of, jpeg


@pytest.fixture
def desk(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(s3, tmp_path, max_upload_bytes=1000)
    with desk.service.http:
        yield desk


def test_a_batch_is_validating_until_somebody_looks(desk: Desk) -> None:
    made = desk.create(preset="preview", metadata={"a": "b"}, completion_window="2h")
    assert (made["object"], made["status"], made["endpoint"]) == (
        "batch",
        "validating",
        "/v1/videos",
    )
    assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert made["expires_at"] - made["created_at"] in (7199, 7200)
    assert made["output_prefix"] == f"s3://{desk.s3.bucket}/batches/shop/{made['id']}"
    assert desk.get(made) == made
    assert desk.ask("GET", f"/batches/{made['id']}/items").json()["data"] == []


def test_a_batch_of_another_tenant_is_not_there(desk: Desk) -> None:
    made = desk.create()
    for method, path in (("GET", ""), ("GET", "/items"), ("POST", "/cancel")):
        response = desk.ask(method, f"/batches/{made['id']}{path}", tenant="rival")
        assert (response.status_code, error_of(response)["code"]) == (404, "batch_not_found")
    assert desk.ask("GET", "/batches", tenant="rival").json()["data"] == []
    file = made["input_file_id"]
    stolen = desk.ask("POST", "/batches", tenant="rival", json={"input_file_id": file})
    assert (stolen.status_code, error_of(stolen)["code"]) == (404, "file_not_found")


def test_the_same_key_makes_one_batch(desk: Desk) -> None:
    body = {"input_file_id": desk.upload(b"sku,image_uri\n")}
    once = {"Idempotency-Key": "k"}
    first = desk.ask("POST", "/batches", json=body, headers=once)
    again = desk.ask("POST", "/batches", json=body, headers=once)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = desk.ask("POST", "/batches", json=body | {"seed": 1}, headers=once)
    assert (other.status_code, error_of(other)["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 400, "invalid_parameter"),
        ({"input_uri": "/etc/passwd"}, 400, "invalid_parameter"),
        ({"input_uri": "file:///etc/passwd"}, 400, "invalid_parameter"),
        ({"input_uri": "s3://BUCKET/goods/rival/a.csv"}, 403, "input_uri_not_allowed"),
        ({"input_uri": "s3://BUCKET/goods/shop/../rival/a.csv"}, 403, "input_uri_not_allowed"),
        ({"input_uri": "s3://BUCKET/goods/shop/a.txt"}, 400, "manifest_refused"),
        (
            {"input_uri": "s3://BUCKET/goods/shop/a.csv", "output_prefix": "s3://BUCKET/made/x"},
            403,
            "output_prefix_not_allowed",
        ),
        ({"input_uri": "s3://BUCKET/goods/shop/a.csv", "speed": 9}, 400, "unknown_parameter"),
        ({"input_uri": "s3://BUCKET/goods/shop/a.csv", "preset": "x"}, 400, "invalid_parameter"),
        ({"input_uri": "s3://BUCKET/goods/shop/a.csv", "model": "x"}, 400, "invalid_parameter"),
        (
            {"input_uri": "s3://BUCKET/goods/shop/a.csv", "webhook": "https://elsewhere.example/"},
            400,
            "webhook_not_allowed",
        ),
        ({"input_file_id": "file_none"}, 404, "file_not_found"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    desk: Desk, fields: dict[str, Any], status: int, code: str
) -> None:
    body = json.loads(json.dumps(fields).replace("BUCKET", desk.s3.bucket))
    response = desk.ask("POST", "/batches", json=body)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert desk.ask("GET", "/batches").json()["data"] == []


def test_a_photo_is_no_manifest_and_a_manifest_no_photo(desk: Desk) -> None:
    photo = desk.upload(jpeg(), "a.jpg", "vision")
    response = desk.ask("POST", "/batches", json={"input_file_id": photo})
    assert (response.status_code, error_of(response)["param"]) == (400, "input_file_id")
    for data, name, code in (
        (b"x", "a.txt", "unsupported_manifest"),
        (b"x", "a.csv.gz", "unsupported_manifest"),
        (b"x" * 1001, "a.csv", "manifest_too_large"),
    ):
        response = desk.ask(
            "POST", "/files", data={"purpose": "batch"}, files={"file": (name, data)}
        )
        assert error_of(response)["code"] == code


def test_a_tenant_has_so_many_at_once(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    desk = Desk(s3, tmp_path, max_batches_per_tenant=1)
    with desk.service.http:
        first = desk.create()
        body = {"input_file_id": first["input_file_id"]}
        refused = desk.ask("POST", "/batches", json=body)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        assert refused.headers["retry-after"] == "60"
        desk.ask("POST", f"/batches/{first['id']}/cancel")
        desk.look()
        assert desk.ask("POST", "/batches", json=body).status_code == 202


def test_a_folder_of_photos_is_a_manifest_too(desk: Desk) -> None:
    desk.objects.put("goods/shop/photos/mug.jpg", jpeg(), "image/jpeg")
    body = {"input_uri": f"s3://{desk.s3.bucket}/goods/shop/photos/", "dry_run": True}
    made = desk.ask("POST", "/batches", json=body).json()
    desk.look()
    assert desk.get(made)["request_counts"]["total"] == 1


def test_a_tenant_that_is_purged_leaves_no_batch(desk: Desk) -> None:
    made, tenants = desk.create(), SqlTenants(desk.service.jobs.database)
    desk.look()
    prefix = f"batches/shop/{made['id']}/"
    assert list(desk.objects.iter_objects(prefix))
    Collector(desk.service.jobs, desk.objects, Retention()).purge_tenant("shop")
    assert not list(desk.objects.iter_objects(prefix))
    with pytest.raises(BatchNotFound):
        desk.batches.get("shop", made["id"])
    desk.look()
    assert "shop" not in {tenant.name for tenant in tenants.list_tenants()}
