"""The model `camera` through a running one-machine service: no weights, no UNet, a whole video."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from serve.client import ServiceError
from serve.commands import LOCAL_CONFIG
from tests.integration.live import ROOT, SHOPREEL, LiveCluster
from video.camera.move import CameraMove, Move, Speed
from video.camera.scene import render
from video.mp4 import read_frames
from video.photo import Fit, PhotoLimits, open_photo

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """As a newcomer starts it: the shipped file, without weights."""
    with LiveCluster(tmp_path_factory.mktemp("camera") / "data", LOCAL_CONFIG) as cluster:
        yield cluster


def made(cluster: LiveCluster, **fields: Any) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    """The video, its MP4 and its manifest."""
    with cluster.client() as client:
        video = client.create(PHOTO, model="camera", **fields)
        video = client.wait(video["id"], lambda _: None, poll_s=0.1)
        assert video["status"] == "completed", video
        content = client.content(video["id"])
        return video, content, json.loads(client.content(video["id"], "manifest"))


def test_a_move_from_the_prompts_words(cluster: LiveCluster, tmp_path: Path) -> None:
    video, content, manifest = made(cluster, prompt="a steel watch, slow zoom in")
    assert (video["model"], video["tier"]) == ("camera", "camera")
    assert video["made_by"] == "camera move, nothing generated"
    assert video["camera_words"] == ["slow zoom in"]
    assert video["camera_motion"] == {"move": "zoom_in", "speed": "slow", "ease": "ease_in_out"}
    assert (video["size"], video["output_num_frames"], video["output_fps"]) == ("512x512", 48, 24)
    assert (video["usage"]["gpu_seconds"], video["usage"]["unet_steps"]) == (0, 0)
    assert video["timings"].keys() >= {"rendering", "video_encoding"}
    assert (
        not {"text_encoding", "image_encoding", "denoising", "decoding"} & video["timings"].keys()
    )
    recipe = manifest["request"]
    assert recipe["made_by"] == "camera move, nothing generated"
    assert recipe["camera_words"] == ["slow zoom in"]
    assert b"camera move, nothing generated" in content  # the MP4 says so itself

    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    photo = open_photo(PHOTO.read_bytes(), PhotoLimits()).rgb
    move = CameraMove(Move.ZOOM_IN, Speed.SLOW)
    expected = np.stack([*render(photo, move, 48, (512, 512), Fit.CROP)])
    shown = read_frames(path)
    assert np.abs(shown.astype(int) - expected).mean() < 2.5  # what H.264 takes away


@pytest.mark.parametrize("preset", ["preview", "standard", "high"])
def test_every_preset(cluster: LiveCluster, preset: str) -> None:
    video, _, _ = made(cluster, prompt="pan left", preset=preset)
    assert video["output_num_frames"] == (24 if preset == "preview" else 48)


def test_a_shops_own_size(cluster: LiveCluster) -> None:
    fields = {"size": "1080x1350", "seconds": "1", "fps": "30"}
    video, _, _ = made(cluster, prompt="a watch", camera_motion="tilt_up", **fields)
    assert (video["size"], video["output_num_frames"]) == ("1080x1350", 30)


def test_an_orbit_tells_its_layers(cluster: LiveCluster) -> None:
    video, _, manifest = made(cluster, prompt="a watch", camera_motion="orbit_left")
    assert (video["camera_layers"], manifest["camera_layers"]) == (2, 2)
    assert manifest["warnings"] == []


def test_the_same_move_again_is_the_stored_result(cluster: LiveCluster) -> None:
    first, _, _ = made(cluster, prompt="a watch", camera_motion="roll_left")
    again, _, _ = made(cluster, prompt="a watch", camera_motion="roll_left")
    assert again["shared_with"] == first["id"]


def test_who_names_no_model_gets_a_camera_move(cluster: LiveCluster) -> None:
    with cluster.client() as client:
        video = client.create(PHOTO, prompt="a watch, pan left", seed=7)
        video = client.wait(video["id"], lambda _: None, poll_s=0.1)
        with pytest.raises(ServiceError, match="or name the model 'embedded'"):
            client.create(PHOTO, prompt="a watch", num_inference_steps=50)
    assert (video["status"], video["model"], video["tier"]) == ("completed", "camera", "camera")
    assert video["camera_motion"]["move"] == "pan_left"


def test_a_catalogue_without_weights_is_one_of_camera_moves(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    moves = ("tilt_up", "pan_left", None)
    rows = [{"sku": f"w{n}", "image_uri": str(PHOTO), "prompt": "a watch"} for n in range(3)]
    manifest.write_text(
        "".join(
            json.dumps(row | ({"camera_motion": move} if move else {})) + "\n"
            for row, move in zip(rows, moves, strict=True)
        )
    )
    run = ["catalog", "run", str(manifest), "--output", "s3://shopreel/runs/moves", "--follow"]
    ended = subprocess.run(
        [str(SHOPREEL), *run, "--data", str(cluster.data)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = httpx2.get(f"{cluster.url}/v1/videos", params={"limit": 100}, trust_env=False)
    videos = answer.json()["data"]
    moved = [video for video in videos if video["sku"] and video["sku"].startswith("w")]
    assert {video["made_by"] for video in moved} == {"camera move, nothing generated"}
    assert sorted(video["camera_motion"]["move"] for video in moved) == [
        "pan_left",
        "tilt_up",
        "zoom_in",
    ]


def test_what_means_nothing_is_refused(cluster: LiveCluster) -> None:
    with cluster.client() as client, pytest.raises(ServiceError, match="num_inference_steps"):
        client.create(PHOTO, model="camera", prompt="zoom in", num_inference_steps=50)


def test_the_models_camera_motion_begins_at_the_same_frames(cluster: LiveCluster) -> None:
    """The other use of a move: the model goes on from it."""
    with cluster.client() as client:
        fields = {"size": "64x64", "num_frames": 8, "num_inference_steps": 10}
        video = client.create(
            PHOTO,
            model="embedded",
            prompt="a watch",
            camera_motion="orbit_left",
            motion_strength=0.2,
            **fields,
        )
        video = client.wait(video["id"], lambda _: None, poll_s=0.1)
    assert (video["status"], video["usage"]["unet_steps"]) == ("completed", 2)
    assert (video["made_by"], video["camera_layers"]) == (None, None)
