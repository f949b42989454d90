"""Other people's clients, unchanged, against a cluster that asks for keys; and what its logs keep
to themselves."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import NotFoundError, OpenAI
from sseclient import SSEClient

from serve.client import Client
from tests.integration.live import ROOT, SHOPREEL, LiveCluster, write_config

PHOTO = ROOT / "examples" / "products" / "watch-steel.jpg"
SMALL: dict[str, Any] = {"preset": "preview", "size": "64x64", "num_inference_steps": 8}
LONG = SMALL | {"num_inference_steps": 200}
PROMPT = "a quetzalcoatlus of porcelain turns"


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    folder = tmp_path_factory.mktemp("shops")
    config = write_config(folder / "config.yaml", auth={"enabled": True})
    with LiveCluster(folder / "data", config) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def api_key(shops: LiveCluster) -> str:
    command = [str(SHOPREEL), "keys", "create", "shop-a", "--data", str(shops.data)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def test_the_openai_client_makes_polls_downloads_lists_and_deletes(
    shops: LiveCluster, api_key: str
) -> None:
    client = OpenAI(base_url=f"{shops.url}/v1", api_key=api_key)
    with PHOTO.open("rb") as photo:
        video = client.videos.create_and_poll(
            prompt=PROMPT, input_reference=photo, extra_body=SMALL
        )
    assert (video.status, video.progress) == ("completed", 100)
    assert client.videos.retrieve(video.id).status == "completed"
    content = client.videos.download_content(video.id).read()
    assert content[4:8] == b"ftyp"
    poster = client.videos.download_content(video.id, variant="thumbnail").read()
    assert poster[8:12] == b"WEBP"
    assert [found.id for found in client.videos.list()] == [video.id]
    assert client.videos.delete(video.id).deleted
    with pytest.raises(NotFoundError):
        client.videos.retrieve(video.id)


def test_a_standard_event_client_sees_the_way_of_a_video(shops: LiveCluster, api_key: str) -> None:
    bearer = {"Authorization": f"Bearer {api_key}"}
    with httpx2.Client(base_url=shops.url, headers=bearer, timeout=60) as http:
        created = http.post(
            "/v1/videos",
            data={"prompt": PROMPT, **LONG},
            files={"input_reference": PHOTO.read_bytes()},
        ).json()
        with http.stream("GET", f"/v1/videos/{created['id']}/events") as stream:
            events = list(SSEClient(stream.iter_bytes()).events())
    seen = [json.loads(event.data) for event in events]
    assert seen[-1]["status"] == "completed"
    steps = [state["step"] for state in seen]
    assert steps == sorted(steps)
    assert any(0 < step < LONG["num_inference_steps"] for step in steps)
    revisions = [int(event.id or -1) for event in events]
    assert revisions == sorted(revisions)  # twice, where only a queued job's place has changed


def test_generate_reaches_a_server_that_asks_for_a_key(
    shops: LiveCluster, api_key: str, tmp_path: Path
) -> None:
    command = [str(SHOPREEL), "generate", str(PHOTO), "--prompt", PROMPT, "--preset", "preview"]
    command += ["--url", shops.url, "--out", str(tmp_path / "video.mp4")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "missing_api_key" in refused.stderr
    subprocess.run([*command, "--api-key", api_key], capture_output=True, check=True)
    assert (tmp_path / "video.mp4").read_bytes()[4:8] == b"ftyp"


def test_every_answer_through_the_proxy_has_one_request_id(shops: LiveCluster) -> None:
    for given in ({}, {"X-Request-Id": "trace-1"}):
        request = urllib.request.Request(f"{shops.url}/healthz", headers=given)
        with urllib.request.urlopen(request) as response:
            (told,) = response.headers.get_all("x-request-id")
        assert told == given.get("X-Request-Id", told)


def test_head_through_the_proxy_tells_the_size_and_sends_nothing(
    shops: LiveCluster, api_key: str
) -> None:
    bearer = {"Authorization": f"Bearer {api_key}"}
    with Client(shops.url, api_key) as client:
        video_id = client.create(PHOTO, prompt=PROMPT, seed=11, **SMALL)["id"]
        assert client.wait(video_id, lambda _: None)["status"] == "completed"
        size = len(client.content(video_id))
    with httpx2.Client(base_url=shops.url, headers=bearer, timeout=10) as http:
        for path, length in ((f"/v1/videos/{video_id}/content", size), ("/healthz", 15)):
            head = http.head(path)  # the next one comes over the same connection
            told = head.status_code, head.content, head.headers["content-length"]
            assert told == (200, b"", str(length))
        stream = http.head(f"/v1/videos/{video_id}/events")
        assert stream.headers["content-type"].startswith("text/event-stream")


def test_logs_hold_neither_prompts_nor_keys(shops: LiveCluster, api_key: str) -> None:
    """The last one: it ends the cluster, whose logs are then in its folder."""
    wrong = OpenAI(base_url=f"{shops.url}/v1", api_key=api_key[:-1] + "!", max_retries=0)
    with pytest.raises(Exception, match="not known"):
        wrong.videos.list()
    with Client(shops.url, api_key) as client:  # something to tell: a job that loses its worker
        video = client.create(PHOTO, prompt=PROMPT, **LONG)
        while not client.get(video["id"])["step"]:
            time.sleep(0.1)
        shops.replica("Denoiser-cpu").kill()
        assert client.wait(video["id"], lambda _: None)["status"] == "completed"
    credentials = json.loads((shops.data / "s3" / "identities.json").read_text())
    (s3_key,) = credentials["identities"][0]["credentials"]
    token = (shops.data / "ray-token").read_text()
    assert shops.stop() == 0
    logs = [*(shops.data / "logs").rglob("*"), shops.data / "up.log"]
    text = b"\n".join(path.read_bytes() for path in logs if path.is_file())
    assert f"job {video['id']} attempt 1".encode() in text
    for secret in ("quetzalcoatlus", api_key[-20:], s3_key["secretKey"], token):
        assert secret.encode() not in text
