"""Frames to their measured quality: likeness to the photo, steadiness and motion, on the CPU."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from video.flow import find_flows, follow, sample
from video.quality import Quality, combined_score
from video.subject import Box, find_subject

Pixels = NDArray[np.uint8]
Perceptual = Callable[[Pixels, Pixels], Sequence[float]]
"""frames [N, H, W, 3], photo [H, W, 3] -> distance of each frame from the photo."""

_SIDE = 256  # px, longest short side that is looked at
_RUNS, _RUN = 4, 4  # of longer clips, so many runs of so many neighbours
_DRIFT_STEPS = _RUN - 1  # steps whose flow is averaged: grain on a still clip goes to and fro
_CONSISTENCY_PX = 1.0
_LEAST_TRACKED = 0.05  # of the pixels; with fewer a mean over them says nothing of the frame


def measure(frames: Pixels, photo: Pixels | None, perceptual: Perceptual | None = None) -> Quality:
    """The quality of `frames` [F, H, W, 3], at least two, made from `photo` [H, W, 3].

    `photo` is frame 0 as the model was given it; None leaves likeness and score unmeasured. Looks
    at no more than 16 frames: of a longer clip, at runs of neighbours spread evenly over it. Flow
    is sought at the small size whatever interpolation found at the full one, so that a score does
    not hang on whether the clip was interpolated.

    Raises ValueError for fewer than two frames, or a photo of another size.
    """
    if len(frames) < 2:
        raise ValueError("a clip of fewer than two frames has no motion to measure")
    if photo is not None and photo.shape != frames.shape[1:]:
        raise ValueError(f"photo {photo.shape} and frames {frames.shape[1:]} differ in size")
    runs = [[_shrunk(frames[i]) for i in run] for run in _runs(len(frames))]
    steps = [[_step(first, second) for first, second in pairwise(run)] for run in runs]
    quality = Quality(
        flicker=_mean(jolt for run in steps for jolt in _jolts(run)),
        warp_error=_mean(step.warp_error for run in steps for step in run),
        tracked=fmean(step.tracked for run in steps for step in run),
        motion=fmean(drift for run in steps for drift in _drifts(run)),
    )
    if photo is None:
        return quality
    return _compared(quality, np.stack([*chain(*runs)]), _shrunk(photo), perceptual)


def _runs(count: int) -> list[range]:
    """Neighbours stay neighbours: with frames left out, alternating flicker would go unseen."""
    if count <= _RUNS * _RUN:
        return [range(count)]
    starts = (round(index * (count - _RUN) / (_RUNS - 1)) for index in range(_RUNS))
    return [range(start, start + _RUN) for start in starts]


def _shrunk(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


@dataclass(frozen=True, slots=True)
class _Step:
    """From one frame to the next."""

    flow: NDArray[np.float32]  # [H, W, 2] px
    tracked: float
    warp_error: float | None  # None: too little could be followed
    brightening: float | None  # of what was followed, share of full range


def _step(first: Pixels, second: Pixels) -> _Step:
    """Warp error as in Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with
    absolute instead of squared differences: it reads as a share of full range."""
    there, back = find_flows(first, second, "medium")
    target, followed = follow(there, back, _CONSISTENCY_PX)
    tracked = float(followed.mean())
    if tracked < _LEAST_TRACKED:
        return _Step(there, tracked, None, None)
    change = (sample(second, target).astype(np.float32) - first)[followed] / 255  # [N, 3]
    luma = change @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _Step(there, tracked, float(np.abs(change).mean()), float(luma.mean()))


def _drifts(steps: Sequence[_Step]) -> Iterable[float]:
    """Mean way of a pixel per frame, share of the short side, over each few steps."""
    for start in range(0, len(steps), _DRIFT_STEPS):
        flow = np.mean([step.flow for step in steps[start : start + _DRIFT_STEPS]], axis=0)
        yield float(np.linalg.norm(flow, axis=-1).mean()) / min(flow.shape[:2])


def _jolts(steps: Iterable[_Step]) -> Iterable[float | None]:
    """How far each brightening is from the one before: a steady fade has none."""
    for one, other in pairwise(steps):
        if one.brightening is None or other.brightening is None:
            yield None
        else:
            yield abs(other.brightening - one.brightening)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _compared(
    quality: Quality, frames: Pixels, photo: Pixels, perceptual: Perceptual | None
) -> Quality:
    """Looks where the product stands in the photo: a backdrop is like itself in every clip."""
    rows, columns = _window(find_subject(photo), photo.shape)
    similar = [float(_similarity(frame, photo)[rows, columns].mean()) for frame in frames]
    colors = _sorted_lab(photo[rows, columns])
    shifts = [np.abs(_sorted_lab(frame[rows, columns]) - colors).mean(axis=0) for frame in frames]
    first, mean, shift = similar[0], fmean(similar), float(np.linalg.norm(shifts, axis=-1).mean())
    if perceptual is not None:
        distances = perceptual(frames, photo)
        quality = replace(quality, lpips_first=distances[0], lpips_mean=fmean(distances))
    return replace(
        quality,
        score=combined_score(
            first,
            mean,
            shift,
            quality.flicker,
            quality.warp_error,
            quality.tracked,
            quality.motion,
        ),
        subject_first=first,
        subject_mean=mean,
        color_shift=shift,
    )


def _window(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Whole pixels of `box`."""
    left, top = int(box.left), int(box.top)
    right, bottom = min(shape[1], round(box.right)), min(shape[0], round(box.bottom))
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _similarity(frame: Pixels, photo: Pixels) -> NDArray[np.float64]:
    """SSIM of brightness around each pixel, [H, W]: Wang et al., IEEE TIP 13(4), 2004."""
    greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (frame, photo))
    _, local = structural_similarity(  # type: ignore[no-untyped-call]
        *greys, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    return np.asarray(local)


def _sorted_lab(image: Pixels) -> NDArray[np.float32]:
    """Each CIELAB channel's values in order, [pixels, 3].

    The mean distance of two such lists is the earth mover's distance of the colour histograms
    (Rubner et al., IJCV 40(2), 2000): unlike an overlap of bins, it does not jump at their edges.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return np.sort(lab.reshape(-1, 3), axis=0)
