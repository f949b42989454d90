"""What a caller can do with a job besides creating it, over the real stores in process."""

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from cluster.eta import FACT, Snapshot, TierState, Work
from diffusion.params import Priority
from storage import keys
from storage.facts import SqlFacts
from storage.job_contract import Progress
from storage.jobs import Stage
from storage.lifecycle.collector import Collector
from storage.object_store import ObjectStoreConfig
from storage.tenants import Quota
from tests.integration.service import Service, error_of, jpeg
from tests.sample_jobs import lease_next


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


def tidy(service: Service) -> None:
    """What the Housekeeper does every few seconds."""
    collector = Collector(service.jobs, service.objects, service.config.retention)
    collector.finish_purges()
    collector.close()


# --- cancel and delete


def test_a_queued_job_is_cancelled_and_stays_so(service: Service) -> None:
    video_id = service.create().json()["id"]
    for _ in range(2):
        cancelled = service.http.post(f"/v1/videos/{video_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert service.stopped == [video_id, video_id]
    assert lease_next(service.jobs, service.jobs.next_epoch(), 1) == []


def test_a_cancel_after_the_end_changes_nothing(service: Service) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"mp4")
    assert service.http.post(f"/v1/videos/{video_id}/cancel").json()["status"] == "completed"
    assert service.stopped == []


def test_cancel_and_delete_of_nothing_are_404(service: Service) -> None:
    for response in (
        service.http.post("/v1/videos/video_nope/cancel"),
        service.http.delete("/v1/videos/video_nope"),
    ):
        assert (response.status_code, error_of(response)["code"]) == (404, "video_not_found")


def test_delete_stops_the_work_and_leaves_no_object(service: Service) -> None:
    video_id = service.create().json()["id"]
    service.finish(video_id, b"mp4")
    deleted = service.http.delete(f"/v1/videos/{video_id}")
    assert deleted.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
    assert service.stopped == [video_id]
    assert service.http.get(f"/v1/videos/{video_id}").status_code == 404
    tidy(service)
    left = [info.key for info in service.objects.iter_objects("")]
    assert [key for key in left if not key.startswith("inputs/")] == []


# --- the same request again


def test_the_same_request_is_answered_with_the_stored_result(service: Service) -> None:
    first = service.create(seed="7").json()
    service.finish(first["id"], b"mp4")
    again = service.create(seed="7")
    assert (again.status_code, again.json()["status"]) == (200, "completed")
    assert again.json()["id"] != first["id"]
    assert service.http.get(f"{again.headers['location']}/content").content == b"mp4"
    assert service.create(seed="8").json()["status"] == "queued"
    assert lease_next(service.jobs, service.jobs.next_epoch(), 9)[0].request.sampling.seed == 8


def test_a_shared_result_goes_with_its_last_job(service: Service) -> None:
    first = service.create(seed="7").json()["id"]
    service.finish(first, b"mp4")
    again = service.create(seed="7").json()["id"]
    service.http.delete(f"/v1/videos/{first}")
    tidy(service)
    assert service.http.get(f"/v1/videos/{again}/content").content == b"mp4"
    service.http.delete(f"/v1/videos/{again}")
    tidy(service)
    assert list(service.objects.iter_objects("attempts/")) == []
    assert list(service.objects.iter_objects("results/")) == []


# --- waiting


def test_prefer_wait_answers_when_the_job_has_ended(service: Service) -> None:
    def work() -> None:
        while not service.jobs.queued():
            time.sleep(0.05)
        (job,) = service.jobs.list_jobs("default", limit=1)
        service.finish(job.id, b"mp4")

    worker = threading.Thread(target=work)
    worker.start()
    response = service.create(headers={"Prefer": "wait=20"})
    worker.join()
    assert (response.status_code, response.json()["status"]) == (200, "completed")
    assert response.headers["preference-applied"] == "wait=20"


def test_prefer_wait_gives_up_and_cancels_nothing(service: Service) -> None:
    response = service.create(headers={"Prefer": "respond-async, wait=1"})
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert service.stopped == []
    assert service.jobs.queued() == 1


# --- feedback


def test_a_rating_is_kept_and_the_last_one_counts(service: Service) -> None:
    video_id = service.create().json()["id"]
    path = f"/v1/videos/{video_id}/feedback"
    early = service.http.post(path, json={"rating": 1})
    assert (early.status_code, error_of(early)["code"]) == (409, "illegal_state")
    service.finish(video_id, b"mp4")
    service.http.post(path, json={"rating": 1})
    rated = service.http.post(path, json={"rating": -1, "tags": ["flicker"]})
    told = {"rating": -1, "tags": ["flicker"], "candidate": None}
    assert rated.json()["feedback"] == told
    assert service.http.get(f"/v1/videos/{video_id}").json()["feedback"]["rating"] == -1


@pytest.mark.parametrize("body", [{"rating": 2}, {"rating": 0.5}, {}, {"rating": 1, "stars": 5}])
def test_a_rating_out_of_range_is_400(service: Service, body: dict[str, Any]) -> None:
    response = service.http.post("/v1/videos/video_1/feedback", json=body)
    assert response.status_code == 400


