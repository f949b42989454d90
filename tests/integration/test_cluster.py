"""The whole path on real Ray and a real S3 server, started as a user starts it."""

import json
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.embedded_s3 import EmbeddedS3
from deployments.decoder import Decoded
from deployments.provenance import Provenance
from diffusion.params import SamplingParams
from serve.client import ServiceError
from storage import keys
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Attempt, JobRequest, OutputParams, VideoFile
from storage.object_store import S3ObjectStore
from tests.integration.live import SHOPREEL, LiveCluster
from video.mp4 import probe_mp4

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"
OTHER_PHOTO = PHOTO.with_name("home-vase.webp")
Handles = Callable[[str], DeploymentHandle]

pytestmark = pytest.mark.timeout(400)


def quick(cluster: LiveCluster, photo: Path = PHOTO, **fields: Any) -> dict[str, Any]:
    """Submit a short clip."""
    with cluster.client() as client:
        return client.create(
            photo,
            **{"prompt": "a watch turns", "num_frames": 8, "num_inference_steps": 10, **fields},
        )


def ended(cluster: LiveCluster, video: dict[str, Any]) -> dict[str, Any]:
    with cluster.client() as client:
        return client.wait(video["id"], lambda _: None, poll_s=0.1)


def test_a_photo_becomes_a_publishable_video_with_all_its_files(
    live: LiveCluster, tmp_path: Path
) -> None:
    video = ended(live, quick(live, seed=3, sku="W-1", enable_frame_interpolation=True))
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
    assert (video["num_frames"], video["fps"], video["seed"]) == (8, 8.0, 3)
    assert (video["output_num_frames"], video["output_fps"]) == (22, 24.0)
    assert set(video["timings"]) == {
        "queued",
        "text_encoding",
        "image_encoding",
        "denoising",
        "decoding",
        "quality",
        "interpolation",
        "video_encoding",
        "storing",
    }
    with live.client() as client:
        mp4 = client.content(video["id"])
        manifest = json.loads(client.content(video["id"], "manifest"))
        thumbnail = client.content(video["id"], "thumbnail")
        sheet = client.content(video["id"], "spritesheet")
    path = tmp_path / "video.mp4"
    path.write_bytes(mp4)
    width, height = map(int, video["size"].split("x"))
    assert probe_mp4(path).problems(width, height, 24.0, 22) == []
    assert thumbnail[8:12] == sheet[8:12] == b"WEBP"
    assert manifest["request"]["sampling"]["seed"] == 3
    assert manifest["request"]["sampling"]["num_inference_steps"] == 10
    assert len(manifest["request"]["model_revision"]) == 64
    assert manifest["request"]["mp4"]["codec"] == "libx264"
    assert manifest["timings"]["denoising"] > 0
    assert manifest["first_job"]["sku"] == "W-1"


def test_two_different_requests_at_once_both_finish(live: LiveCluster) -> None:
    one = quick(live, seed=1, num_inference_steps=12)
    two = quick(live, OTHER_PHOTO, prompt="a vase", num_frames=12, guidance_scale=1, size="96x128")
    finished = [ended(live, one), ended(live, two)]
    assert [video["status"] for video in finished] == ["completed", "completed"]
    assert finished[0]["size"] != finished[1]["size"]
    with live.client() as client:
        contents = {client.content(video["id"]) for video in finished}
    assert len(contents) == 2


def test_the_best_of_three_candidates_is_the_video(live: LiveCluster) -> None:
    """Measured on what the real pipeline makes of three seeds."""
    video = ended(live, quick(live, n=3, select="all", seed=2**63 - 2, size="128x128"))
    assert (video["status"], video["error"]) == ("completed", None)
    candidates = video["candidates"]
    assert [c["seed"] for c in candidates] == [2**63 - 2, 2**63 - 1, 0]
    scores = [c["score"] for c in candidates]
    assert None not in scores
    assert len(set(scores)) == 3
    (best,) = [c["candidate"] for c in candidates if c["selected"]]
    assert scores[best] == max(scores)
    assert video["step"] == video["steps"] == 30
    with live.client() as client:
        contents = [client.content(video["id"], candidate=k) for k in range(3)]
        assert len(set(contents)) == 3
        assert client.content(video["id"]) == contents[best]
        seeds = [
            json.loads(client.content(video["id"], "manifest", k))["request"]["sampling"]["seed"]
            for k in range(3)
        ]
    assert seeds == [c["seed"] for c in candidates]


def test_of_candidates_the_losers_are_deleted(live: LiveCluster) -> None:
    video = ended(live, quick(live, n=2, seed=77, size="128x128"))
    (best,) = [c["candidate"] for c in video["candidates"] if c["kept"]]
    with live.client() as client:
        assert client.content(video["id"]) == client.content(video["id"], candidate=best)
        with pytest.raises(ServiceError, match="candidate_not_kept"):
            client.content(video["id"], candidate=1 - best)
    store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{live.data / 'jobs.sqlite'}"))
    loser = store.get("default", video["id"]).request.parts[1 - best]
    store.close()
    objects = S3ObjectStore(EmbeddedS3.running(live.data.resolve() / "s3"))
    commit = keys.result_key("default", loser.result_id)
    deadline = time.monotonic() + 60
    while objects.stat(commit) is not None:
        assert time.monotonic() < deadline, "the Housekeeper has not deleted it"
        time.sleep(1)


