"""The HTTP API over the real stores; the Dispatcher alone is away, so jobs stay as put."""

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import pytest
from openai import OpenAI
from PIL import Image
from starlette.testclient import TestClient

from cluster.tiers import TierConfig
from diffusion.model_folder import ModelCard, ModelConfig
from serve.config import AppConfig
from serve.http_api import create_app
from serve.videos import Videos
from storage import keys
from storage.job_store import JobStoreConfig, Progress, SqlJobStore
from storage.jobs import Job, Stage, VideoFile
from storage.object_store import ObjectStoreConfig, S3ObjectStore

CARD = ModelCard("tiny-random", "0" * 64, size_multiple=16)


def jpeg(width: int = 640, height: int = 480, **save: Any) -> bytes:
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(stream, "JPEG", **save)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb's outside."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", compress(bytes(1 << 20)))


class Service:
    """The API in process, with its stores at hand."""

    def __init__(self, s3: ObjectStoreConfig, folder: Path):
        config = AppConfig(
            model=ModelConfig(source="tiny"),
            object_store=s3,
            job_store=JobStoreConfig(url=f"sqlite:///{folder / 'jobs.sqlite'}"),
            tiers=(TierConfig(name="cpu"),),
        )
        assert config.job_store is not None
        self.jobs = SqlJobStore(config.job_store)
        self.objects = S3ObjectStore(s3)
        self.woken = 0
        self.broken: list[str] = []
        app = create_app(
            Videos(config, CARD, self.jobs, self.objects, self._wake, self._dispatcher_broken)
        )
        self.http = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)

    def _wake(self) -> None:
        self.woken += 1

    async def _dispatcher_broken(self) -> list[str]:
        return self.broken

    def create(self, photo: bytes | None = None, **fields: Any) -> Any:
        return self.http.post(
            "/v1/videos",
            data={"prompt": "a mug turns", **fields},
            files={"input_reference": ("photo.jpg", jpeg() if photo is None else photo)},
        )

    def finish(self, video_id: str, video: bytes) -> Job:
        """What the Dispatcher and its stages would do."""
        (job,) = self.jobs.lease(self.jobs.next_epoch(), 1)
        assert job.id == video_id
        attempt = job.current_attempt
        self.objects.put(keys.video_key(attempt), video, "video/mp4")
        self.objects.put(keys.manifest_key(attempt), b'{"seed": 1}', "application/json")
        result = VideoFile(
            result_id=job.request.result_id,
            video_key=keys.video_key(attempt),
            poster_key=keys.poster_key(attempt),
            spritesheet_key=keys.spritesheet_key(attempt),
            manifest_key=keys.manifest_key(attempt),
            sha256="ab" * 32,
            size_bytes=len(video),
            width=640,
            height=480,
            frames=16,
            fps=8.0,
            seconds=2.0,
            timings={"denoising": 1.5},
        )
        return self.jobs.complete(attempt, result)

    def is_untouched(self) -> bool:
        """Nothing stored, no job, nobody woken."""
        return (
            not list(self.objects.iter_objects(""))
            and not self.jobs.list_jobs("default", limit=1, after=None, order="asc")
            and self.woken == 0
        )


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def error_of(response: Any) -> dict[str, Any]:
    (envelope,) = response.json().values()
    assert set(envelope) == {"message", "type", "param", "code"}
    error: dict[str, Any] = envelope
    return error


def test_a_multipart_create_is_stored_before_it_is_accepted(service: Service) -> None:
    response = service.create(seed="7", sku="MUG-1", metadata='{"shop": "eu"}', title="Mug")
    assert response.status_code == 202
    video = response.json()
    assert response.headers["location"] == f"/v1/videos/{video['id']}"
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["seed"], video["sku"], video["metadata"]) == (7, "MUG-1", {"shop": "eu"})
    stored = service.objects.get(keys.request_key(video["id"]))
    assert json.loads(stored)["sampling"]["seed"] == 7
    assert service.objects.get(json.loads(stored)["photo_key"]) == jpeg()
    assert service.woken == 1
    fetched = service.http.get(f"/v1/videos/{video['id']}").json()
    assert fetched == {**video, "queue_position": 0}


