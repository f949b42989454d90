"""How answers keep to HTTP: repeats, HEAD, what may be stored, streams that outlive their key."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve.services.events import Pace
from storage.jobs import JobStatus
from storage.object_store import ObjectStoreConfig
from storage.tenants import SqlTenants
from tests.integration.service import Service, error_of, jpeg


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


@pytest.fixture
def shops(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    """A service that asks for keys."""
    service = Service(s3, tmp_path, auth=True)
    with service.http:
        yield service


def upload(service: Service, key: str | None, photo: bytes, name: str = "mug.jpg") -> Any:
    once = {} if key is None else {"Idempotency-Key": key}
    form = {"purpose": "vision"}
    return service.http.post("/v1/files", headers=once, data=form, files={"file": (name, photo)})


def test_an_upload_is_repeated_under_its_key_and_two_without_are_two(service: Service) -> None:
    first, again = (upload(service, "photo-1", jpeg()) for _ in range(2))
    assert first.json() == again.json()
    replayed = [answer.headers.get("idempotency-replayed") for answer in (first, again)]
    assert replayed == [None, "true"]
    others = {upload(service, key, jpeg()).json()["id"] for key in ("photo-2", None, None)}
    assert len(others | {first.json()["id"]}) == 4
    assert len(service.http.get("/v1/files").json()["data"]) == 4


@pytest.mark.parametrize("changed", [{"photo": jpeg(320, 320)}, {"name": "cup.jpg"}])
def test_another_upload_under_a_key_is_409(service: Service, changed: dict[str, Any]) -> None:
    first = upload(service, "photo-1", jpeg()).json()
    refused = upload(service, "photo-1", **{"photo": jpeg()} | changed)
    assert (refused.status_code, error_of(refused)["code"]) == (409, "idempotency_conflict")
    assert service.http.get("/v1/files").json()["data"] == [first]


def test_uploads_under_one_key_at_once_are_one_file(service: Service) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: upload(service, "photo-1", jpeg()), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    (file,) = service.http.get("/v1/files").json()["data"]
    assert {answer.json()["id"] for answer in answers} == {file["id"]}


def test_a_key_of_one_tenant_says_nothing_to_another(shops: Service) -> None:
    ids = set()
    for tenant in ("shop-a", "shop-b"):
        headers = shops.key(tenant) | {"Idempotency-Key": "photo-1"}
        answer = shops.http.post(
            "/v1/files", headers=headers, data={"purpose": "vision"}, files={"file": jpeg()}
        )
        ids.add(answer.json()["id"])
    assert len(ids) == 2


# --- HEAD, and what is sent elsewhere


def test_head_is_get_without_content(service: Service) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"0123456789")
    file_id = upload(service, None, jpeg()).json()["id"]
    content = f"/v1/videos/{video_id}/content"
    for path, headers in (
        (content, {}),
        (content, {"Range": "bytes=2-4"}),
        (content, {"Range": "bytes=90-"}),
        (f"{content}?variant=manifest", {}),
        (f"/v1/files/{file_id}/content", {}),
        (f"/v1/videos/{video_id}", {}),
        ("/v1/videos", {}),
        ("/v1/models", {}),
        ("/v1/cluster", {}),
        ("/healthz", {}),
        ("/readyz", {}),
        ("/openapi.json", {}),
        ("/v1/videos/video_nope", {}),
        (f"/v1/videos/{video_id}/events", {}),
    ):
        got = service.http.get(path, headers=headers)
        head = service.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        told = [dict(answer.headers) for answer in (got, head)]
        for answer in told:
            del answer["x-request-id"]
        assert told[0] == told[1], path


def test_head_reads_no_content(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"0123456789")
    file_id = upload(service, None, jpeg()).json()["id"]
    monkeypatch.setattr(type(service.objects), "_read", None)
    for path in (f"/v1/videos/{video_id}/content", f"/v1/files/{file_id}/content"):
        head = service.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert service.http.head("/v1/videos/video_nope/events").status_code == 404


def test_a_url_that_expires_is_not_kept(service: Service) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"mp4")
    path = f"/v1/videos/{video_id}/content?redirect=1"
    response = service.http.get(path, follow_redirects=False)
    assert (response.status_code, response.headers["cache-control"]) == (302, "no-store")


# --- event streams


def test_a_stream_ends_when_its_key_is_revoked(
    shops: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.services.videos.PACE", Pace(refresh_s=0.2, check_s=0.5))
    key = shops.key("shop-a")
    video_id = shops.create(headers=key).json()["id"]
    tenants = SqlTenants(shops.jobs.database)
    (issued,) = tenants.keys("shop-a")

    def revoke_once_it_listens() -> None:
        while not (topic := shops.videos.watch._topics.get(video_id)) or not topic.job:
            time.sleep(0.01)
        tenants.revoke(issued.id)

    revoking = threading.Thread(target=revoke_once_it_listens)
    revoking.start()
    events = shops.http.get(f"/v1/videos/{video_id}/events", headers=key)  # until it ends
    revoking.join()
    assert "queued" in events.text
    assert shops.jobs.get("shop-a", video_id).status is JobStatus.QUEUED
    assert shops.http.get(f"/v1/videos/{video_id}/events", headers=key).status_code == 401
