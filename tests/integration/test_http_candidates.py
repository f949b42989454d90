"""Several candidates of one video, as a caller asks for, watches and gets them: over the real
stores in process, with workers that commit what they are told to."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.job_contract import Progress
from storage.jobs import Job, Stage
from storage.lifecycle.collector import Collector
from storage.object_store import ObjectStoreConfig
from storage.tenants import Quota
from tests.integration.bucket import all_keys, put_files
from tests.integration.service import Service, error_of
from tests.sample_jobs import lease_next
from video.quality import Quality


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def lease_all(service: Service) -> list[Job]:
    return lease_next(service.jobs, service.jobs.next_epoch(), 100)


def make(service: Service, job: Job, score: float | None) -> None:
    """What the stages do with an attempt."""
    quality = Quality(score=score, flicker=0.0, warp_error=0.0, tracked=1.0, motion=0.01)
    made = put_files(service.objects, job.request, job.attempt)
    body = service.objects.get(made.video_key)
    video = replace(made, quality=quality, size_bytes=len(body), sha256=job.id.ljust(64, "0"))
    commit = keys.result_key(job.request.tenant, video.result_id)
    assert service.objects.put_if_absent(commit, video.to_json(), "application/json")
    service.jobs.complete(job.current_attempt, video)


def finish(service: Service, scores: tuple[float | None, ...]) -> None:
    for job, score in zip(lease_all(service), scores, strict=True):
        make(service, job, score)


def get(service: Service, path: str) -> dict[str, Any]:
    answer = service.http.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tidy(service: Service) -> None:
    """What the Housekeeper does every few seconds."""
    collector = Collector(service.jobs, service.objects, service.config.retention)
    collector.finish_purges()
    collector.close()


def test_the_best_candidate_is_the_video_and_the_others_go(service: Service) -> None:
    created = service.create(n=3, seed=7)
    assert created.status_code == 202
    video = created.json()
    path = f"/v1/videos/{video['id']}"
    assert (video["status"], video["n"], video["select"]) == ("queued", 3, "best")
    assert (video["queue_position"], video["steps"]) == (0, 3 * video["steps"] // 3)
    assert [(c["candidate"], c["seed"]) for c in video["candidates"]] == [(0, 7), (1, 8), (2, 9)]
    assert error_of(service.http.get(f"{path}/content"))["code"] == "not_ready"
    finish(service, (0.2, 0.9, 0.5))
    video = get(service, path)
    assert (video["status"], video["progress"], video["step"]) == ("completed", 100, video["steps"])
    assert [c["score"] for c in video["candidates"]] == [0.2, 0.9, 0.5]
    assert [c["selected"] for c in video["candidates"]] == [False, True, False]
    assert [c["kept"] for c in video["candidates"]] == [False, True, False]
    assert video["usage"]["gpu_seconds"] == pytest.approx(1.5)  # of all three
    best = f"attempts/{video['id']}_c1/1/".encode()
    assert service.http.get(f"{path}/content").content == best
    chosen = service.http.get(f"{path}/content", params={"candidate": 1})
    assert chosen.content == best
    assert chosen.headers["Content-Disposition"].endswith('_c1.mp4"')
    lost = service.http.get(f"{path}/content", params={"candidate": 0})
    assert (lost.status_code, error_of(lost)["code"]) == (404, "candidate_not_kept")
    none = service.http.get(f"{path}/content", params={"candidate": 3})
    assert (none.status_code, error_of(none)["code"]) == (404, "candidate_not_found")
    tidy(service)
    commits = {key for key in all_keys(service.objects) if key.startswith("results/")}
    kept = service.jobs.get("default", video["id"]).children[1].request
    assert commits == {keys.result_key("default", kept.result_id)}
    assert service.http.get(f"{path}/content").content == best


def test_every_candidate_is_kept_on_request(service: Service) -> None:
    video_id = service.create(n=3, select="all").json()["id"]
    finish(service, (0.2, 0.9, None))
    tidy(service)
    contents = [
        service.http.get(f"/v1/videos/{video_id}/content", params={"candidate": k}).content
        for k in range(3)
    ]
    assert contents == [f"attempts/{video_id}_c{k}/1/".encode() for k in range(3)]
    candidates = get(service, f"/v1/videos/{video_id}")["candidates"]
    assert [c["kept"] for c in candidates] == [True, True, True]


def test_a_candidate_is_no_video_of_its_own(service: Service) -> None:
    video_id = service.create(n=2).json()["id"]
    listed = get(service, "/v1/videos")["data"]
    assert [video["id"] for video in listed] == [video_id]
    assert len(listed[0]["candidates"]) == 2
    child = f"/v1/videos/{video_id}_c0"
    for answer in (
        service.http.get(child),
        service.http.get(f"{child}/content"),
        service.http.get(f"{child}/events"),
        service.http.post(f"{child}/cancel"),
        service.http.delete(child),
        service.http.post(f"{child}/feedback", json={"rating": 1}),
        service.http.get("/v1/videos", params={"after": f"{video_id}_c0"}),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (404, "video_not_found")


def test_the_same_family_again_costs_no_gpu(service: Service) -> None:
    first = service.create(n=2, seed=5, select="all").json()["id"]
    finish(service, (0.3, 0.6))
    again = service.create(n=2, seed=5)
    assert (again.status_code, again.json()["status"]) == (200, "completed")
    assert again.json()["id"] != first
    assert again.json()["usage"]["gpu_seconds"] == 0
    assert lease_all(service) == []
    one_more = service.create(n=3, seed=5, select="all").json()
    assert [c["status"] for c in one_more["candidates"]] == ["completed", "completed", "queued"]
    assert [job.request.sampling.seed for job in lease_all(service)] == [7]


def test_many_repeats_at_once_are_one_family(service: Service) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: service.create(n=3, seed=1, key="once"), range(50)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert service.jobs.queued() == 3
    (record,) = [key for key in all_keys(service.objects) if key.startswith("jobs/")]
    assert json.loads(service.objects.get(record))["request"]["candidates"] == 3


def test_watchers_see_the_whole_go_on(service: Service) -> None:
    video_id = service.create(n=2).json()["id"]
    epoch = service.jobs.next_epoch()
    first, second = lease_next(service.jobs, epoch, 2)
    report = Progress(second.current_attempt, Stage.DENOISING, 4)
    service.jobs.record_progress([report], epoch)
    path = f"/v1/videos/{video_id}/events"
    topics, seen = service.videos.watch._topics, None
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(service.http.get, path)  # the test client gives a stream as a whole
        for job in (first, second):
            while not (topic := topics.get(video_id)) or not topic.job or topic.job.rev == seen:
                time.sleep(0.01)
            seen = topic.job.rev
            make(service, job, 0.5)
        lines = stream.result(timeout=20).text.splitlines()
    told = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    assert [event["status"] for event in told] == ["in_progress", "in_progress", "completed"]
    assert told[0]["stage"] == "denoising"
    progress = [event["progress"] for event in told]
    assert progress == sorted(progress)
    assert progress[1] > 50


def test_cancel_and_delete_reach_every_candidate(service: Service) -> None:
    video_id = service.create(n=3).json()["id"]
    lease_all(service)
    cancelled = service.http.post(f"/v1/videos/{video_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    names = [f"{video_id}_c{k}" for k in range(3)]
    assert service.stopped == names
    service.stopped.clear()
    assert service.http.delete(f"/v1/videos/{video_id}").json()["deleted"]
    assert service.stopped == names
    assert service.http.get(f"/v1/videos/{video_id}").status_code == 404
    tidy(service)
    assert not any(video_id in key for key in all_keys(service.objects))


def test_feedback_may_be_about_a_candidate(service: Service) -> None:
    video_id = service.create(n=2, select="all").json()["id"]
    finish(service, (0.3, 0.6))
    rate = f"/v1/videos/{video_id}/feedback"
    rated = service.http.post(rate, json={"rating": -1, "candidate": 0}).json()
    assert rated["feedback"] == {"rating": -1, "tags": [], "candidate": 0}
    refused = service.http.post(rate, json={"rating": -1, "candidate": 2})
    assert (refused.status_code, error_of(refused)["code"]) == (404, "candidate_not_found")
    assert service.http.post(rate, json={"rating": 1}).json()["feedback"]["candidate"] is None


def test_a_failed_candidate_says_why(service: Service) -> None:
    video_id = service.create(n=2).json()["id"]
    first, second = lease_all(service)
    service.jobs.fail(first.current_attempt, "encode_failed", "no space")
    make(service, second, 0.1)
    video = get(service, f"/v1/videos/{video_id}")
    assert (video["status"], video["error"]) == ("completed", None)
    assert [c["error_code"] for c in video["candidates"]] == ["encode_failed", None]
    path = f"/v1/videos/{video_id}/content"
    lost = service.http.get(path, params={"candidate": 0})
    assert (lost.status_code, error_of(lost)["code"]) == (409, "not_ready")


@pytest.mark.parametrize("n", ["0", "9", "-1", "two"])
def test_a_number_out_of_bounds_is_refused(service: Service, n: str) -> None:
    refused = service.create(n=n)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "n")
    assert service.is_untouched()


def test_a_quota_of_jobs_counts_candidates(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    service = Service(s3, tmp_path, auth=True)
    with service.http:
        key = service.key("shop", Quota(queued_jobs=4))
        assert service.create(n=3, headers=key).status_code == 202
        refused = service.create(n=2, headers=key)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "quota_exceeded")
        assert service.create(n=1, headers=key).status_code == 202
