"""Callers who send what no honest client sends: refused at little cost, and told nothing."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.services.readiness import Readiness
from storage.errors import StoreUnavailable
from storage.object_store import ObjectStoreConfig
from storage.tenants import Quota
from tests.integration.service import Service, error_of, jpeg

PHOTO = f"data:image/jpeg;base64,{base64.b64encode(jpeg()).decode()}"


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def post(service: Service, body: Any, path: str = "/v1/videos") -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return service.http.post(path, content=text, headers={"Content-Type": "application/json"})


def create_with(**fields: Any) -> dict[str, Any]:
    return {"prompt": "a mug turns", "input_reference": {"image_url": PHOTO}, **fields}


@pytest.mark.parametrize("name", ["model", "preset", "sku", "prompt"])
def test_half_a_character_is_400(service: Service, name: str) -> None:
    response = post(service, create_with(**{name: "\ud800"}))
    assert (response.status_code, error_of(response)["param"]) == (400, name)


def test_half_a_character_in_a_file_id_is_400(service: Service) -> None:
    response = post(service, create_with(input_reference={"file_id": "\ud800"}))
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_parameter")


@pytest.mark.parametrize("charset", ["idna", "undefined", "hex", "no-such-charset"])
def test_a_form_in_an_odd_charset_is_400(service: Service, charset: str) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nxn--\xff..a\r\n--B--\r\n'
    media_type = f"multipart/form-data; boundary=B; charset={charset}"
    response = service.http.post("/v1/videos", content=body, headers={"Content-Type": media_type})
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/videos", create_with(**{f"k{i}": 1 for i in range(300_000)})),
        ("/v1/videos", create_with(metadata={f"k{i}": 1 for i in range(300_000)})),
        ("/v1/videos/x/feedback", {"rating": 1, **{f"k{i}": 1 for i in range(300_000)}}),
    ],
    ids=["fields", "metadata", "feedback"],
)
def test_a_body_of_countless_items_is_refused_before_it_is_read(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    text = json.dumps(body)
    started = time.process_time()
    response = post(service, text, path)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")
    assert time.process_time() - started < 0.5  # s; 2 to 5 where each item becomes an error


def test_a_webhook_url_is_measured_in_bytes(service: Service) -> None:
    response = post(service, create_with(webhook=f"https://hooks.example.com/{'é' * 1020}"))
    assert (response.status_code, error_of(response)["code"]) == (400, "webhook_not_allowed")
    assert "2048 bytes" in error_of(response)["message"]


def test_a_form_field_of_countless_items_is_refused(service: Service) -> None:
    response = service.create(metadata=json.dumps({f"k{i}": 1 for i in range(30_000)}))
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_an_error_does_not_repeat_a_body(service: Service) -> None:
    for fields in ({"x" * 1_000_000: 1}, {"preset": "x" * 1_000_000}):
        response = post(service, create_with(**fields))
        assert response.status_code == 400
        assert len(response.content) < 10_000


def test_a_rating_is_not_read_without_a_key(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    shops = Service(s3, tmp_path, auth=True)
    with shops.http:
        assert post(shops, "{not json", "/v1/videos/x/feedback").status_code == 401


def test_a_rating_is_json(service: Service) -> None:
    path, media_type = "/v1/videos/x/feedback", {"Content-Type": "text/plain"}
    response = service.http.post(path, content='{"rating": 1}', headers=media_type)
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def test_a_path_with_a_slash_too_many_leads_nowhere(service: Service) -> None:
    response = service.http.get(
        "/v1/videos/", headers={"Host": "elsewhere.example"}, follow_redirects=False
    )
    assert (response.status_code, error_of(response)["code"]) == (404, "route_not_found")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/videos", "GET, HEAD, POST"),
        ("/v1/videos/x", "GET, HEAD, DELETE"),
        ("/v1/videos/x/cancel", "POST"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_405_names_every_method_of_the_path(service: Service, path: str, methods: str) -> None:
    response = service.http.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


def test_a_file_that_is_gone_names_no_key_of_the_store(service: Service) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"0123456789")
    response = service.http.get(f"/v1/videos/{video_id}/content?variant=spritesheet")
    assert (response.status_code, error_of(response)["code"]) == (404, "content_not_found")
    assert "attempts/" not in response.text


def test_a_file_name_is_no_text_field(service: Service) -> None:
    response = service.http.post(
        "/v1/files",
        data={"purpose": "vision", "filename": "a.jpg"},
        files={"file": ("b.jpg", jpeg())},
    )
    assert (response.status_code, error_of(response)["code"]) == (400, "unknown_parameter")


def test_an_upload_beyond_the_quota_leaves_nothing(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    shops = Service(s3, tmp_path, auth=True)
    full = shops.key("full", Quota(stored_bytes=10))
    with shops.http as http:
        photo = {"file": ("a.jpg", jpeg())}
        response = http.post("/v1/files", headers=full, data={"purpose": "vision"}, files=photo)
    assert (response.status_code, error_of(response)["code"]) == (429, "quota_exceeded")
    assert list(shops.objects.iter_objects("inputs/")) == []


def test_a_result_that_was_there_has_cost_no_gpu_time(service: Service) -> None:
    service.finish(service.create(seed="7").json()["id"], b"0123456789")
    again = service.create(seed="7").json()
    assert (again["status"], again["usage"], again["timings"]) == (
        "completed",
        {"unet_steps": 0, "gpu_seconds": 0.0, "peak_vram_bytes": None, "cost": 0.0},
        {},
    )


class _Away:
    """A store whose error says where it is."""

    asked = 0

    def queued(self) -> int:
        raise StoreUnavailable("connection to 10.1.2.3 as user shopreel failed [SQL: SELECT 1]")

    def iter_objects(self, _: str) -> Iterator[Any]:
        return iter(())

    async def broken(self) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0.05)
        return []


def test_readyz_tells_no_address_and_asks_once_for_all() -> None:
    async def ask() -> None:
        away = _Away()
        readiness = Readiness(away, away, away.broken)  # type: ignore[arg-type]
        answers = await asyncio.gather(*(readiness.broken() for _ in range(50)))
        assert answers == [["job table: does not answer"]] * 50
        assert away.asked == 1
        await readiness.broken()
        assert away.asked == 2

    asyncio.run(ask())
