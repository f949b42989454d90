"""The batch table, OpenAI's lines, and which folders HTTP callers reach."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.batches.lines import LinesRefused, are_requests, manifest_of
from catalog.batches.request import BatchRequest, UploadedManifest, run_options
from catalog.run.config import CatalogConfig, is_under
from serve.schemas import CreateBatch
from storage.batches import Batch, BatchError, BatchStatus, Counts, SqlBatches
from storage.deliveries import SqlDeliveries
from storage.errors import (
    BatchNotFound,
    FileNotFound,
    IdempotencyConflict,
    OutputTaken,
    QuotaExceeded,
    TenantNotFound,
)
from storage.job_contract import Idempotency
from storage.sql.database import Database
from tests.sample_jobs import Clock


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def batches(database: Database, clock: Clock) -> SqlBatches:
    return SqlBatches(database, clock)


def batch(batch_id: str, tenant: str = "shop", **values: Any) -> Batch:
    given = {"request": "{}", "output_uri": f"s3://bucket/{batch_id}", **values}
    return Batch(id=batch_id, tenant=tenant, **given)


def made(batches: SqlBatches, batch_id: str, **values: Any) -> Batch:
    stored, replayed = batches.create(batch(batch_id, **values))
    assert not replayed
    return stored


def claimed(batches: SqlBatches) -> Batch:
    found = batches.claim(60.0)
    assert found is not None
    return found


# --- creating


def test_a_batch_is_found_as_it_was_made(batches: SqlBatches, clock: Clock) -> None:
    stored = made(batches, "a", request='{"x": 1}', expires_at=5e9, webhook="https://a.example/")
    assert batches.get("shop", "a") == stored
    assert stored.status is BatchStatus.VALIDATING
    assert stored.created_at == stored.moments[BatchStatus.VALIDATING] == clock.now
    assert (stored.request, stored.expires_at) == ('{"x": 1}', 5e9)


def test_another_tenants_batch_is_not_there(batches: SqlBatches) -> None:
    made(batches, "a")
    for call in (batches.get, batches.ask_to_cancel):
        with pytest.raises(BatchNotFound):
            call("rival", "a")
    assert batches.list_batches("rival", limit=9, after=None) == []
    with pytest.raises(BatchNotFound):
        batches.list_batches("rival", limit=9, after="a")


def test_a_key_makes_one_batch_and_keeps_its_body(batches: SqlBatches) -> None:
    once = Idempotency("k", "body")
    first, replayed = batches.create(batch("a"), once)
    assert not replayed
    assert batches.create(batch("b"), once) == (first, True)
    assert batches.find("shop", once) == first
    assert batches.find("rival", once) is None
    with pytest.raises(IdempotencyConflict):
        batches.create(batch("c"), Idempotency("k", "another body"))


def test_a_tenant_has_so_many_unfinished_batches(batches: SqlBatches) -> None:
    made(batches, "a")
    with pytest.raises(QuotaExceeded, match="unfinished batches: 1"):
        batches.create(batch("b"), most_unfinished=1)
    made(batches, "c", tenant="rival")
    batches.end(replace(claimed(batches), status=BatchStatus.FAILED))
    batches.create(batch("b"), most_unfinished=1)


def test_a_folder_is_one_unfinished_batchs(batches: SqlBatches) -> None:
    made(batches, "a", output_uri="s3://bucket/one")
    with pytest.raises(OutputTaken):
        batches.create(batch("b", "rival", output_uri="s3://bucket/one"))
    batches.end(replace(claimed(batches), status=BatchStatus.CANCELLED))
    made(batches, "b", output_uri="s3://bucket/one")


def test_a_tenant_that_is_gone_makes_none(batches: SqlBatches) -> None:
    with pytest.raises(TenantNotFound):
        batches.create(batch("a"), registered=True)


def test_the_newest_come_first_a_page_at_a_time(batches: SqlBatches) -> None:
    for name in "abcd":
        made(batches, name)
    page = batches.list_batches("shop", limit=2, after=None)
    assert [found.id for found in page] == ["d", "c"]
    page = batches.list_batches("shop", limit=9, after="c")
    assert [found.id for found in page] == ["b", "a"]


# --- looking after


def test_a_claim_is_one_keepers_until_its_lease_ends(batches: SqlBatches, clock: Clock) -> None:
    made(batches, "a")
    first = claimed(batches)
    assert batches.claim(60.0) is None
    clock.now += 59
    assert batches.renew(first, 60.0)
    clock.now += 59
    assert batches.claim(60.0) is None
    clock.now += 2
    second = claimed(batches)
    assert not batches.renew(first, 60.0)
    batches.end(replace(first, status=BatchStatus.FAILED))
    batches.look_again(replace(first, prepared=True), 0.0)
    assert batches.get("shop", "a") == second


def test_a_look_leaves_what_it_saw_for_the_next(batches: SqlBatches, clock: Clock) -> None:
    made(batches, "a")
    seen = replace(
        claimed(batches), status=BatchStatus.IN_PROGRESS, counts=Counts(9, 4, 1), starts=2
    )
    clock.now += 5
    batches.look_again(replace(seen, prepared=True), 10.0)
    assert batches.claim(60.0) is None
    clock.now += 11
    found = claimed(batches)
    assert (found.status, found.counts) == (BatchStatus.IN_PROGRESS, Counts(9, 4, 1))
    assert (found.prepared, found.starts) == (True, 2)
    assert found.moments[BatchStatus.IN_PROGRESS] == clock.now - 11


def test_who_cancels_during_a_look_is_heard(batches: SqlBatches) -> None:
    made(batches, "a")
    seen = claimed(batches)
    batches.ask_to_cancel("shop", "a")
    batches.look_again(replace(seen, status=BatchStatus.IN_PROGRESS), 10.0)
    assert claimed(batches).status is BatchStatus.CANCELLING


def test_an_end_is_final_and_told_once(
    batches: SqlBatches, database: Database, clock: Clock
) -> None:
    made(batches, "a", webhook="https://shop.example/hook")
    failed = replace(
        claimed(batches), status=BatchStatus.FAILED, errors=(BatchError("bad", "so", "x", 3),)
    )
    batches.end(failed)
    batches.end(failed)
    clock.now += 1e6
    assert batches.claim(60.0) is None
    found = batches.ask_to_cancel("shop", "a")
    assert found.status is BatchStatus.FAILED
    assert found.errors == failed.errors
    (delivery,) = SqlDeliveries(database).of_job("a")
    told = json.loads(delivery.body)
    assert (told["type"], told["data"]) == ("batch.failed", {"id": "a"})
    assert delivery.host == "shop.example"


# --- OpenAI's lines


def line(**changes: Any) -> bytes:
    body = {"prompt": "a mug turns", "input_reference": {"file_id": "file_1"}}
    whole = {"custom_id": "mug", "method": "POST", "url": "/v1/videos", "body": body}
    body |= changes.pop("body", {})
    return json.dumps(whole | changes).encode()


def uri_of(file_id: str) -> str:
    if file_id != "file_1":
        raise FileNotFound(file_id)
    return "s3://bucket/inputs/shop/1"


def test_lines_become_a_manifest() -> None:
    more = {"seconds": 2, "seed": 7, "metadata": {"a": "b"}, "model": "tiny"}
    more |= {"camera_motion": "pan_left", "motion_strength": 0.25}
    data = b"\n".join([line(), b"", line(custom_id="pot", body=more)])
    assert are_requests(data)
    rows = [json.loads(row) for row in manifest_of(data, "tiny", uri_of).splitlines()]
    photo = {"image_uri": "s3://bucket/inputs/shop/1", "prompt": "a mug turns"}
    assert rows == [
        {"sku": "mug"} | photo,
        {"sku": "pot", "seconds": "2", "seed": "7", "metadata_json": {"a": "b"}}
        | {"camera_motion": "pan_left", "motion_strength": "0.25"}
        | photo,
    ]


@pytest.mark.parametrize("data", [b"", b"nonsense", b'{"sku": "a", "image_uri": "b"}', b"[1]"])
def test_other_lines_are_no_requests(data: bytes) -> None:
    assert not are_requests(data)


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        (line(url="/v1/responses"), "url"),
        (line(method="GET"), "method"),
        (line(body={"size": "64x64"}), "body.size"),
        (line(body={"input_reference": {"file_id": "file_2"}}), "body.input_reference.file_id"),
        (line(body={"input_reference": {"image_url": "file:///etc/passwd"}}), None),
        (line(body={"model": "sora-2"}), None),
        (b"{", None),
    ],
)
def test_a_line_that_cannot_be_used_refuses_all_and_is_named(bad: bytes, param: str | None) -> None:
    with pytest.raises(LinesRefused) as refused:
        manifest_of(b"\n".join([line(), bad, line()]), "tiny", uri_of)
    (error,) = refused.value.errors
    assert error.line == 2
    assert param is None or error.param == param


# --- what HTTP callers reach


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://bucket/in/shop/a.csv", True),
        ("s3://bucket/in/shop/", True),
        ("s3://bucket/in/shop-b/a.csv", False),
        ("s3://bucket/in/shop/../other/a.csv", False),
        ("s3://bucket/in/shop/./a.csv", False),
        ("s3://bucket/in/shop/.\t./other/a.csv", False),
        ("s3://other/in/shop/a.csv", False),
        ("file:///bucket/in/shop/a.csv", False),
        ("/bucket/in/shop/a.csv", False),
    ],
)
def test_a_prefix_holds_what_lies_in_its_folder(uri: str, allowed: bool) -> None:
    prefixes = CatalogConfig(input_prefixes=("s3://bucket/in/{tenant}/",)).inputs_of("shop")
    assert is_under(uri, prefixes) is allowed


@pytest.mark.parametrize("prefix", ["s3://bucket/in", "s3://", "/data/", "https://bucket/in/"])
def test_a_prefix_is_a_folder_in_s3(prefix: str) -> None:
    with pytest.raises(ValidationError):
        CatalogConfig(input_prefixes=(prefix,))


def test_a_run_reads_photos_of_its_tenant_only() -> None:
    config = CatalogConfig(input_prefixes=("s3://goods/{tenant}/",), in_flight=7)
    file = UploadedManifest(id="file_1", sha256="ab", suffix=".csv")
    request = BatchRequest(file=file, run={"preset": "preview", "max_failures": "5%"})
    options = run_options(batch("batch_1"), request, "own", config)
    assert options.photo_prefixes == (
        "s3://goods/shop/",
        "s3://own/inputs/shop/",
        "s3://own/batches/shop/batch_1/",
    )
    assert options.manifest_uri == "s3://own/batches/shop/batch_1/input.csv"
    assert (options.preset, options.max_failures, options.in_flight) == ("preview", "5%", 7)


def test_a_run_that_goes_on_keeps_its_manifest_and_its_folder() -> None:
    file = UploadedManifest(id="file_1", sha256="ab", suffix=".csv")
    began, goes_on = (BatchRequest(file=file, origin=one) for one in (None, "batch_1"))
    folder = "s3://own/batches/shop/batch_1"
    first, second = batch("batch_1", output_uri=folder), batch("batch_2", output_uri=folder)
    one = run_options(first, began, "own", CatalogConfig())
    other = run_options(second, goes_on, "own", CatalogConfig())
    assert (one.submission, other.submission) == ("batch_1", "batch_2")
    assert other == one.model_copy(update={"submission": "batch_2"})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"retry_of": "a", "input_file_id": "b"},
        {"retry_of": "a", "preset": "high"},
        {"retry_of": "a", "dry_run": True},
        {"retry_of": "a", "output_prefix": "s3://bucket/b"},
    ],
)
def test_a_batch_is_of_one_thing_and_a_retry_changes_no_row(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreateBatch(**fields)


def test_a_retry_may_be_given_more_time_and_failures() -> None:
    create = CreateBatch(
        retry_of="a", retry_failed=True, max_failures="9%", completion_window="2d", metadata={}
    )
    assert create.of_the_run() == {"retry_failed": True, "max_failures": "9%"}


def test_every_parameter_of_a_run_is_one_that_runs_know() -> None:
    create = CreateBatch(
        input_uri="s3://bucket/a.csv", preset="p", seed=3, limit=2, min_score=0.5, retry_failed=True
    )
    assert create.of_the_run() == {
        "preset": "p",
        "seed": 3,
        "limit": 2,
        "min_score": 0.5,
        "retry_failed": True,
    }


def test_the_rows_of_unfinished_batches_are_what_remains(batches: SqlBatches) -> None:
    assert batches.rows_remaining() == 0
    made(batches, "a")
    first = claimed(batches)
    batches.look_again(replace(first, counts=Counts(10, 3, 2)), 100.0)
    made(batches, "b")
    batches.end(replace(claimed(batches), counts=Counts(7, 1, 0), status=BatchStatus.CANCELLED))
    assert batches.rows_remaining() == 5
