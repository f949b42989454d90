"""Whole batches on a cluster: by the official client, and through kills."""

import json
import re
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import httpx2
import psutil
import pytest
from openai import NotFoundError, OpenAI
from pydantic import ValidationError

from catalog.run.options import RunOptions
from storage import keys
from tests.integration.live import ROOT, LiveCluster
from tests.integration.service import jpeg

PHOTO = ROOT / "examples" / "products" / "watch-steel.jpg"


def test_the_openai_client_runs_a_batch_of_its_own_lines(live: LiveCluster) -> None:
    client = OpenAI(base_url=f"{live.url}/v1", api_key="none")
    photo = client.files.create(file=("watch.jpg", PHOTO.read_bytes()), purpose="vision")
    # Two rows of equal seeds, which share a result.
    lines = [request_line(f"watch-{number}", photo.id, seed=number % 4) for number in range(5)]
    lines.append(request_line("nowhere", photo.id, n=101))
    data = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("requests.jsonl", data), purpose="batch")
    assert client.files.content(file.id).read() == data
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/videos",
        completion_window="24h",
        metadata={"season": "winter"},
    )
    client.files.delete(file.id)
    seen = {batch.status}
    deadline = time.monotonic() + 200
    while batch.status not in ("completed", "failed", "cancelled", "expired"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
        seen.add(batch.status)
    assert batch.status == "completed", batch
    assert {"validating", "in_progress", "completed"} <= seen
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 6, "completed": 5, "failed": 1}
    assert batch.metadata == {"season": "winter"}
    assert batch.output_file_id is not None
    assert batch.output_file_id.startswith("s3://")
    assert batch.id in [found.id for found in client.batches.list(limit=1)]
    with httpx2.Client(base_url=live.url) as http:
        items = http.get(f"/v1/batches/{batch.id}/items").json()
        (failed,) = http.get(f"/v1/batches/{batch.id}/items?status=failed").json()["data"]
    assert [item["status"] for item in items["data"]] == ["ok"] * 5 + ["failed"]
    assert failed["sku"] == "nowhere"
    assert failed["error"]["code"] == "bad_n"
    for item in items["data"][:5]:
        assert client.videos.retrieve(item["video_id"]).status == "completed"
    assert client.videos.download_content(items["data"][4]["video_id"]).read()[4:8] == b"ftyp"
    assert client.batches.cancel(batch.id).status == "completed"
    with pytest.raises(NotFoundError):
        client.batches.retrieve("batch_of_nobody")


def test_a_row_that_failed_is_made_again_once_its_photo_is_there(live: LiveCluster) -> None:
    photo = jpeg(300, 200, quality=71)
    address = f"s3://shopreel/{keys.input_key('default', sha256(photo).hexdigest())}"
    manifest = f"sku,image_uri,title\nearly,{address},Mug\nbad,,Mug\n".encode()
    with httpx2.Client(base_url=f"{live.url}/v1", timeout=60) as http, live.client() as client:
        file = upload(http, "batch", "a.csv", manifest)
        fields = {"input_file_id": file["id"], "category": "home", "preset": "preview"}
        first = http.post("/batches", json=fields).json()

        def batch(made: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = http.get(f"/batches/{made['id']}").json()
            return found

        assert http.get(f"/batches/{first['id']}/report").status_code == 409
        wait_until(lambda: batch(first)["status"] in ("completed", "failed"))
        assert batch(first)["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
        assert "image_not_found" in client.batch_report(first["id"])

        upload(http, "vision", "mug.jpg", photo)
        again = http.post("/batches", json={"retry_of": first["id"]}).json()
        wait_until(lambda: batch(again)["status"] in ("completed", "failed"))
        assert batch(again)["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        made, bad = http.get(f"/batches/{again['id']}/items").json()["data"]
        assert (made["status"], bad["error"]["code"]) == ("ok", "missing_image")
        video = client.get(made["video_id"])
        assert (video["preset"], video["category"]) == ("preview", "home")
        assert video["batch_id"] == again["run_id"]
        report = client.batch_report(again["id"])
        assert "image_not_found" not in report
        (clip,) = set(re.findall(r'href="\./(videos/[^"]+)"', report))
        assert http.get(f"/batches/{again['id']}/{clip}").content[4:8] == b"ftyp"


def test_neither_a_killed_housekeeper_nor_a_killed_driver_loses_a_batch(live: LiveCluster) -> None:
    rows = 6
    with httpx2.Client(base_url=f"{live.url}/v1", timeout=60) as http:
        lines = []
        for number in range(rows):
            file = upload(http, "vision", "a.jpg", jpeg(300, 200, quality=40 + number))
            lines.append(request_line(f"mug-{number}", file["id"]))
        file = upload(http, "batch", "a.jsonl", "\n".join(map(json.dumps, lines)).encode())
        made = http.post("/batches", json={"input_file_id": file["id"]}).json()
        live.replica("Housekeeper").kill()

        def batch() -> dict[str, Any]:
            found: dict[str, Any] = http.get(f"/batches/{made['id']}").json()
            return found

        wait_until(lambda: batch()["status"] == "in_progress")
        (killed,) = drivers_of(made["run_id"])
        killed.kill()
        wait_until(lambda: any(d.pid != killed.pid for d in drivers_of(made["run_id"])))
        wait_until(lambda: batch()["status"] in ("completed", "failed"))
        assert batch()["status"] == "completed", batch()
        counts = {"total": rows, "completed": rows, "failed": 0}
        assert batch()["request_counts"] == counts
        videos = http.get("/videos", params={"batch_id": made["run_id"], "limit": 100}).json()
        assert len(videos["data"]) == rows  # no job was made twice


def upload(http: httpx2.Client, purpose: str, name: str, data: bytes) -> dict[str, Any]:
    answer = http.post("/files", data={"purpose": purpose}, files={"file": (name, data)})
    assert answer.status_code == 200, answer.text
    file: dict[str, Any] = answer.json()
    return file


def request_line(custom_id: str, file_id: str, **body: Any) -> dict[str, Any]:
    given = {"prompt": "a mug turns", "input_reference": {"file_id": file_id}, "preset": "preview"}
    whole = {"custom_id": custom_id, "method": "POST", "url": "/v1/videos"}
    return whole | {"body": given | body}


def drivers_of(run_id: str) -> list[psutil.Process]:
    """Not the shell around it."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "serve.catalog_driver" in " ".join(process.info["cmdline"] or ())
        and run_id_of(process) == run_id
    ]


def run_id_of(process: psutil.Process) -> str:
    """By its last argument, the options as JSON; empty where that is none."""
    try:
        return RunOptions.model_validate_json(process.info["cmdline"][-1]).run_id
    except ValidationError:
        return ""


def wait_until(holds: Callable[[], bool], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