def test_the_size_follows_the_photo_and_the_preset(service: Service) -> None:
    width, height = map(int, service.create(jpeg(1200, 900)).json()["size"].split("x"))
    assert width % 16 == height % 16 == 0
    assert abs(width / height - 4 / 3) < 0.05
    assert abs(width * height / 512**2 - 1) < 0.1


def test_an_explicit_size_wins(service: Service) -> None:
    assert service.create(size="320x256").json()["size"] == "320x256"
    assert service.create(width="256", height="320").json()["size"] == "256x320"


def test_a_json_create_takes_a_data_url(service: Service) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    response = service.http.post(
        "/v1/videos",
        json={"prompt": "x", "num_frames": 12, "input_reference": {"image_url": url}},
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
        ({"seed": "-1"}, "seed"),
        ({"preset": "ultra"}, "preset"),
        ({"model": "sora-2"}, "model"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"size": "100x100"}, "size"),
        ({"size": "4096x4096"}, "size"),
        ({"width": "256"}, None),
        ({"size": "256x256", "width": "128", "height": "128"}, None),
        ({"seconds": "9"}, "seconds"),
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
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    body = {"prompt": "x", "input_reference": {"image_url": url}, "stylle": "noir"}
    for response in (
        service.create(stylle="noir"),
        service.http.post("/v1/videos", json=body),
        service.http.get("/v1/videos", params={"stylle": "noir"}),
    ):
        assert response.status_code == 400
        error = error_of(response)
        assert (error["code"], error["param"]) == ("unknown_parameter", "stylle")
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
    (job,) = service.jobs.lease(epoch, 1)
    service.jobs.record_progress([Progress(job.current_attempt, Stage.DENOISING, 25)], epoch)
    video = service.http.get(f"/v1/videos/{video_id}").json()
    assert (video["status"], video["stage"], video["step"]) == ("in_progress", "denoising", 25)
    assert (video["progress"], video["attempt"], video["queue_position"]) == (46, 1, None)


def test_a_failed_job_says_why(service: Service) -> None:
    video_id = service.create().json()["id"]
    (job,) = service.jobs.lease(service.jobs.next_epoch(), 1)
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
    beyond = service.http.get(path, headers={"Range": "bytes=2000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */1024")

    cached = service.http.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert (cached.status_code, cached.content) == (304, b"")
    manifest = service.http.get(path, params={"variant": "manifest"})
    assert manifest.json() == {"seed": 1}
    redirect = service.http.get(path, params={"redirect": "true"}, follow_redirects=False)
    assert redirect.status_code == 302
    assert "X-Amz-Expires=900" in redirect.headers["location"]


def test_lists_page_and_filter(service: Service) -> None:
    ids = [service.create(sku=f"s{n % 2}").json()["id"] for n in range(5)]
    first = service.http.get("/v1/videos", params={"limit": 2, "order": "asc"}).json()
    assert [v["id"] for v in first["data"]] == ids[:2]
    assert first["has_more"] is True
    rest = service.http.get("/v1/videos", params={"after": ids[1], "order": "asc"}).json()
    assert [v["id"] for v in rest["data"]] == ids[2:]
    assert rest["has_more"] is False
    odd = service.http.get("/v1/videos", params={"sku": "s1"}).json()
    assert [v["id"] for v in odd["data"]] == [ids[3], ids[1]]
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


def test_request_ids_are_echoed(service: Service) -> None:
    headers = {"X-Request-Id": "trace-1"}
    assert service.http.get("/healthz", headers=headers).headers["x-request-id"] == "trace-1"
    assert service.http.get("/v1/nope").headers["x-request-id"]


def test_readyz_names_what_is_broken(service: Service) -> None:
    assert service.http.get("/readyz").json() == {"status": "ready", "broken": []}
    service.broken = ["Denoiser-cpu: no replica ready"]
    response = service.http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["broken"] == ["Denoiser-cpu: no replica ready"]


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
        assert {"prompt", "input_reference"} <= set(fields["required"])
