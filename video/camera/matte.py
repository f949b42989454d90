"""The product of a photo on a plain backdrop, cut out without weights, with a soft edge.

Not in a scene: GrabCut from what is salient there was tried on photographs and tore cups, faces and
motorcycles apart. A camera move that harms the product is worse than one without depth.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from video.camera.fill import fill
from video.subject import weigh_subject

_SIDE = 320  # px, long side of the copy that is cut
_AREA = (0.02, 0.92)  # of the picture: less is a speck, more leaves no background to move
_MARGIN, _FEATHER = 0.035, 0.018  # of the long side, about the product's hull
_UNSEEN, _MOST = 6.0, 0.9  # so much of the rim is less than so many Lab units off the backdrop


def find_matte(rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """How far each pixel of `rgb` [H, W, 3] belongs to the product, [H, W], 0 to 1; None where no
    product stands clear of a plain backdrop.

    A rim of the backdrop may come along unseen, and should: it holds the shadow, and pale sides of
    the product that nothing tells from the backdrop. So it is the convex hull of what is visible.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(32, round(width * scale)), max(32, round(height * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    seen = weigh_subject(small)
    if not seen.is_plain:
        return None
    visible = cv2.resize(seen.visible.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    hull = _hull(np.asarray(cv2.morphologyEx(visible, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))))
    if not _AREA[0] <= hull.mean() <= _AREA[1] or not _is_backdrop_round(hull, small):
        return None
    matte = cv2.GaussianBlur(hull.astype(np.float32), (0, 0), _FEATHER * max(size))
    return np.asarray(cv2.resize(matte, (width, height), interpolation=cv2.INTER_LINEAR))


def _hull(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convex, and a margin about it."""
    points = cv2.findNonZero(mask)
    if points is not None:
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    diameter = 2 * round(_MARGIN * max(mask.shape)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
    return np.asarray(cv2.dilate(mask, disc))


def _is_backdrop_round(hull: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> bool:
    """Whether the rim of the hull looks like what would be filled in there: else it cuts through
    the product."""
    behind = fill(rgb.astype(np.float32), 1 - hull.astype(np.float32))
    photo, filled = (
        cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for image in (rgb, behind)
    )
    rim = (hull > 0) & (cv2.erode(hull, np.ones((5, 5), np.uint8)) == 0)
    difference = np.linalg.norm(photo - filled, axis=-1)[rim]
    return bool((difference < _UNSEEN).mean() > _MOST)
