"""In-between frames from bidirectional optical flow (OpenCV's DIS), on the CPU.

Good for what a camera or a product does between two frames a fraction of a second apart. It fails
on objects that move by more than about half their own size, on thin structures and on text that
appears: those blend.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_T = TypeVar("_T", np.uint8, np.float32)

_DIS_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
# Short side, px, at which flow is sought. With one under 32 px, DIS of OpenCV 5.0 raises, returns
# NaN or kills the process, by shape and preset; 128 also gains 2 dB at occlusions in 64 px frames.
_MIN_FLOW_SIDE = 128
_SEARCH_STEPS = 4  # more gain nothing
# What a sample weighs: both flows agree on it; it looks right where it lands; neither; nothing
# arrives at all.
_AGREED, _PLAUSIBLE, _DOUBTED, _HOPELESS = 1.0, 0.5, 0.1, 0.001
_CHANGED, _ALIKE, _UNEXPLAINED = 12, 24, 40  # differences of colour, in levels of 255


class InterpolationConfig(BaseModel):
    """How flow is sought and when it is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dis_preset: Literal["ultrafast", "fast", "medium"] = "medium"
    consistency_px: float = Field(default=1.0, gt=0)  # how far there and back may miss the start
    # A cut lies between two frames if flow leaves more than this share of the changed pixels
    # unexplained. Measured: camera moves and moving products up to 0.35, another product on the
    # same white backdrop from 0.48, another scene from 0.78.
    cut_threshold: float = Field(default=0.4, gt=0, le=1)


def interpolate(
    frames: NDArray[np.uint8], inbetweens: int, config: InterpolationConfig
) -> NDArray[np.uint8]:
    """`inbetweens` new frames between all neighbours of `frames`, uint8 [F, H, W, 3].

    Returns uint8 [(F - 1) * (inbetweens + 1) + 1, H, W, 3] in which the given frames stand
    untouched. Equal input gives equal output, on any number of threads.
    """
    if inbetweens < 0:
        raise ValueError(f"inbetweens must be 0 or more, not {inbetweens}")
    step = inbetweens + 1
    count = (len(frames) - 1) * step + 1
    result = np.empty((count, *frames.shape[1:]), dtype=np.uint8)
    result[::step] = frames
    if inbetweens:
        times = [k / step for k in range(1, step)]
        for index, (first, second) in enumerate(pairwise(frames)):
            start = index * step + 1
            result[start : start + inbetweens] = _between(first, second, times, config)
    return result


def _between(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    times: list[float],
    config: InterpolationConfig,
) -> list[NDArray[np.uint8]]:
    """The frames at `times`, each between 0 (`first`) and 1 (`second`)."""
    flow, back_flow = _flows(first, second, config.dis_preset)
    ahead = _motion(first, second, flow, back_flow, config.consistency_px)
    behind = _motion(second, first, back_flow, flow, config.consistency_px)
    if _is_cut(ahead, behind, config.cut_threshold):
        return [first if time <= 0.5 else second for time in times]
    return [_blend(ahead, behind, time) for time in times]


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """A frame and where its pixels go until the other frame."""

    frame: NDArray[np.uint8]  # [H, W, 3]
    flow: NDArray[np.float32]  # [H, W, 2] px, x before y
    error: NDArray[np.uint8]  # [H, W], colour difference from the other frame where the flow leads
    trust: NDArray[np.float32]  # [H, W], _AGREED, _PLAUSIBLE or _DOUBTED

    def at(self, time: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The frame after a part `time` of the way, [H, W, 3], and each pixel's weight, [H, W].

        Every pixel looks, by fixed-point iteration, for the place whose content arrives at it.
        Where there is none, something stands there by then that this frame hides.
        """
        grid = _grid(self.flow)
        source = grid - time * self.flow
        for _ in range(_SEARCH_STEPS):
            source = grid - time * _sample(self.flow, source)
        miss = np.linalg.norm(source + time * _sample(self.flow, source) - grid, axis=-1)
        arrives = (miss < 0.5) & _inside(source)
        weight = np.where(arrives, _sample(self.trust, source), _HOPELESS)
        return _sample(self.frame, source, cv2.INTER_CUBIC), weight


def _motion(
    frame: NDArray[np.uint8],
    other: NDArray[np.uint8],
    flow: NDArray[np.float32],
    back_flow: NDArray[np.float32],
    consistency_px: float,
) -> _Motion:
    """Trusts a pixel's flow if the other frame's flow leads back: else it is hidden there, or one
    of the two flows is wrong, and how it looks where it lands must tell."""
    target = _grid(flow) + flow
    error = cv2.absdiff(frame, _sample(other, target)).max(axis=-1)
    miss = np.linalg.norm(flow + _sample(back_flow, target), axis=-1)
    agreed = (miss < consistency_px) & _inside(target)
    trust = np.where(agreed, _AGREED, np.where(error < _ALIKE, _PLAUSIBLE, _DOUBTED))
    return _Motion(frame, flow, error, trust.astype(np.float32))


def _is_cut(ahead: _Motion, behind: _Motion, threshold: float) -> bool:
    """Whether too many of the pixels that differ are not explained by either flow."""
    changed = cv2.absdiff(ahead.frame, behind.frame).max(axis=-1) > _CHANGED
    if not changed.any():
        return False
    unexplained = ((motion.error[changed] > _UNEXPLAINED).mean() for motion in (ahead, behind))
    return bool(min(unexplained) > threshold)


def _blend(ahead: _Motion, behind: _Motion, time: float) -> NDArray[np.uint8]:
    """Both frames carried to `time`; where only one is trusted it shows alone."""
    first, first_trust = ahead.at(time)
    second, second_trust = behind.at(1 - time)
    first_weight, second_weight = (1 - time) * first_trust, time * second_trust
    share = (second_weight / (first_weight + second_weight))[..., None]
    return np.rint(first + share * (second.astype(np.float32) - first)).astype(np.uint8)


def _flows(
    first: NDArray[np.uint8], second: NDArray[np.uint8], preset: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of `first` lies in `second`, and the reverse: [H, W, 2] px, x before y.

    DIS: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """
    height, width = first.shape[:2]
    scale = max(1.0, _MIN_FLOW_SIDE / min(height, width))
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


def _grid(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The position of every pixel, [H, W, 2], x before y."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y))


def _sample(
    image: NDArray[_T], where: NDArray[np.float32], interpolation: int = cv2.INTER_LINEAR
) -> NDArray[_T]:
    """`image` at the places `where`, [H, W, 2] px; beyond the edges its edge goes on."""
    return np.asarray(cv2.remap(image, where, None, interpolation, borderMode=cv2.BORDER_REPLICATE))


def _inside(where: NDArray[np.float32]) -> NDArray[np.bool_]:
    height, width = where.shape[:2]
    x, y = where[..., 0], where[..., 1]
    inside: NDArray[np.bool_] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside
