"""What was measured of a clip, and the one number that orders clips of the same photo.

Standard library only: the stores and the wire know this type without the tools that measure.
"""

import math
from dataclasses import dataclass

_FIRST, _MEAN, _COLOR = 0.5, 0.25, 0.25  # what the parts of the likeness weigh
_COLOR_SCALE = 10.0  # CIELAB units at which a shift of colour has lost 1 - 1/e of its part
_WARP_SCALE, _FLICKER_SCALE = 0.1, 0.05  # shares of full range, likewise
_LIVELY = 0.001  # of the short side per frame, half a pixel in 512: less is less than a video


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of the generated frames, interpolated ones left out. None: could not be measured.

    All sides are scaled to at most 256 px on the short one first, so clips of different sizes can
    be compared.
    """

    score: float | None = None  # 0..1, see `combined_score`; None without the photo
    subject_first: float | None = None  # SSIM of frame 0 to the photo on the product; 1 is equal
    subject_mean: float | None = None  # the same, mean over frames
    color_shift: float | None = None  # product's colours off the photo's, mean; CIELAB units
    lpips_first: float | None = None  # perceptual distance of frame 0 from the photo; 0 is equal
    lpips_mean: float | None = None  # the same, mean over frames
    flicker: float | None  # brightness going up and down in what moves along; 0..1 of full range
    warp_error: float | None  # neighbours' difference after motion; 0..1 of full range
    tracked: float  # 0..1, share of pixels whose motion to the next frame can be followed
    motion: float  # mean way of a pixel per frame, as share of the short side


def combined_score(
    subject_first: float,
    subject_mean: float,
    color_shift: float,
    flicker: float | None,
    warp_error: float | None,
    tracked: float,
    motion: float,
) -> float:
    """likeness x steadiness x liveliness, each 0..1.

    likeness    does it show the product: 0.5 subject_first + 0.25 subject_mean
                + 0.25 exp(-color_shift / 10)
    steadiness  does it hang together: tracked x exp(-warp_error / 0.1) x exp(-flicker / 0.05);
                0 where nothing could be followed at all
    liveliness  is it a video: motion / 0.001, at most 1

    A product, so that no part makes up for another: a still photo lacks the last, noise the first
    two. An order among clips of one photo and preset, no opinion of a viewer: scales are set by
    hand, and a turn of the product costs likeness that it should not.
    """
    if warp_error is None:
        return 0.0
    likeness = (
        _FIRST * max(0.0, subject_first)
        + _MEAN * max(0.0, subject_mean)
        + _COLOR * math.exp(-color_shift / _COLOR_SCALE)
    )
    steadiness = tracked * math.exp(-warp_error / _WARP_SCALE - (flicker or 0.0) / _FLICKER_SCALE)
    return likeness * steadiness * min(1.0, motion / _LIVELY)
