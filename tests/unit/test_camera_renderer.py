"""The photo's bytes to a rendered clip, and that clip to a file that says nothing was generated."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.tiers import CameraTierConfig
from deployments.camera_renderer import CameraRenderer
from deployments.provenance import Provenance
from deployments.video_encoder import VideoEncoder, VideoEncoderConfig
from storage.jobs import JobRequest, OutputParams, VideoFile
from storage.object_store import ObjectStoreConfig
from tests.sample_jobs import VIDEO, make_request
from tests.unit.test_camera import boxed, textured
from video.camera.move import CameraMove, Move
from video.camera.scene import render
from video.mp4 import Mp4Config, probe_mp4, read_frames
from video.photo import Fit, PhotoLimits

NOWHERE = ObjectStoreConfig.model_validate(
    {"endpoint": "127.0.0.1:9", "bucket": "none", "access_key": "", "secret_key": ""}
)


def a_request(move: Move, num_frames: int = 24, size: tuple[int, int] = (128, 96)) -> JobRequest:
    request = make_request("video_1")
    sampling = replace(
        request.sampling,
        width=size[0],
        height=size[1],
        num_frames=num_frames,
        num_inference_steps=0,
    )
    return replace(
        request,
        model="camera",
        sampling=sampling,
        output=OutputParams(fit="crop", fps=24, inbetweens=0),
        camera_motion=CameraMove(move),
        camera_words=("slow move",),
    )


def png(pixels: "np.typing.NDArray[np.uint8]") -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def rendered(request: JobRequest, photo: bytes) -> tuple["np.typing.NDArray[np.uint8]", int]:
    renderer = CameraRenderer(CameraTierConfig(), NOWHERE, PhotoLimits())
    return renderer._frames(request, request.sampling, photo)


def test_the_frames_are_those_of_the_move() -> None:
    photo = textured()
    frames, layers = rendered(a_request(Move.PAN_LEFT), png(photo))
    assert layers == 1
    again = np.stack([*render(photo, CameraMove(Move.PAN_LEFT), 24, (128, 96), Fit.CROP)])
    assert np.array_equal(frames, again)


@pytest.mark.parametrize(("photo", "layers"), [(boxed(), 2), (textured(), 1)])
def test_the_layers_of_an_orbit(photo: "np.typing.NDArray[np.uint8]", layers: int) -> None:
    assert rendered(a_request(Move.ORBIT_LEFT), png(photo))[1] == layers


def test_the_file_says_that_nothing_was_generated(tmp_path: Path) -> None:
    request, photo = a_request(Move.ZOOM_IN), png(boxed())
    frames, layers = rendered(request, photo)
    encoder = VideoEncoder(
        VideoEncoderConfig(mp4=Mp4Config(codec="libx264", crf=10)), NOWHERE, PhotoLimits(), render
    )
    provenance = Provenance({"rendering": 0.5}, (), camera_layers=layers)
    encoded = encoder._encode(request, request.sampling, frames, photo, provenance)
    manifest = json.loads(encoded.files["manifest.json"][0])
    recipe = manifest["request"]
    assert recipe["made_by"] == "camera move, nothing generated"
    assert recipe["camera_words"] == ["slow move"]
    assert recipe["camera_motion"]["move"] == "zoom_in"
    assert (recipe["unet_steps"], manifest["camera_layers"]) == (0, 1)
    # Likeness is measured against where the move begins, which is its own first frame.
    assert encoded.quality.subject_first == pytest.approx(1)

    path = tmp_path / "video.mp4"
    path.write_bytes(encoded.files["video.mp4"][0])
    info = probe_mp4(path)
    assert (info.frames, info.fps) == (24, 24)
    assert json.loads(info.metadata["shopreel"]) == recipe
    assert np.abs(read_frames(path).astype(int) - frames).mean() < 2


def test_a_long_upright_clip_has_a_sprite_sheet_too() -> None:
    """WebP ends at 16,383 px: of a long clip the sheet shows some frames."""
    request, photo = a_request(Move.TILT_UP, 300, (36, 64)), png(textured())
    frames, _ = rendered(request, photo)
    encoder = VideoEncoder(
        VideoEncoderConfig(mp4=Mp4Config(codec="libx264")), NOWHERE, PhotoLimits(), render
    )
    encoded = encoder._encode(request, request.sampling, frames, photo, Provenance())
    sheet = Image.open(io.BytesIO(encoded.files["spritesheet.webp"][0]))
    assert sheet.width == 4 * 240
    assert encoded.info.frames == 300


def test_layers_survive_the_store() -> None:
    made = replace(VIDEO, camera_layers=2)
    assert VideoFile.from_json(made.to_json()).camera_layers == 2