# --- files


def test_a_photo_is_uploaded_once_and_used_by_several_videos(service: Service) -> None:
    client = OpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=service.http)
    file = client.files.create(file=("mug.jpg", jpeg()), purpose="vision")
    assert (file.filename, file.bytes, file.purpose) == ("mug.jpg", len(jpeg()), "vision")
    assert client.files.content(file.id).read() == jpeg()
    assert [found.id for found in client.files.list()] == [file.id]
    assert client.files.retrieve(file.id) == file
    for seed in (1, 2):
        reference = {"file_id": file.id}
        body = {"prompt": "a mug turns", "seed": seed, "input_reference": reference}
        assert service.http.post("/v1/videos", json=body).status_code == 202
    assert client.files.delete(file.id).deleted
    gone = service.http.get(f"/v1/files/{file.id}")
    assert (gone.status_code, error_of(gone)["code"]) == (404, "file_not_found")
    (job,) = lease_next(service.jobs, service.jobs.next_epoch(), 1)
    assert service.objects.get(job.request.photo_key) == jpeg()


def test_a_bad_file_is_refused_and_leaves_nothing(service: Service) -> None:
    for data, purpose, status in ((b"%PDF-1.4", "vision", 415), (jpeg(), "assistants", 400)):
        files = {"file": ("x", io.BytesIO(data))}
        response = service.http.post("/v1/files", data={"purpose": purpose}, files=files)
        assert response.status_code == status, response.text
    assert service.is_untouched()


def test_a_reference_is_a_url_or_a_file_not_both(service: Service) -> None:
    for reference in ({}, {"file_id": "file_1", "image_url": "data:image/png;base64,AA=="}):
        body = {"prompt": "x", "input_reference": reference}
        assert service.http.post("/v1/videos", json=body).status_code == 400
    unknown = {"prompt": "x", "input_reference": {"file_id": "file_nope"}}
    response = service.http.post("/v1/videos", json=unknown)
    assert (response.status_code, error_of(response)["code"]) == (404, "file_not_found")


# --- discovery


def test_models_and_presets_say_what_may_be_asked_for(service: Service) -> None:
    client = OpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=service.http)
    model, camera = client.models.list()
    assert (model.id, camera.id) == ("tiny-random", "camera")
    data = service.http.get("/v1/models").json()["data"]
    assert [card["default"] for card in data] == [True, False]
    limits = data[0]["limits"]
    assert limits["size_multiple"] == 16
    assert limits["max_candidates"] == 8
    presets = {preset["id"]: preset for preset in service.http.get("/v1/presets").json()["data"]}
    assert set(presets) == {"preview", "standard", "high"}
    assert presets["standard"]["num_inference_steps"] == 50


def test_how_the_service_stands_is_told_to_every_key_and_names_no_other(shops: Service) -> None:
    mine, theirs = shops.key("shop-a"), shops.key("shop-b")
    none = dict.fromkeys(Priority, Work())
    tier = TierState(1, 4, 60.0, False, 125.0, none | {Priority.BATCH: Work(2, 90)}, none, 0, True)
    snapshot = Snapshot({"cpu": tier}, {Stage.DECODING: 1.25}, None)
    SqlFacts(shops.jobs.database).put(FACT, snapshot.to_json())
    secret = shops.create(headers=theirs, sku="SECRET-1", title="not out yet").json()["id"]
    answer = shops.http.get("/v1/cluster", headers=mine)
    told = answer.json()
    assert (told["status"], told["broken"], told["stale"]) == ("ready", [], False)
    assert told["queue"]["interactive"]["clips"] == 1
    cpu, camera = told["tiers"]
    assert (cpu["now"]["tflops"], cpu["now"]["running"]["batch"]["clips"]) == (125.0, 2)
    assert (cpu["vram"], camera["kind"], camera["now"]) == (None, "camera", None)
    for word in (secret, "SECRET", "not out", "shop-b", "default"):
        assert word not in answer.text
    shops.broken = ["Denoiser-cpu: no replica is running"]
    told = shops.http.get("/v1/cluster", headers=mine).json()  # an answer all the same: 200
    assert (told["status"], told["broken"]) == ("not_ready", shops.broken)


# --- tenants


def test_without_a_key_nothing_is_told(shops: Service) -> None:
    for method, path in (
        ("GET", "/v1/videos"),
        ("POST", "/v1/videos"),
        ("GET", "/v1/videos/video_1"),
        ("GET", "/v1/videos/video_1/content"),
        ("GET", "/v1/videos/video_1/events"),
        ("POST", "/v1/videos/video_1/cancel"),
        ("DELETE", "/v1/videos/video_1"),
        ("POST", "/v1/videos/video_1/feedback"),
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file_1"),
        ("GET", "/v1/files/file_1/content"),
        ("DELETE", "/v1/files/file_1"),
        ("GET", "/v1/models"),
        ("GET", "/v1/presets"),
        ("GET", "/v1/cluster"),
        ("POST", "/v1/prompts:preview"),
    ):
        for headers in ({}, {"Authorization": "Bearer reel_0123456789abcdef_" + "x" * 43}):
            response = shops.http.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert error_of(response)["type"] == "authentication_error"
            assert response.headers["www-authenticate"].startswith("Bearer")
    assert shops.http.get("/healthz").status_code == 200


