"""The photo laid out for a camera, and what the camera sees of it.

The photo becomes the stage by the product's own fit modes. So the margin in which the camera moves
is cut from the photo (crop) or laid out as backdrop (contain); nothing is mirrored or repeated.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video.camera.move import Move
from video.camera.path import CameraPath, View
from video.photo import Fit, fit_photo

Pixels = NDArray[np.uint8]

_OVERSAMPLING = 1.5  # stage pixels per frame pixel at the closest view: two resamplings show less
_MAX_PX = 40_000_000
_AT_SCALE_1 = (Move.STATIC, Move.ROLL_LEFT, Move.ROLL_RIGHT)  # the picture needs no shrinking
_ROUNDING = 1e-6  # of a stage, by which a view that just fits may seem to leave it


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A picture on the plane that the camera looks at, its centre at the plane's origin."""

    pixels: Pixels  # [H, W, 3], or a matte [H, W]
    width: float  # of the plane, in frame pixels at scale 1
    height: float

    def look(self, view: View, width: int, height: int) -> Pixels:
        """What the camera sees, [height, width, 3] or [height, width].

        Lanczos, its support widened where the picture shrinks; places are exact to 1/32 px of the
        frame where the camera is turned, else to rounding. Raises ValueError for a view that leaves
        the stage.
        """
        rows, columns = self.pixels.shape[:2]
        size = np.array([columns, rows])
        scale = size / (self.width, self.height)
        to_pixels = scale[:, None] * view.to_stage(width, height)
        to_pixels[:, 2] += size / 2  # now edges lie at integers
        corners = np.array([[x, y, 1] for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
        seen = corners @ to_pixels.T
        if (seen < -_ROUNDING * size).any() or (seen > (1 + _ROUNDING) * size).any():
            raise ValueError(f"{view} leaves a stage of {self.width:g} x {self.height:g}")
        if view.angle:
            return _turned(self.pixels, to_pixels, width, height)
        left, top = np.maximum(seen.min(axis=0), 0)
        right, bottom = np.minimum(seen.max(axis=0), size)
        image = Image.fromarray(self.pixels)
        box = (left, top, right, bottom)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))


def _turned(pixels: Pixels, to_pixels: NDArray[np.float64], width: int, height: int) -> Pixels:
    to_pixels[:, 2] -= 0.5  # OpenCV has pixel centres at integers
    return np.asarray(
        cv2.warpAffine(
            pixels,
            to_pixels,
            (width, height),
            flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,  # for the filter's taps: the places lie inside
        )
    )


def make_stage(
    rgb: Pixels,
    path: CameraPath,
    fit: Fit,
    color: tuple[int, int, int] = (255, 255, 255),
    density: float | None = None,
) -> Stage:
    """`rgb` [H, W, 3] laid out by `fit` for all that `path` sees, by default as finely as the
    frames need: `density` stage pixels for a frame pixel at scale 1."""
    width, height = path.extent
    if fit is Fit.STRETCH:  # as a frame would be
        grow = max(width / path.width, height / path.height)
        width, height = path.width * grow, path.height * grow
    if density is None:
        fine = 1.0 if path.camera.move in _AT_SCALE_1 else path.max_scale * _OVERSAMPLING
        density = max(1.0, min(fine, (_MAX_PX / (width * height)) ** 0.5))
    pixels = fit_photo(rgb, round(width * density), round(height * density), fit, color)
    return Stage(pixels, width, height)
