"""A photo taken apart for an orbit: the product with its matte, and the background behind it."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from video.camera.fill import fill
from video.camera.matte import find_matte
from video.camera.stage import Stage

_CLEARANCE = 0.01  # of the long side: what is this near the product is not told from it


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """A product that moves as one piece: nothing in it bends."""

    colors: Stage  # [H, W, 3]
    matte: Stage  # [H, W]


def take_apart(stage: Stage) -> tuple[Stage, Cutout] | None:
    """(the background, filled in behind the product; the product), None where none is clear."""
    matte = find_matte(stage.pixels)
    if matte is None:
        return None
    reach = 2 * round(_CLEARANCE * max(matte.shape)) + 1
    hidden = cv2.dilate((matte > 0.02).astype(np.float32), np.ones((reach, reach), np.uint8))
    filled = fill(stage.pixels.astype(np.float32), 1 - hidden)
    background = np.clip(np.rint(filled), 0, 255).astype(np.uint8)
    alpha = np.rint(matte * 255).astype(np.uint8)
    return replace(stage, pixels=background), Cutout(stage, replace(stage, pixels=alpha))
