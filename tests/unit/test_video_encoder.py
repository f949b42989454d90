"""What a finished clip's manifest, and the file itself, say of how it was made."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from deployments.video_encoder import VideoEncoder, VideoEncoderConfig
from storage.jobs import OutputParams
from storage.object_store import ObjectStoreConfig
from tests.sample_jobs import make_request
from video.mp4 import Mp4Config, probe_mp4


def test_the_recipe_names_everything_that_decides_the_bytes(tmp_path: Path) -> None:
    store = ObjectStoreConfig.model_validate(
        {"endpoint": "127.0.0.1:9", "bucket": "none", "access_key": "", "secret_key": ""}
    )
    config = VideoEncoderConfig(mp4=Mp4Config(codec="libx264", crf=30))
    request = dataclasses.replace(
        make_request("video_1"),
        output=OutputParams(fit="crop", fps=8.0, inbetweens=1),
        warnings=("it is small",),
    )
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    encoded = VideoEncoder(config, store)._encode(
        request, request.sampling, frames, {}, ["prompt cut"]
    )

    manifest = json.loads(encoded.files["manifest.json"][0])
    assert manifest["warnings"] == ["it is small", "prompt cut"]
    recipe = manifest["request"]
    assert recipe["photo_sha256"] == request.photo_sha256
    assert recipe["mp4"] == {"codec": "libx264", "crf": 30, "preset": "veryfast", "threads": 1}
    assert recipe["interpolation"] == config.interpolation.model_dump()

    path = tmp_path / "video.mp4"
    path.write_bytes(encoded.files["video.mp4"][0])
    assert json.loads(probe_mp4(path).metadata["shopreel"]) == recipe
