"""A batch that goes on with the run of an earlier one: what it takes over, and what is refused."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus as RayStatus

from catalog.results.row import RowStatus
from storage.object_store import ObjectStoreConfig
from tests.integration.batch_desk import Desk, drive, manifest_of
from tests.integration.service import error_of


@pytest.fixture
def desk(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(s3, tmp_path, max_upload_bytes=1000)
    with desk.service.http:
        yield desk


def ended(desk: Desk, *done: RowStatus, **fields: Any) -> dict[str, Any]:
    """A batch into a folder of its own that has come to its end."""
    made = desk.create(manifest_of(len(done)), **fields)
    desk.look()
    uri = desk.drivers.started[-1].manifest_uri
    drive(desk, made, done, shard_rows=1000, uri=uri)
    desk.drivers.end(RayStatus.SUCCEEDED)
    desk.look()
    found = desk.get(made)
    assert found["status"] == "completed", found
    return found


def test_failed_rows_are_made_again_in_the_folder_that_the_run_has(desk: Desk) -> None:
    told = {"metadata": {"season": "winter"}, "webhook": "https://shop.example/hook"}
    rows = (RowStatus.OK, RowStatus.FAILED)
    first = ended(desk, *rows, preset="preview", category="watch", seed=3, **told)
    desk.ask("DELETE", f"/files/{first['input_file_id']}")  # the run has its own copy
    answer = desk.ask("POST", "/batches", json={"retry_of": first["id"]})
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert again["id"] != first["id"]
    kept = ("run_id", "output_prefix", "input_file_id", "metadata", "preset", "category")
    assert {name: again[name] for name in kept} == {name: first[name] for name in kept}
    assert (first["retry_failed"], again["retry_failed"]) == (False, True)
    assert again["request_counts"] == {"total": 2, "completed": 1, "failed": 0}
    desk.look()
    one, other = desk.drivers.started
    changed = {"retry_failed": True, "submission": again["id"]}
    assert other == one.model_copy(update=changed)
    assert (one.preset, one.category, one.seed) == ("preview", "watch", 3)
    assert desk.get(first)["status"] == "completed"


def test_what_an_earlier_driver_wrote_is_not_taken_for_the_new_ones(desk: Desk) -> None:
    first = ended(desk, RowStatus.OK, RowStatus.FAILED)
    output = desk.output(first)
    progress = {"rows": 2, "done": 2, "ok": 1, "failed": 1, "written_at": time.time()}

    def tell(**changes: Any) -> None:
        data = json.dumps(progress | changes).encode()
        desk.objects.put(output.key("progress.json"), data, "application/json")

    tell()
    again = desk.ask("POST", "/batches", json={"retry_of": first["id"]}).json()
    desk.look()
    assert desk.get(again)["status"] == "validating"
    tell(done=1, failed=0, written_at=time.time() + 1)
    desk.look()
    found = desk.get(again)
    assert found["status"] == "in_progress"
    assert found["request_counts"] == {"total": 2, "completed": 1, "failed": 0}


def test_a_batch_goes_on_with_one_that_went_on_with_another(desk: Desk) -> None:
    first = ended(desk, RowStatus.FAILED)
    second = desk.ask("POST", "/batches", json={"retry_of": first["id"]}).json()
    desk.ask("POST", f"/batches/{second['id']}/cancel")
    desk.look()
    assert desk.get(second)["status"] == "cancelled"
    fields = {"retry_of": second["id"], "max_failures": "50%", "completion_window": "3h"}
    third = desk.ask("POST", "/batches", json=fields).json()
    assert (third["output_prefix"], third["max_failures"]) == (first["output_prefix"], "50%")
    assert third["expires_at"] - third["created_at"] in (10_799, 10_800)
    desk.look()
    assert len({options.manifest_uri for options in desk.drivers.started}) == 1
    assert desk.drivers.started[-1].max_failures == "50%"


def test_a_run_is_not_gone_on_with_twice_at_once(desk: Desk) -> None:
    first = ended(desk, RowStatus.FAILED)
    body, once = {"retry_of": first["id"]}, {"Idempotency-Key": "again"}
    made = desk.ask("POST", "/batches", json=body, headers=once)
    replayed = desk.ask("POST", "/batches", json=body, headers=once)
    assert replayed.json() == made.json()
    taken = desk.ask("POST", "/batches", json=body)
    assert (taken.status_code, error_of(taken)["code"]) == (409, "output_taken")


def test_what_has_nothing_left_to_be_made_is_refused(desk: Desk) -> None:
    complete = ended(desk, RowStatus.OK)
    dry = desk.create(dry_run=True)
    desk.look()
    for batch in (complete, dry):
        refused = desk.ask("POST", "/batches", json={"retry_of": batch["id"]})
        error = error_of(refused)
        assert (refused.status_code, error["code"]) == (409, "nothing_to_retry")
        assert error["param"] == "retry_of"


def test_a_run_of_another_tenant_is_not_gone_on_with(desk: Desk) -> None:
    first = ended(desk, RowStatus.FAILED)
    stolen = desk.ask("POST", "/batches", tenant="rival", json={"retry_of": first["id"]})
    assert (stolen.status_code, error_of(stolen)["code"]) == (404, "batch_not_found")


def test_a_folder_that_may_be_written_no_more_is_not_gone_on_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ended(desk, RowStatus.FAILED, output_prefix=f"s3://{desk.s3.bucket}/made/shop/one")
    body = {"retry_of": first["id"]}
    with monkeypatch.context() as patched:
        patched.setattr(type(desk.config), "outputs_of", lambda *_: ())
        refused = desk.ask("POST", "/batches", json=body)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "output_prefix_not_allowed")
    assert desk.ask("POST", "/batches", json=body).status_code == 202
