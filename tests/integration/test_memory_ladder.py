"""Memory that runs out in the running service: what the caller gets, and what survives it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.live import LiveCluster, write_config
from tests.integration.scarce import SHORT_FRAMES

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scarce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    folder = tmp_path_factory.mktemp("scarce")
    config = write_config(folder / "config.yaml", import_path="tests.integration.scarce:build_app")
    with LiveCluster(folder / "data", config) as cluster:
        yield cluster


def made(cluster: LiveCluster, **fields: Any) -> dict[str, Any]:
    with cluster.client() as client:
        video = client.create(
            PHOTO, **{"prompt": "a watch turns", "num_inference_steps": 4, **fields}
        )
        return client.wait(video["id"], lambda _: None, poll_s=0.2)


def rungs(video: dict[str, Any]) -> list[str]:
    return [downgrade["step"] for downgrade in video["downgrades"]]


def test_rows_are_given_up_before_anything_else(scarce: LiveCluster) -> None:
    video = made(scarce, size="128x128", num_frames=16)
    assert (video["status"], video["size"]) == ("completed", "128x128")
    assert rungs(video) == ["chunked_unet", "solo_rows"]


def test_a_smaller_clip_only_for_who_allows_it(scarce: LiveCluster) -> None:
    denoiser = scarce.replica("Denoiser-cpu").pid
    large = {"size": "192x192", "num_frames": 24, "seed": 1}
    refused = made(scarce, **large)
    assert (refused["status"], refused["error"]["code"]) == ("failed", "out_of_memory")
    video = made(scarce, **large, downgrade="auto")
    assert video["status"] == "completed"
    assert (video["size"], video["output_num_frames"]) == ("128x128", 16)
    assert [rung for rung in rungs(video) if rung in ("smaller_size", "fewer_frames")] == [
        "smaller_size",
        "fewer_frames",
    ]
    assert scarce.replica("Denoiser-cpu").pid == denoiser


def test_a_camera_move_only_for_who_allows_it(scarce: LiveCluster) -> None:
    never = {"size": "96x64", "num_frames": SHORT_FRAMES, "seed": 2, "camera_motion": "tilt_up"}
    failed = made(scarce, **never, downgrade="auto")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "out_of_memory")
    video = made(scarce, **never, downgrade="camera")
    assert (video["status"], video["tier"], rungs(video)[-1]) == (
        "completed",
        "camera",
        "camera_move",
    )
    assert video["made_by"] == "camera move, nothing generated"
    assert (video["size"], video["output_num_frames"]) == ("96x64", SHORT_FRAMES)
    assert (video["camera_motion"]["move"], video["usage"]["unet_steps"]) == ("tilt_up", 0)
    assert (video["model"], video["motion_strength"]) == ("tiny-random", None)


def test_a_device_that_fails_its_self_test_takes_itself_out(scarce: LiveCluster) -> None:
    before = scarce.replica("Denoiser-cpu").pid
    assert made(scarce, size="64x64", num_frames=9)["status"] == "failed"
    video = made(scarce, size="64x64", num_frames=8)
    assert (video["status"], video["error"]) == ("completed", None)
    assert scarce.replica("Denoiser-cpu").pid != before
