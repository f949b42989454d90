"""What a finished clip's manifest, and the file itself, say of how it was made."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.provenance import Provenance
from deployments.video_encoder import VideoEncoder, VideoEncoderConfig
from diffusion.errors import WeightsUnusable
from storage.jobs import JobRequest, OutputParams
from storage.object_store import ObjectStoreConfig
from tests.sample_jobs import make_request
from tests.unit.test_interpolate import camera
from tests.warp import pan
from video.camera.move import CameraMove, Move
from video.measure import measure
from video.mp4 import Mp4Config, probe_mp4
from video.photo import Fit, PhotoLimits, fit_photo

NOWHERE = ObjectStoreConfig.model_validate(
    {"endpoint": "127.0.0.1:9", "bucket": "none", "access_key": "", "secret_key": ""}
)
CONFIG = VideoEncoderConfig(mp4=Mp4Config(codec="libx264", crf=30))
REQUEST = dataclasses.replace(
    make_request("video_1", sku="BAG-1"),
    output=OutputParams(fit="crop", fps=8.0, inbetweens=1),
    warnings=("it is small",),
)
PHOTO = camera(96, 144)(0)  # wider than the clip


def png(pixels: "np.typing.NDArray[np.uint8]") -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def clip() -> "np.typing.NDArray[np.uint8]":
    """The photo as frame 0, from which the camera pans away."""
    first = fit_photo(PHOTO, 64, 64, Fit.CROP)
    return np.stack([np.roll(first, index, axis=1) for index in range(8)])


def encode(photo: bytes | None, request: JobRequest = REQUEST) -> tuple[Any, dict[str, Any]]:
    encoder = VideoEncoder(CONFIG, NOWHERE, PhotoLimits(), pan)
    provenance = Provenance({"d": 1.0}, ("prompt cut",), 7 << 30)
    encoded = encoder._encode(request, request.sampling, clip(), photo, provenance)
    return encoded, json.loads(encoded.files["manifest.json"][0])


def test_the_recipe_names_everything_that_decides_the_bytes(tmp_path: Path) -> None:
    encoded, manifest = encode(png(PHOTO))
    assert manifest["warnings"] == ["it is small", "prompt cut"]
    recipe = manifest["request"]
    assert recipe["photo_sha256"] == REQUEST.photo_sha256
    assert recipe["mp4"] == {"codec": "libx264", "crf": 30, "preset": "veryfast", "threads": 1}
    assert recipe["interpolation"] == CONFIG.interpolation.model_dump()

    path = tmp_path / "video.mp4"
    path.write_bytes(encoded.files["video.mp4"][0])
    assert json.loads(probe_mp4(path).metadata["shopreel"]) == recipe


def test_the_clip_is_measured_against_the_photo_as_the_model_was_given_it() -> None:
    encoded, manifest = encode(png(PHOTO))
    assert encoded.quality == measure(clip(), fit_photo(PHOTO, 64, 64, Fit.CROP))
    assert encoded.quality.subject_first == pytest.approx(1)
    assert manifest["quality"] == dataclasses.asdict(encoded.quality)
    assert manifest["peak_vram_bytes"] == encoded.peak_vram_bytes == 7 << 30
    assert set(manifest["timings"]) == {"d", "quality", "interpolation", "video_encoding"}


def test_the_fit_decides_what_the_photo_looked_like_to_the_model() -> None:
    output = dataclasses.replace(REQUEST.output, fit="stretch")
    encoded, _ = encode(png(PHOTO), dataclasses.replace(REQUEST, output=output))
    assert encoded.quality.subject_first < 0.9


PANNED = dataclasses.replace(
    REQUEST,
    sampling=dataclasses.replace(REQUEST.sampling, motion_strength=0.5),
    camera_motion=CameraMove(Move.PAN_LEFT),
)


def test_a_clip_with_a_camera_move_is_measured_against_where_the_move_begins() -> None:
    encoded, _ = encode(png(PHOTO), PANNED)
    begins = next(pan(PHOTO, CameraMove(Move.PAN_LEFT), 8, (64, 64), Fit.CROP))
    assert encoded.quality == measure(clip(), begins)
    assert encoded.quality != encode(png(PHOTO))[0].quality
    all_of_it = dataclasses.replace(PANNED.sampling, motion_strength=1.0)
    plain, _ = encode(png(PHOTO), dataclasses.replace(PANNED, sampling=all_of_it))
    assert plain.quality == measure(clip(), fit_photo(PHOTO, 64, 64, Fit.CROP))


def test_the_recipe_says_what_the_camera_did_and_how_many_steps_were_run() -> None:
    recipe = encode(png(PHOTO), PANNED)[1]["request"]
    assert recipe["camera_motion"] == {
        "move": "pan_left",
        "speed": "normal",
        "ease": "ease_in_out",
    }
    assert (recipe["unet_steps"], recipe["sampling"]["num_inference_steps"]) == (2, 4)
    assert recipe["starts_from_frames"] is True
    assert recipe["sampling"]["motion_strength"] == 0.5
    assert not {"camera_motion", "unet_steps"} & encode(png(PHOTO))[1]["request"].keys()


def test_a_photo_that_is_gone_costs_the_likeness_and_not_the_video() -> None:
    encoded, manifest = encode(None)
    assert manifest["quality"]["score"] is None
    assert manifest["quality"]["subject_first"] is None
    assert manifest["quality"]["motion"] > 0
    assert any("photo" in warning for warning in manifest["warnings"])
    assert encoded.files["video.mp4"][0]


def test_who_had_a_shared_result_made_stands_apart_from_what_belongs_to_it() -> None:
    other = dataclasses.replace(REQUEST, id="video_2", sku="BAG-2", title="Bag", metadata={})
    (_, first), (_, second) = encode(png(PHOTO)), encode(png(PHOTO), other)
    assert first.pop("first_job") == {
        "id": "video_1",
        "sku": "BAG-1",
        "title": None,
        "metadata": {"k": "värde"},
    }
    assert second.pop("first_job")["id"] == "video_2"
    for manifest in (first, second):
        del manifest["timings"]
    assert first == second


def test_lpips_weights_that_cannot_be_used_stop_the_replica(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"lpips_weights": tmp_path / "none.safetensors"})
    with pytest.raises(WeightsUnusable, match=r"none\.safetensors"):
        VideoEncoder(config, NOWHERE, PhotoLimits(), pan)
