"""MP4 encoding and frame interpolation in frames per second, at 512 x 512, one thread."""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.clip import PHOTO
from benchmarks.machine import median_seconds
from video.interpolate import InterpolationConfig, interpolate
from video.mp4 import Mp4Config, choose_codec, write_mp4
from video.photo import PhotoLimits, open_photo

FRAMES, SIDE, INBETWEENS = 16, 512, 2


def measure() -> dict[str, Any]:
    cv2.setNumThreads(1)
    frames = _zoom()
    config = Mp4Config()
    codec = choose_codec(config)
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "video.mp4"
        encoding = median_seconds(lambda: write_mp4(path, frames, 24, codec, config, {}), repeats=7)
        size = path.stat().st_size
    made = (FRAMES - 1) * INBETWEENS
    interpolation = median_seconds(
        lambda: interpolate(frames, INBETWEENS, InterpolationConfig()), repeats=3
    )
    return {
        "mp4": {"codec": codec, "frames_per_second": round(FRAMES / encoding, 1), "bytes": size},
        "interpolation": {
            "new_frames_per_second": round(made / interpolation, 1),
            "seconds_for_16_to_46_frames": round(interpolation, 3),
        },
    }


def _zoom() -> NDArray[np.uint8]:
    """A slow push-in on a product photo: 16 frames."""
    rgb = open_photo(PHOTO.read_bytes(), PhotoLimits()).rgb
    frames = []
    for step in range(FRAMES):
        margin = 4 * step
        view = rgb[margin : len(rgb) - margin, margin : rgb.shape[1] - margin]
        frames.append(cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return np.stack(frames).astype(np.uint8)
