"""In-between frames from bidirectional optical flow (OpenCV's DIS), on the CPU.

Good for what a camera or a product does between two frames a fraction of a second apart. It fails
on objects that move by more than about half their own size, on thin structures and on text that
appears: those blend.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from video.flow import Preset, find_flows, follow, inside, positions, sample

_SEARCH_STEPS = 4  # more gain nothing
# What a sample weighs: both flows agree on it; it looks right where it lands; neither; nothing
# arrives at all.
_AGREED, _PLAUSIBLE, _DOUBTED, _HOPELESS = 1.0, 0.5, 0.1, 0.001
_CHANGED, _ALIKE, _UNEXPLAINED = 12, 24, 40  # differences of colour, in levels of 255


class InterpolationConfig(BaseModel):
    """How flow is sought and when it is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dis_preset: Preset = "medium"
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
    flow, back_flow = find_flows(first, second, config.dis_preset)
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
        grid = positions(self.flow)
        source = grid - time * self.flow
        for _ in range(_SEARCH_STEPS):
            source = grid - time * sample(self.flow, source)
        miss = np.linalg.norm(source + time * sample(self.flow, source) - grid, axis=-1)
        arrives = (miss < 0.5) & inside(source)
        weight = np.where(arrives, sample(self.trust, source), _HOPELESS)
        return sample(self.frame, source, cv2.INTER_CUBIC), weight


def _motion(
    frame: NDArray[np.uint8],
    other: NDArray[np.uint8],
    flow: NDArray[np.float32],
    back_flow: NDArray[np.float32],
    consistency_px: float,
) -> _Motion:
    """Trusts a pixel's flow if the other frame's flow leads back: else it is hidden there, or one
    of the two flows is wrong, and how it looks where it lands must tell."""
    target, agreed = follow(flow, back_flow, consistency_px)
    error = cv2.absdiff(frame, sample(other, target)).max(axis=-1)
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
