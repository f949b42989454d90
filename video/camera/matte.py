"""The product cut out of its photo without weights, with a soft edge."""

import cv2
import numpy as np
from numpy.typing import NDArray

from video.camera.fill import fill
from video.subject import weigh_subject

_SIDE = 320  # px, long side of the copy that is cut
_ROUNDS = 4
_AREA = (0.02, 0.92)  # of the picture: less is a speck, more leaves no background to move
_MOST_OF_BORDER = 0.25  # what leaves a scene on more of its border has no outline
_LEAST_CONTRAST = 10.0  # Lab units across the outline, as a median
_MARGIN, _FEATHER = 0.025, 0.012  # of the long side, about a product on a plain backdrop
_UNSEEN, _MOST = 6.0, 0.9  # so much of its rim is less than so many Lab units off the backdrop
_EDGE_PX = 0.8  # sigma of the edge in a scene, px of the small copy


def find_matte(rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """How far each pixel of `rgb` [H, W, 3] belongs to the product, [H, W], 0 to 1; None where no
    product stands clear of its background."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(32, round(width * scale)), max(32, round(height * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    seen = weigh_subject(small)
    visible = cv2.resize(seen.visible.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    matte = _generous(visible, small) if seen.is_plain else _tight(visible, small)
    if matte is None or not _AREA[0] <= matte.mean() <= _AREA[1]:
        return None
    return np.clip(cv2.resize(matte, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _generous(
    visible: NDArray[np.uint8], rgb: NDArray[np.uint8]
) -> NDArray[np.float32] | None:
    """On a plain backdrop a rim of it may come along unseen, and should: it holds the shadow, and
    pale sides of the product that nothing tells from the backdrop. So, the convex hull."""
    mask = np.asarray(cv2.morphologyEx(visible, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)))
    points = cv2.findNonZero(mask)
    if points is None:
        return None
    cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    side = max(mask.shape)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(_MARGIN * side) + 1,) * 2)
    mask = np.asarray(cv2.dilate(mask, kernel))
    if not _is_backdrop_round(mask, rgb):
        return None
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _FEATHER * side)


def _is_backdrop_round(mask: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> bool:
    """Whether the rim of the mask looks like what would be filled in there: else it cuts through
    the product."""
    behind = fill(rgb.astype(np.float32), 1 - mask.astype(np.float32))
    photo, filled = (
        cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for image in (rgb, behind)
    )
    rim = (mask > 0) & (cv2.erode(mask, np.ones((5, 5), np.uint8)) == 0)
    difference = np.linalg.norm(photo - filled, axis=-1)[rim]
    return bool((difference < _UNSEEN).mean() > _MOST)


def _tight(visible: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """In a scene every pixel of the rim shows. GrabCut: Rother et al., SIGGRAPH 2004."""
    trimap = np.where(visible > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[cv2.erode(visible, np.ones((9, 9), np.uint8)) > 0] = cv2.GC_FGD
    trimap[cv2.dilate(visible, np.ones((41, 41), np.uint8)) == 0] = cv2.GC_BGD
    if not (trimap == cv2.GC_FGD).any() or not (trimap == cv2.GC_BGD).any():
        return None
    cv2.setRNGSeed(0)  # its clusters start from OpenCV's generator
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(rgb, trimap, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = _largest(np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8))
    if found is None or not _is_clear(found, rgb):
        return None
    return cv2.GaussianBlur(found.astype(np.float32), (0, 0), _EDGE_PX)


def _largest(mask: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The largest piece of `mask`, without hairs and pinholes."""
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    piece = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(piece, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)))


def _is_clear(mask: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> bool:
    """Whether the colours along both sides of the outline differ, and most of it is in sight."""
    border = np.concatenate((mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    kernel = np.ones((7, 7), np.uint8)
    sides = mask - cv2.erode(mask, kernel), cv2.dilate(mask, kernel) - mask
    means = []  # of each side within 15 px: elsewhere along the outline the colours are others
    for side in sides:
        share = cv2.blur(side.astype(np.float32), (15, 15))[..., None]
        means.append(cv2.blur(lab * side[..., None], (15, 15)) / np.maximum(share, 1e-3))
    contrast = np.linalg.norm(means[0] - means[1], axis=-1)[sides[0] > 0]
    return bool(border.mean() <= _MOST_OF_BORDER and np.median(contrast) >= _LEAST_CONTRAST)
