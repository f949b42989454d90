"""The HTTP API over the real stores; the Dispatcher alone is away, so jobs stay as put."""

import base64
import json
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from starlette.testclient import TestClient

from cluster.tiers import TierConfig
from serve.app import VideoAPI
from storage import keys
from storage.errors import StorageError, StoreUnavailable
from storage.job_contract import Progress
from storage.job_store import SqlJobStore
from storage.jobs import JobEvent, Stage
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration.service import (
    CARD,
    Service,
    admission,
    error_of,
    jpeg,
    png_header,
)
from tests.sample_jobs import lease_next


def data_url() -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def test_a_multipart_create_is_stored_before_it_is_accepted(service: Service) -> None:
    response = service.create(seed="7", sku="MUG-1", metadata='{"shop": "eu"}', title="Mug")
    assert response.status_code == 202
    video = response.json()
    assert response.headers["location"] == f"/v1/videos/{video['id']}"
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["seed"], video["sku"], video["metadata"]) == (7, "MUG-1", {"shop": "eu"})
    record = json.loads(service.objects.get(keys.request_key(video["id"])))
    assert record["request"]["sampling"]["seed"] == 7
    assert service.objects.get(record["request"]["photo_key"]) == jpeg()
    assert service.woken == 1
    fetched = service.http.get(f"/v1/videos/{video['id']}").json()
    assert fetched == video
    assert fetched["queue_position"] == 0


def test_the_size_follows_the_photo_and_the_preset(service: Service) -> None:
    width, height = map(int, service.create(jpeg(1200, 900)).json()["size"].split("x"))
    assert width % 16 == height % 16 == 0
    assert abs(width / height - 4 / 3) < 0.05
    assert abs(width * height / 512**2 - 1) < 0.1


def test_an_explicit_size_wins(service: Service) -> None:
    assert service.create(size="320x256").json()["size"] == "320x256"
    assert service.create(width="256", height="320").json()["size"] == "256x320"


def test_a_json_create_takes_a_data_url(service: Service) -> None:
    response = service.http.post(
        "/v1/videos",
        json={"prompt": "x", "num_frames": 12, "input_reference": {"image_url": data_url()}},
    )
    assert response.status_code == 202
    assert response.json()["num_frames"] == 12