def test_the_command_writes_every_candidate_that_is_kept(live: LiveCluster, tmp_path: Path) -> None:
    out = tmp_path / "watch.mp4"
    command = [SHOPREEL, "generate", PHOTO, "--prompt", "a watch turns", "--preset", "preview"]
    many = ["--n", "2", "--select", "all", "--seed", "5"]
    ran = subprocess.run(
        [*map(str, command), *many, "--out", str(out), "--url", live.url],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    files = [out.with_stem(f"watch_c{k}").read_bytes() for k in range(2)]
    assert files[0] != files[1]
    best = files.index(out.read_bytes())
    (line,) = [line for line in ran.stderr.splitlines() if "selected" in line]
    assert f"candidate {best}, seed {5 + best}: score" in line


def test_no_tensor_passes_the_dispatcher(live: LiveCluster, handles: Handles) -> None:
    video = ended(live, quick(live, seed=4, size="128x128"))
    assert video["status"] == "completed"
    audit = handles("Dispatcher").audit.remote().result(timeout_s=10)
    ours = {"Waiting", "StepDone", "Denoised", "Decoded", "Stage", "VideoFile"}
    assert ours <= set(audit["bytes"])
    assert audit["arrays"] == 0
    assert audit["heavy_modules"] == []
    # Frames of this clip are 393 kB, latents 33 kB, one prompt's embeddings 10 kB.
    assert max(audit["bytes"][name] for name in ours) < 4_000


def test_prompt_embeddings_come_from_the_cache_the_second_time(
    live: LiveCluster, handles: Handles
) -> None:
    encoder = handles("TextEncoder")

    def info() -> dict[str, int]:
        found: dict[str, int] = encoder.cache_info.remote().result(timeout_s=10)
        return found

    before = info()
    prompt = f"a kettle steams {time.time_ns()}"
    assert ended(live, quick(live, prompt=prompt, seed=1))["status"] == "completed"
    once = info()
    assert ended(live, quick(live, prompt=prompt, seed=2))["status"] == "completed"
    twice = info()
    assert once["misses"] - before["misses"] >= 1
    assert twice["misses"] == once["misses"]
    assert twice["hits"] - once["hits"] == 2  # the prompt and the negative prompt
    assert twice["currsize"] <= twice["maxsize"]


def test_a_bad_photo_is_refused_by_the_running_service(live: LiveCluster, tmp_path: Path) -> None:
    from serve.client import ServiceError

    bad = tmp_path / "photo.jpg"
    bad.write_bytes(PHOTO.read_bytes()[:5000])
    with pytest.raises(ServiceError, match="422 image_undecodable"):
        quick(live, bad)
    assert ended(live, quick(live))["status"] == "completed"


def test_the_command_line_makes_a_video(live: LiveCluster, tmp_path: Path) -> None:
    out = tmp_path / "watch.mp4"
    command = [SHOPREEL, "generate", PHOTO, "--prompt", "a watch turns", "--preset", "preview"]
    ran = subprocess.run(
        [*map(str, command), "--seed", "5", "--out", str(out), "--url", live.url, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    video = json.loads(ran.stdout)
    assert (video["seed"], video["file"]) == (5, str(out))
    assert probe_mp4(out).frames == video["output_num_frames"] == 8


def replicas() -> dict[str, int]:
    deployments = serve.status().applications["shopreel"].deployments
    return {name: d.replica_states.get("RUNNING", 0) for name, d in deployments.items()}


def all_at_one(patience_s: float = 120) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and set(replicas().values()) != {1}:
        time.sleep(0.5)
    return set(replicas().values()) == {1}


def watch_scaling(name: str, calls: Iterable[Any]) -> None:
    """Under `calls` deployment `name` goes 1 → 2 → 1 and no other one moves."""
    assert all_at_one()
    responses = list(calls)
    seen: dict[str, set[int]] = {}
    deadline = time.monotonic() + 120
    while seen.get(name) != {1, 2} and time.monotonic() < deadline:
        for deployment, count in replicas().items():
            seen.setdefault(deployment, set()).add(count)
        time.sleep(0.25)
    assert seen.pop(name) == {1, 2}
    assert all(counts == {1} for counts in seen.values()), seen
    for response in responses:
        response.result(timeout_s=120)
    assert all_at_one()


def test_text_encoding_scales_alone(handles: Handles) -> None:
    encoder = handles("TextEncoder")
    watch_scaling(
        "TextEncoder", (encoder.encode.remote(f"prompt {n}", "blurry") for n in range(700))
    )


def test_denoising_scales_alone_by_its_backlog(live: LiveCluster, handles: Handles) -> None:
    class Clip:
        """A job, ended by result()."""

        def __init__(self, seed: int) -> None:
            self._video = quick(live, seed=seed, num_frames=16, num_inference_steps=60)

        def result(self, timeout_s: float) -> None:
            assert ended(live, self._video)["status"] == "completed"

    watch_scaling("Denoiser-cpu", (Clip(seed) for seed in range(6)))


def test_video_encoding_scales_alone(handles: Handles) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 256, 256, 3), dtype=np.uint8)
    frames = ray.put(noise)
    encoder = handles("VideoEncoder").options(stream=True)

    class Clip:
        """A call, ended by result()."""

        def __init__(self, number: int) -> None:
            self._events = call(number)

        def result(self, timeout_s: float) -> None:
            *_, video = self._events
            assert isinstance(video, VideoFile)

    def call(number: int) -> Iterable[Any]:
        request = JobRequest(
            id=f"video_scaling{number}",
            tenant="test",
            model="none",
            model_revision="0",
            photo_key="none",
            photo_sha256=str(number),
            sampling=SamplingParams("p", "", 256, 256, 16, 1, 1.0, 8, number),
            output=OutputParams("crop", 8, 5),
            preset="standard",
        )
        events: Iterable[Any] = encoder.encode.remote(
            request, request.sampling, Attempt(request.id, 1, 1), Decoded(frames, 0.0), Provenance()
        )
        return events

    watch_scaling("VideoEncoder", (Clip(n) for n in range(24)))


def test_the_service_tells_its_tiers_as_they_are(live: LiveCluster) -> None:
    video = ended(live, quick(live, seed=21))
    with live.client() as client:
        while (told := client.cluster())["observed_at"] <= video["completed_at"]:
            time.sleep(0.2)
    assert (told["status"], told["broken"], told["stale"]) == ("ready", [], False)
    cpu, camera = told["tiers"]
    assert (cpu["id"], cpu["kind"], cpu["max_replicas"]) == ("cpu", "denoiser", 2)
    assert (camera["id"], camera["kind"]) == ("camera", "camera")
    assert cpu["now"]["replicas"] >= 1
    assert cpu["now"]["tflops"] > 0  # learned from that video
    assert (cpu["vram"], camera["now"]["tflops"]) == (None, None)
    assert [told["queue"][who]["clips"] for who in ("interactive", "batch")] == [0, 0]


def test_the_same_seed_gives_the_same_bytes_on_a_fresh_cluster(
    live: LiveCluster, handles: Handles, tmp_path: Path
) -> None:
    assert all_at_one()  # so that one replica is asked, before and after
    denoiser = handles("Denoiser-cpu")
    before = denoiser.steps_done.remote().result(timeout_s=10)
    fields: dict[str, Any] = {"seed": 11, "num_inference_steps": 9}
    here = ended(live, quick(live, **fields))
    assert denoiser.steps_done.remote().result(timeout_s=10) - before == 9
    with live.client() as client:
        expected = client.content(here["id"])
    with LiveCluster(tmp_path / "fresh") as fresh:
        there = ended(fresh, quick(fresh, **fields))
        with fresh.client() as client:
            assert client.content(there["id"]) == expected
        assert there["timings"]["denoising"] > 0


def test_sigterm_drains_and_leaves_no_process_and_a_restart_knows_its_jobs(tmp_path: Path) -> None:
    cluster = LiveCluster(tmp_path / "data").start()
    in_flight = quick(cluster, num_inference_steps=80)
    while ended_stage(cluster, in_flight) != "denoising":
        time.sleep(0.1)
    assert cluster.stop() in (0, 130)
    assert cluster.left_behind() == []
    with LiveCluster(tmp_path / "data") as again:
        video = ended(again, in_flight)
        assert video["status"] == "completed"
        assert video["attempt"] == 1  # it was let finish, not begun anew
        assert len(again.client().content(video["id"])) > 1000


def ended_stage(cluster: LiveCluster, video: dict[str, Any]) -> str | None:
    with cluster.client() as client:
        stage: str | None = client.get(video["id"])["stage"]
        return stage


def test_a_killed_denoiser_costs_an_attempt_not_the_job(tmp_path: Path) -> None:
    with LiveCluster(tmp_path / "data") as cluster:
        video = quick(cluster, num_inference_steps=200)
        while ended_stage(cluster, video) != "denoising":
            time.sleep(0.1)
        cluster.replica("Denoiser-cpu").kill()
        finished = ended(cluster, video)
        assert (finished["status"], finished["attempt"]) == ("completed", 2)


def test_a_killed_object_store_comes_back_and_costs_no_job(tmp_path: Path) -> None:
    with LiveCluster(tmp_path / "data") as cluster:
        video = quick(cluster, num_inference_steps=40)
        while ended_stage(cluster, video) != "denoising":
            time.sleep(0.1)
        cluster.embedded_s3().kill()
        finished = ended(cluster, video)
        assert (finished["status"], finished["attempt"]) == ("completed", 1)
        with cluster.client() as client:
            assert len(client.content(video["id"])) > 1000
