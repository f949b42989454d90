"""What callers may take of a server's memory, and of a tenant's share, whatever way they find."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from serve.edge.limits import Limits
from storage.lifecycle.collector import Collector
from storage.object_store import ObjectStoreConfig
from storage.tenants import Quota
from tests.integration.service import Service, error_of, jpeg, photo_pool


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


BIG = jpeg(3000, 3000, quality=100)


def held_bytes(service: Service) -> int:
    return service.memory.held_bytes


@contextmanager
def decoders_stopped() -> Iterator[None]:
    """Whoever needs one waits, his photo in his hand."""
    pids = photo_pool().pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_photos_by_file_id_share_the_budget_of_bodies(
    s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    room = 3 * len(BIG) + len(BIG) // 2
    limits = Limits(max_body_bytes_at_once=room, max_body_bytes=room)
    service = Service(s3, tmp_path, limits=limits)
    with service.http as http, ThreadPoolExecutor(8) as threads:
        photo = {"file": ("a.jpg", BIG)}
        file_id = http.post("/v1/files", data={"purpose": "vision"}, files=photo).json()["id"]
        assert held_bytes(service) == 0

        def create(seed: int) -> Any:
            reference = {"file_id": file_id}
            body = {"prompt": "a mug turns", "input_reference": reference, "seed": seed}
            return http.post("/v1/videos", json=body)

        with decoders_stopped():
            answers = [threads.submit(create, seed) for seed in range(8)]
            refused = list(islice(as_completed(answers), 5))
            assert 3 * len(BIG) <= held_bytes(service) <= room
        for answer in refused:
            response = answer.result()
            assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
            assert response.headers["retry-after"] == "1"
        assert sorted(answer.result().status_code for answer in answers) == 3 * [202] + 5 * [503]
        assert held_bytes(service) == 0
        assert create(9).status_code == 202


def test_what_is_sent_counts_too_and_is_given_back(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    limits = Limits(max_body_bytes_at_once=100_000)
    service = Service(s3, tmp_path, limits=limits)
    with service.http as http:
        video_id = service.create().json()["id"]
        service.finish(video_id, bytes(100_001))
        path = f"/v1/videos/{video_id}/content"
        whole = http.get(path)
        assert (whole.status_code, error_of(whole)["code"]) == (503, "overloaded")
        for _ in range(5):
            part = http.get(path, headers={"Range": "bytes=0-99999"})
            assert (part.status_code, len(part.content)) == (206, 100_000)
        assert http.head(path).headers["content-length"] == "100001"
    assert held_bytes(service) == 0


def test_a_body_is_given_back_whatever_the_answer(service: Service) -> None:
    media_type = {"Content-Type": "application/json"}
    for body, status in ((b"{not json", 400), (b"x" * (33 << 20), 413)):
        answer = service.http.post("/v1/videos", content=body, headers=media_type)
        assert answer.status_code == status
    assert service.create(preset="none").status_code == 400
    assert held_bytes(service) == 0


# --- keys that are gone


def test_a_key_that_outlives_a_purge_leaves_nothing(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    shops = Service(s3, tmp_path, auth=True)
    key = shops.key("shop")
    with shops.http as http:
        assert shops.create(headers=key).status_code == 202
        collector = Collector(shops.jobs, shops.objects, shops.config.retention)
        collector.purge_tenant("shop")
        photo = {"file": ("a.jpg", jpeg())}
        late = (
            shops.create(headers=key),  # the replica remembers the key for 5 s
            http.post("/v1/files", headers=key, data={"purpose": "vision"}, files=photo),
        )
        assert http.get("/v1/videos", headers=key).json()["data"] == []
        for response in late:
            assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        assert http.get("/v1/files", headers=key).json()["data"] == []
    assert not any(
        number
        for kind, number in collector.purge_tenant("shop").deleted.items()
        if kind != "inputs"  # a photo that nothing refers to: garbage, collected in its time
    )
    collector.close()


def test_deleting_jobs_makes_no_room_for_creations(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    shops = Service(s3, tmp_path, auth=True)
    key = shops.key("busy", Quota(creates_per_minute=3))
    with shops.http as http:
        for _ in range(2):
            video_id = shops.create(headers=key).json()["id"]
            assert http.delete(f"/v1/videos/{video_id}", headers=key).status_code == 200
        shops.finish(shops.create(headers=key, seed="7").json()["id"], b"mp4")
        for seed in ("7", "8"):  # the first of them costs no GPU time: its result is there
            refused = shops.create(headers=key, seed=seed)
            assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
            assert 30 <= int(refused.headers["retry-after"]) <= 60