def test_another_tenants_things_are_not_there(shops: Service) -> None:
    mine, theirs = shops.key("shop-a"), shops.key("shop-b")
    video_id = shops.create(headers=mine).json()["id"]
    shops.finish(video_id, b"mp4")
    file = shops.http.post(
        "/v1/files", data={"purpose": "vision"}, files={"file": ("x", jpeg())}, headers=mine
    ).json()
    for method, path in (
        ("GET", f"/v1/videos/{video_id}"),
        ("GET", f"/v1/videos/{video_id}/content"),
        ("GET", f"/v1/videos/{video_id}/events"),
        ("POST", f"/v1/videos/{video_id}/cancel"),
        ("DELETE", f"/v1/videos/{video_id}"),
        ("GET", f"/v1/files/{file['id']}"),
        ("GET", f"/v1/files/{file['id']}/content"),
        ("DELETE", f"/v1/files/{file['id']}"),
    ):
        assert shops.http.request(method, path, headers=theirs).status_code == 404, path
    rating = {"rating": 1}
    path = f"/v1/videos/{video_id}/feedback"
    assert shops.http.post(path, json=rating, headers=theirs).status_code == 404
    body = {"prompt": "x", "input_reference": {"file_id": file["id"]}}
    assert shops.http.post("/v1/videos", json=body, headers=theirs).status_code == 404
    for listing in ("/v1/videos", "/v1/files"):
        assert shops.http.get(listing, headers=theirs).json()["data"] == []
        assert (
            shops.http.get(listing, params={"after": video_id}, headers=theirs).status_code == 404
        )
    assert shops.http.get(f"/v1/videos/{video_id}/content", headers=mine).content == b"mp4"


def test_the_same_key_and_photo_of_two_tenants_are_two_jobs(shops: Service) -> None:
    ids = {
        shops.create(key="order-1", seed="7", headers=shops.key(tenant)).json()["id"]
        for tenant in ("shop-a", "shop-b")
    }
    assert len(ids) == 2
    inputs = [info.key.split("/")[1] for info in shops.objects.iter_objects("inputs/")]
    assert sorted(inputs) == ["shop-a", "shop-b"]


# --- quotas


@pytest.mark.parametrize(
    ("quota", "code"),
    [
        (Quota(queued_jobs=2), "quota_exceeded"),
        (Quota(unfinished_jobs=2), "quota_exceeded"),
        (Quota(creates_per_minute=2), "quota_exceeded"),
    ],
)
def test_a_tenant_beyond_its_quota_waits_and_others_do_not(
    shops: Service, quota: Quota, code: str
) -> None:
    busy, other = shops.key("busy", quota), shops.key("other")
    first = shops.create(headers=busy, key="first").json()
    assert shops.create(headers=busy).status_code == 202
    refused = shops.create(headers=busy)
    assert (refused.status_code, error_of(refused)["code"]) == (429, code)
    assert error_of(refused)["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert shops.create(headers=other).status_code == 202
    replay = shops.create(headers=busy, key="first")
    assert (replay.status_code, replay.json()["id"]) == (202, first["id"])


def test_a_full_queue_is_503_and_says_when_to_come_back(
    s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    service = Service(s3, tmp_path, max_queued_jobs=3)
    with service.http:
        statuses = [service.create().status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 503, 503]
        refused = service.create()
        assert error_of(refused)["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) > 0
        lease_next(service.jobs, service.jobs.next_epoch(), 1)
        assert service.create().status_code == 202


# --- what is kept for a rebuild


def test_the_stored_request_knows_its_key(service: Service) -> None:
    video_id = service.create(key="order-1").json()["id"]
    record = json.loads(service.objects.get(keys.request_key(video_id)))
    assert record["idempotency"]["key"] == "order-1"


# --- queue position and ETA


def test_a_queued_job_knows_its_place_and_a_running_one_its_end(service: Service) -> None:
    ids = [service.create().json()["id"] for _ in range(3)]
    places = [service.http.get(f"/v1/videos/{i}").json()["queue_position"] for i in ids]
    assert places == [0, 1, 2]
    epoch = service.jobs.next_epoch()
    (job,) = lease_next(service.jobs, epoch, 1)
    service.jobs.record_progress([Progress(job.current_attempt, Stage.DENOISING, 10)], epoch)
    video = service.http.get(f"/v1/videos/{ids[0]}").json()
    assert video["queue_position"] is None
    assert service.http.get(f"/v1/videos/{ids[1]}").json()["queue_position"] == 0
