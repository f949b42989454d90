"""Optical flow between two frames, and which pixels it can be believed for."""

from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", np.uint8, np.float32)

Preset = Literal["ultrafast", "fast", "medium"]
_DIS_PRESETS: dict[Preset, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
# Short side, px, at which flow is sought. With one under 32 px, DIS of OpenCV 5.0 raises, returns
# NaN or kills the process, by shape and preset; 128 also gains 2 dB at occlusions in 64 px frames.
_MIN_SIDE = 128


def find_flows(
    first: NDArray[np.uint8], second: NDArray[np.uint8], preset: Preset
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of `first` lies in `second`, and the reverse: [H, W, 2] px, x before y.

    DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """
    height, width = first.shape[:2]
    scale = max(1.0, _MIN_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    greys = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
        for frame in (first, second)
    ]
    search = cv2.DISOpticalFlow.create(_DIS_PRESETS[preset])
    shrink = np.array([width / size[0], height / size[1]], dtype=np.float32)
    there, back = (
        cv2.resize(search.calc(a, b, None), (width, height), interpolation=cv2.INTER_AREA) * shrink
        for a, b in (greys, reversed(greys))
    )
    return there, back


def follow(
    flow: NDArray[np.float32], back_flow: NDArray[np.float32], consistency_px: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where `flow` leads, [H, W, 2] px, and whether `back_flow` leads back from there, [H, W].

    Where it misses by `consistency_px` or more the pixel is hidden in the other frame, or one of
    the flows is wrong. Sundaram et al., "Dense Point Trajectories by GPU-Accelerated Large
    Displacement Optical Flow", ECCV 2010.
    """
    target = positions(flow) + flow
    miss = np.linalg.norm(flow + sample(back_flow, target), axis=-1)
    return target, (miss < consistency_px) & inside(target)


def positions(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The position of every pixel, [H, W, 2], x before y."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))


def sample(
    image: NDArray[_T], where: NDArray[np.float32], interpolation: int = cv2.INTER_LINEAR
) -> NDArray[_T]:
    """`image` at the places `where`, [H, W, 2] px; beyond the edges its edge goes on."""
    return np.asarray(cv2.remap(image, where, None, interpolation, borderMode=cv2.BORDER_REPLICATE))


def inside(where: NDArray[np.float32]) -> NDArray[np.bool_]:
    height, width = where.shape[:2]
    x, y = where[..., 0], where[..., 1]
    within: NDArray[np.bool_] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return within
