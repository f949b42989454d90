"""How true a camera move is: to its path by measured motion, to the photo by sharpness."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from video.camera.path import CameraPath, View
from video.camera.scene import Scene
from video.camera.stage import Pixels, make_stage
from video.flow import find_flows, inside, positions
from video.photo import Fit

_TEXTURE = 4.0  # levels per px: on a smooth backdrop flow cannot be measured
_FINER = 4  # times, is the picture that a frame's sharpness is held against


def path_error_px(scene: Scene, frames: Sequence[Pixels], first: int, second: int) -> float:
    """Mean distance in px between the optical flow (DIS) from frame `first` to `second` and the
    path's true motion, over the pixels with texture that stay in the frame; NaN without any."""
    measured, _ = find_flows(frames[first], frames[second], "medium")
    true = scene.flow(first, second)
    counts = (_gradient(frames[first]) > _TEXTURE) & inside(positions(true) + true)
    return (
        float(np.linalg.norm(measured - true, axis=-1)[counts].mean()) if counts.any() else np.nan
    )


def sharpness_kept(frame: Pixels, photo: Pixels) -> float:
    """Gradient energy of `frame` over that of `photo` as seen from the same view. 1: none lost;
    Lanczos keeps more of the highest frequencies than the area mean that it is compared with."""
    return float((_gradient(frame) ** 2).mean() / (_gradient(photo) ** 2).mean())


def photo_from(rgb: Pixels, path: CameraPath, view: View, fit: Fit) -> Pixels:
    """What a perfect camera at `view` would see of `rgb` [H, W, 3]: [height, width, 3], every pixel
    the mean over its area."""
    stage = make_stage(rgb, path, fit, density=_FINER * path.max_scale)
    fine = replace(view, x=view.x * _FINER, y=view.y * _FINER)
    size = path.width * _FINER, path.height * _FINER
    wide = replace(stage, width=stage.width * _FINER, height=stage.height * _FINER)
    seen = wide.look(fine, *size)
    return np.asarray(cv2.resize(seen, (path.width, path.height), interpolation=cv2.INTER_AREA))


def _gradient(frame: Pixels) -> NDArray[np.float32]:
    """Its magnitude, levels per px."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=1, scale=0.5) for order in ((1, 0), (0, 1)))
    return np.asarray(np.hypot(x, y))