def test_no_seed_means_a_drawn_one_that_is_told(service: Service) -> None:
    seeds = {service.create().json()["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"num_frames": "7"}, "num_frames"),
        ({"num_frames": "33"}, "num_frames"),
        ({"guidance_scale": "0.5"}, "guidance_scale"),
        ({"guidance_scale": "nan"}, "guidance_scale"),
        ({"guidance_scale": "inf"}, "guidance_scale"),
        ({"seed": "-1"}, "seed"),
        ({"preset": "ultra"}, "preset"),
        ({"model": "sora-2"}, "model"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"size": "100x100"}, "size"),
        ({"size": "4096x4096"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"width": "256"}, None),
        ({"width": "100000", "height": "64"}, "width"),
        ({"width": "9" * 400, "height": "9" * 400}, "width"),
        ({"size": "256x256", "width": "128", "height": "128"}, None),
        ({"seconds": "9"}, "seconds"),
        ({"seconds": "0.001", "num_frames": "8"}, "seconds"),
        ({"seconds": "2", "num_frames": "8", "fps": "8"}, "seconds"),
        ({"fit": "squash"}, "fit"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": "{"}, "metadata"),
    ],
)
def test_a_bad_value_is_400_and_leaves_nothing(
    service: Service, fields: dict[str, Any], param: str | None
) -> None:
    response = service.create(**fields)
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert service.is_untouched()


def test_unknown_fields_are_refused_everywhere(service: Service) -> None:
    body = {"prompt": "x", "input_reference": {"image_url": data_url()}, "stylle": "noir"}
    for response in (
        service.create(stylle="noir"),
        service.http.post("/v1/videos", json=body),
        service.http.get("/v1/videos", params={"stylle": "noir"}),
    ):
        assert response.status_code == 400
        error = error_of(response)
        assert (error["code"], error["param"]) == ("unknown_parameter", "stylle")
    assert error_of(service.create(header="noir"))["param"] == "header"
    assert service.is_untouched()


@pytest.mark.parametrize(
    ("photo", "status", "code"),
    [
        (b"", 422, "image_undecodable"),
        (b"%PDF-1.4", 415, "image_unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "image_unsupported"),
        (jpeg()[:2000], 422, "image_undecodable"),
        (jpeg(1, 1), 422, "image_too_small"),
        (jpeg(64, 3000), 422, "image_too_large"),
        (png_header(60000, 60000), 422, "image_too_large"),
    ],
    ids=["empty", "pdf", "svg", "truncated", "1x1", "extreme aspect", "bomb"],
)
def test_a_bad_photo_is_refused_and_leaves_nothing(
    service: Service, photo: bytes, status: int, code: str
) -> None:
    response = service.create(photo)
    assert response.status_code == status, response.text
    error = error_of(response)
    assert (error["code"], error["param"]) == (code, "input_reference")
    assert service.is_untouched()
    assert service.http.get("/healthz").status_code == 200


def test_a_missing_photo_or_an_odd_body_is_refused(service: Service) -> None:
    missing = service.http.post("/v1/videos", files={"prompt": (None, "x")})
    assert (missing.status_code, error_of(missing)["code"]) == (400, "missing_parameter")
    text = service.http.post("/v1/videos", content="x", headers={"content-type": "text/plain"})
    assert (text.status_code, error_of(text)["code"]) == (415, "unsupported_media_type")
    broken = service.http.post(
        "/v1/videos", content="{", headers={"content-type": "application/json"}
    )
    assert (broken.status_code, error_of(broken)["code"]) == (400, "invalid_json")
    fetch = service.http.post(
        "/v1/videos",
        json={"prompt": "x", "input_reference": {"image_url": "http://169.254.169.254/"}},
    )
    assert (fetch.status_code, error_of(fetch)["code"]) == (400, "fetch_blocked")
    assert service.is_untouched()


def test_a_body_above_the_cap_is_413(service: Service) -> None:
    response = service.create(b"\xff\xd8\xff" + bytes(33 << 20))
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert service.is_untouched()


def test_hostile_names_never_become_keys(service: Service) -> None:
    hostile = "../../etc/passwd"
    response = service.http.post(
        "/v1/videos",
        data={"prompt": "x", "sku": hostile},
        files={"input_reference": ("../../../x\x00.jpg", jpeg())},
    )
    assert response.status_code == 202
    stored = [info.key for info in service.objects.iter_objects("")]
    assert len(stored) == 2
    assert all(".." not in key and "passwd" not in key for key in stored)
    assert response.json()["sku"] == hostile


def test_progress_is_told_while_it_runs(service: Service) -> None:
    video_id = service.create().json()["id"]
    epoch = service.jobs.next_epoch()
    (job,) = lease_next(service.jobs, epoch, 1)
    service.jobs.record_progress([Progress(job.current_attempt, Stage.DENOISING, 25)], epoch)
    video = service.http.get(f"/v1/videos/{video_id}").json()
    assert (video["status"], video["stage"], video["step"]) == ("in_progress", "denoising", 25)
    assert (video["progress"], video["attempt"], video["queue_position"]) == (46, 1, None)


def test_what_no_card_can_make_is_refused_with_what_can(service: Service) -> None:
    tiers = (TierConfig(name="small", num_gpus=1, vram_gb=6),)
    assert service.config.object_store is not None
    api = Service(service.config.object_store, service.folder, tiers=tiers)
    large: dict[str, Any] = {"size": "1280x704", "num_frames": 24}
    refused = api.create(**large)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("does_not_fit", "size")
    assert "the largest of this shape that fits is 768x448, 24 frames" in error["message"]
    assert not list(api.objects.iter_objects(""))
    assert api.create(**large, downgrade="auto").status_code == 202
    assert api.create(size="768x448", num_frames=24).status_code == 202


def test_downgrades_and_the_tier_are_told(service: Service) -> None:
    created = service.create(downgrade="auto", priority="batch", deadline_s=60).json()
    assert (created["priority"], created["downgrades"], created["tier"]) == ("batch", [], None)
    epoch = service.jobs.next_epoch()
    (job,) = lease_next(service.jobs, epoch, 1)
    assert job.request.deadline_at is not None
    assert 0 < job.request.deadline_at - job.created_at <= 61
    events = (JobEvent(1.0, "solo_rows", "out of memory"), JobEvent(2.0, "resumed", "at 3"))
    progress = Progress(job.current_attempt, Stage.DENOISING, 25, events)
    service.jobs.record_progress([progress], epoch)
    video = service.http.get(f"/v1/videos/{created['id']}").json()
    assert video["downgrades"] == [{"step": "solo_rows", "detail": "out of memory"}]
    assert video["tier"] == "cpu"


def test_a_failed_job_says_why(service: Service) -> None:
    video_id = service.create().json()["id"]
    (job,) = lease_next(service.jobs, service.jobs.next_epoch(), 1)
    service.jobs.fail(job.current_attempt, "encode_failed", "odd size")
    video = service.http.get(f"/v1/videos/{video_id}").json()
    assert video["status"] == "failed"
    assert video["error"] == {"code": "encode_failed", "message": "odd size"}


def test_content_has_ranges_and_etags(service: Service) -> None:
    video_id = service.create().json()["id"]
    path = f"/v1/videos/{video_id}/content"
    early = service.http.get(path)
    assert (early.status_code, error_of(early)["code"]) == (409, "not_ready")

    data = bytes(range(256)) * 4
    service.finish(video_id, data)
    whole = service.http.get(path)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["etag"] == f'"{"ab" * 32}"'
    assert whole.headers["content-disposition"].endswith('.mp4"')

    for header, first, last in (
        ("bytes=0-9", 0, 9),
        ("bytes=1000-", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=1000-5000", 1000, 1023),
    ):
        part = service.http.get(path, headers={"Range": header})
        assert part.status_code == 206
        assert part.content == data[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/1024"
    for header in ("bytes=2000-", "bytes=1024-", "bytes=-0"):
        beyond = service.http.get(path, headers={"Range": header})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */1024")
    for header in ("bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=0-9", f"bytes={'9' * 5000}-"):
        ignored = service.http.get(path, headers={"Range": header})
        assert (ignored.status_code, ignored.content) == (200, data)

    for known in (whole.headers["etag"], f'W/"x", {whole.headers["etag"]}', "*"):
        cached = service.http.get(path, headers={"If-None-Match": known})
        assert (cached.status_code, cached.content) == (304, b"")
    manifest = service.http.get(path, params={"variant": "manifest"})
    assert manifest.json() == {"seed": 1}
    tail = {"Range": "bytes=-2"}
    part = service.http.get(path, params={"variant": "manifest"}, headers=tail)
    assert (part.content, part.headers["content-range"]) == (b"1}", "bytes 9-10/11")
    missing = service.http.get(path, params={"variant": "thumbnail"}, headers=tail)
    assert (missing.status_code, error_of(missing)["code"]) == (404, "content_not_found")
    redirect = service.http.get(path, params={"redirect": "true"}, follow_redirects=False)
    assert redirect.status_code == 302
    assert "X-Amz-Expires=900" in redirect.headers["location"]


def test_a_range_loads_no_more_than_it_sends(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, bytes(1024))
    asked = []

    def get_range(_: S3ObjectStore, key: str, start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return bytes(stop - start)

    for name in ("get", "stat"):
        monkeypatch.delattr(S3ObjectStore, name)
    monkeypatch.setattr(S3ObjectStore, "get_range", get_range)
    response = service.http.get(f"/v1/videos/{video_id}/content", headers={"Range": "bytes=9-10"})
    assert (response.status_code, asked) == (206, [(9, 11)])


def test_a_video_has_a_weak_etag_that_changes_with_it(service: Service) -> None:
    path = f"/v1/videos/{service.create().json()['id']}"
    first = service.http.get(path)
    assert first.headers["etag"].startswith('W/"')
    headers = {"If-None-Match": first.headers["etag"]}
    same = service.http.get(path, headers=headers)
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    assert same.headers["openai-poll-after-ms"]
    lease_next(service.jobs, service.jobs.next_epoch(), 1)
    changed = service.http.get(path, headers=headers)
    assert (changed.status_code, changed.json()["status"]) == (200, "in_progress")
    assert changed.headers["etag"] != first.headers["etag"]


def test_frames_and_rate_mean_what_they_mean_in_the_request(service: Service) -> None:
    video = service.create(num_frames="10", fps="8", enable_frame_interpolation="true").json()
    assert (video["num_frames"], video["fps"]) == (10, 8)
    assert (video["output_num_frames"], video["output_fps"]) == (28, 24)


def test_warnings_about_the_photo_are_told(service: Service) -> None:
    created = service.create(jpeg(320, 240)).json()
    assert "320x240 px" in created["warnings"][0]
    assert service.http.get(f"/v1/videos/{created['id']}").json()["warnings"] == created["warnings"]
    prompt = "a mug turns slowly to the left, soft light"
    assert service.create(jpeg(800, 600), prompt=prompt).json()["warnings"] == []


def test_a_repeat_with_the_same_key_and_body_is_one_job(service: Service) -> None:
    first = service.create(key="order 1", sku="MUG-1", title="Mug")
    assert "idempotency-replayed" not in first.headers
    # Another boundary and another order of the fields, as a retry may have.
    again = service.create(key="order 1", title="Mug", sku="MUG-1")
    assert again.status_code == 202
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    stored = [info.key for info in service.objects.iter_objects("jobs/")]
    assert stored == [keys.request_key(first.json()["id"])]
    record = json.loads(service.objects.get(stored[0]))
    assert record["request"]["sampling"]["seed"] == first.json()["seed"]
    assert service.create(key="order 2", sku="MUG-1", title="Mug").json()["id"] != stored[0]


def test_a_json_body_is_repeated_byte_by_byte(service: Service) -> None:
    body = {"prompt": "x", "input_reference": {"image_url": data_url()}}
    headers = {"Idempotency-Key": "k"}
    first = service.http.post("/v1/videos", json=body, headers=headers)
    again = service.http.post("/v1/videos", json=body, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = service.http.post("/v1/videos", json=body | {"seed": 1}, headers=headers)
    assert (other.status_code, error_of(other)["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("change", [{"title": "Cup"}, {"photo": jpeg(600, 480)}, {"seed": "1"}])
def test_a_key_with_another_body_is_a_conflict(service: Service, change: dict[str, Any]) -> None:
    first = service.create(key="k", title="Mug").json()
    response = service.create(**{"key": "k", "title": "Mug", **change})
    assert response.status_code == 409
    error = error_of(response)
    assert (error["type"], error["code"]) == ("conflict_error", "idempotency_conflict")
    assert [info.key for info in service.objects.iter_objects("jobs/")] == [
        keys.request_key(first["id"])
    ]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "tab\tin it"])
def test_a_key_is_printable_ascii(service: Service, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = service.http.post("/v1/videos", files={"prompt": (None, "x")}, headers=headers)
    assert response.status_code == 400
    assert error_of(response)["param"] == "idempotency-key"
    assert service.is_untouched()


def test_many_creates_at_once_with_one_key_are_one_job(service: Service) -> None:
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda _: service.create(key="k"), range(20)))
    assert {response.status_code for response in responses} == {202}
    (video_id,) = {response.json()["id"] for response in responses}
    assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
    assert [job.id for job in service.jobs.list_jobs("default", limit=9)] == [video_id]
    stored = [info.key for info in service.objects.iter_objects("jobs/")]
    assert stored == [keys.request_key(video_id)]


def test_lists_page_and_filter(service: Service) -> None:
    categories = ("home", "watch", "home", "home", "home")
    ids = [
        service.create(sku=f"s{n % 2}", category=category).json()["id"]
        for n, category in enumerate(categories)
    ]
    first = service.http.get("/v1/videos", params={"limit": 2, "order": "asc"}).json()
    assert [v["id"] for v in first["data"]] == ids[:2]
    assert first["has_more"] is True
    rest = service.http.get("/v1/videos", params={"after": ids[1], "order": "asc"}).json()
    assert [v["id"] for v in rest["data"]] == ids[2:]
    assert rest["has_more"] is False
    odd = service.http.get("/v1/videos", params={"sku": "s1"}).json()
    assert [v["id"] for v in odd["data"]] == [ids[3], ids[1]]
    watches = service.http.get("/v1/videos", params={"category": "watch"}).json()
    assert [v["id"] for v in watches["data"]] == [ids[1]]
    none = service.http.get("/v1/videos", params={"status": "completed"}).json()
    assert none == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
    }  # fmt: skip


def test_unknown_ids_routes_and_methods_have_envelopes(service: Service) -> None:
    for path in ("/v1/videos/video_nope", "/v1/videos/video_nope/content"):
        response = service.http.get(path)
        assert (response.status_code, error_of(response)["code"]) == (404, "video_not_found")
    route = service.http.get("/v1/nope")
    assert (route.status_code, error_of(route)["type"]) == (404, "not_found_error")
    method = service.http.put("/v1/videos")
    assert (method.status_code, error_of(method)["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"]


def test_every_answer_carries_a_request_id(service: Service) -> None:
    service.http.headers["X-Request-Id"] = "trace-1"
    for response, status in (
        (service.http.get("/healthz"), 200),
        (service.http.get("/v1/nope"), 404),
        (service.http.get("/v1/videos/video_nope"), 404),
        (service.http.get("/v1/videos", params={"limit": 0}), 400),
        (service.create(b"%PDF-1.4"), 415),
        (service.create(jpeg(1, 1)), 422),
        (service.create(b"\xff\xd8\xff" + bytes(33 << 20)), 413),
    ):
        assert response.status_code == status
        assert response.headers.get_list("x-request-id") == ["trace-1"]
    del service.http.headers["X-Request-Id"]
    assert len(service.http.get("/healthz").headers["x-request-id"]) == 32


def test_a_store_that_is_away_is_503_and_no_failure_of_ours(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("the job table is locked")

    monkeypatch.setattr(SqlJobStore, "get", away)
    response = service.http.get("/v1/videos/video_1")
    assert (response.status_code, error_of(response)["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-request-id"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("error", [RuntimeError("secret"), StorageError("secret")])
def test_an_unexpected_error_is_500_with_an_id_and_logged_once(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(SqlJobStore, "get", fail)
    response = service.http.get("/v1/videos/video_1", headers={"X-Request-Id": "trace-2"})
    assert (response.status_code, error_of(response)["code"]) == (500, "internal")
    assert response.headers["x-request-id"] == "trace-2"
    assert "secret" not in response.text
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert "trace-2" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_readyz_names_what_is_broken(service: Service) -> None:
    assert service.http.get("/readyz").json() == {"status": "ready", "broken": []}
    service.broken = ["Denoiser-cpu: no replica ready"]
    response = service.http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["broken"] == ["Denoiser-cpu: no replica ready"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bucket": "never-made"}, "NoSuchBucket"),
        ({"secret_key": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
def test_readyz_names_a_missing_bucket_and_a_wrong_key(
    s3: ObjectStoreConfig, tmp_path: Path, change: dict[str, str], named: str
) -> None:
    broken = ObjectStoreConfig.model_validate(
        s3.model_dump() | {"secret_key": s3.secret_key.get_secret_value()} | change
    )
    with Service(broken, tmp_path).http as http:
        (problem,) = http.get("/readyz").json()["broken"]
    assert problem.startswith("object store: ")
    assert named in problem


def test_readyz_waits_for_no_store_that_hangs(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hanging = s3.model_copy(update={"endpoint": f"127.0.0.1:{port}", "retries": 0})
        service = Service(hanging, tmp_path)
        service.broken = ["Denoiser-cpu: no replica ready"]
        with service.http as http:
            expected = ["object store: no answer in 3 s", *service.broken]
            assert http.get("/readyz").json()["broken"] == expected
            silent.close()  # lets the thread that still asks go


class _Dispatcher:
    """A handle whose every call ends in `error`, at once or when awaited."""

    def __init__(self, error: Exception, at_once: bool):
        self.not_ready = self
        self._error, self._at_once = error, at_once

    def remote(self) -> Any:
        if self._at_once:
            raise self._error
        return self._failing()

    async def _failing(self) -> None:
        raise self._error


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [RayError("gone"), RayServeException("gone")])
def test_a_dispatcher_that_cannot_be_asked_is_a_broken_part(
    service: Service, error: Exception, at_once: bool
) -> None:
    dispatcher = _Dispatcher(error, at_once)
    api = VideoAPI(service.config, CARD, admission(service.config), dispatcher, None, None)
    with TestClient(api.__serve_build_asgi_app__(), base_url="http://127.0.0.1") as http:
        response = http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["broken"] == [f"Dispatcher: cannot be asked ({type(error).__name__})"]


def test_the_openai_client_creates_retrieves_lists_and_downloads(service: Service) -> None:
    client = OpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=service.http)
    created = client.videos.create(
        prompt="a mug turns", input_reference=("photo.jpg", jpeg()), seconds="4"
    )
    assert (created.status, created.seconds) == ("queued", "4")
    service.finish(created.id, b"mp4")
    assert client.videos.retrieve(created.id).status == "completed"
    assert client.videos.poll(created.id).status == "completed"
    assert [video.id for video in client.videos.list()] == [created.id]
    assert client.videos.download_content(created.id).read() == b"mp4"


def test_the_description_knows_both_bodies(service: Service) -> None:
    schema = service.http.get("/openapi.json").json()
    content = schema["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    names = {kind: body["schema"]["$ref"].rpartition("/")[2] for kind, body in content.items()}
    assert set(names) == {"multipart/form-data", "application/json"}
    for name in names.values():
        fields = schema["components"]["schemas"][name]
        assert fields["additionalProperties"] is False
        assert fields["required"] == ["input_reference"]
        assert {"required": ["prompt"]} in fields["anyOf"]
    parameters = {p["name"]: p for p in schema["paths"]["/v1/videos"]["post"]["parameters"]}
    header = parameters["idempotency-key"]
    assert (header["in"], header["required"]) == ("header", False)
    assert "409" in header["description"]
