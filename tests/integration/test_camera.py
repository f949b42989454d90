"""Camera moves through the running service: from the photo's pixels to the steps that are run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from serve.cli import app
from tests.integration.live import LiveCluster, write_config

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"
CLIP = {
    "prompt": "a watch turns",
    "size": "64x64",
    "num_frames": 8,
    "num_inference_steps": 10,
    "seed": 7,
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def panned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    folder = tmp_path_factory.mktemp("panned")
    config = write_config(folder / "config.yaml", import_path="tests.integration.panned:build_app")
    with LiveCluster(folder / "data", config) as cluster:
        yield cluster


def made(cluster: LiveCluster, **fields: Any) -> dict[str, Any]:
    """The video, and its manifest under `manifest`."""
    with cluster.client() as client:
        video = client.create(PHOTO, **{**CLIP, **fields})
        steps: list[int] = []
        video = client.wait(video["id"], lambda v: steps.append(v["step"]), poll_s=0.1)
        assert video["status"] == "completed", video
        manifest = json.loads(client.content(video["id"], "manifest"))
        content = client.content(video["id"])
    assert max(steps) <= video["steps"]
    return {**video, "manifest": manifest, "content": content}


def test_a_clip_begins_at_the_camera_move_and_runs_the_last_steps(panned: LiveCluster) -> None:
    plain = made(panned)
    assert (plain["step"], plain["steps"], plain["usage"]["unet_steps"]) == (10, 10, 10)
    assert not {"rendering", "frames_encoding"} & plain["timings"].keys()

    left = made(panned, camera_motion="pan_left", motion_strength=0.4)
    assert (left["step"], left["steps"], left["usage"]["unet_steps"]) == (4, 4, 4)
    assert {"rendering", "frames_encoding", "image_encoding"} <= left["timings"].keys()
    recipe = left["manifest"]["request"]
    assert (recipe["unet_steps"], recipe["starts_from_frames"]) == (4, True)
    assert recipe["camera_motion"]["move"] == "pan_left"

    right = made(panned, camera_motion="pan_right", motion_strength=0.4)
    assert len({video["content"] for video in (plain, left, right)}) == 3


def test_at_full_strength_it_is_the_plain_clip(panned: LiveCluster) -> None:
    plain = made(panned, seed=8)
    whole = made(panned, seed=8, camera_motion="pan_left", motion_strength=1)
    assert whole["steps"] == plain["steps"]
    # The same latents; alone in its UNet calls, the same bits.
    assert whole["manifest"]["quality"] == plain["manifest"]["quality"]
    assert any("moves nothing" in warning for warning in whole["warnings"])


def test_candidates_differ_by_their_noise_alone(panned: LiveCluster) -> None:
    video = made(panned, camera_motion="pan_left", motion_strength=0.5, n=2, select="all")
    assert (video["steps"], video["usage"]["unet_steps"]) == (10, 10)
    scores = [candidate["subject_first"] for candidate in video["candidates"]]
    assert len(scores) == 2
    assert all(np.isfinite(scores))


def test_the_command_takes_it(panned: LiveCluster, tmp_path: Path) -> None:
    arguments = ["generate", str(PHOTO), "--prompt", "a watch turns", "--preset", "preview"]
    camera = ["--camera-motion", "pan_right", "--motion-strength", "0.2"]
    out = ["--out", str(tmp_path / "clip.mp4"), "--url", panned.url, "--json"]
    result = CliRunner().invoke(app, [*arguments, *camera, *out])
    assert result.exit_code == 0, result.output
    video = json.loads(result.stdout)
    assert (video["camera_motion"]["move"], video["motion_strength"]) == ("pan_right", 0.2)
    assert video["steps"] == 6  # of the preset's 30
    assert (tmp_path / "clip.mp4").stat().st_size > 0
