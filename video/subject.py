"""Where the product is in a photo, without weights: enough to place a crop, not to cut it out."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 128  # px, long side of the copy that is looked at
_PLAIN_SPREAD = 6.0  # Lab units; a border spread wider than this is a scene, not a backdrop
_JUST_VISIBLE = 3.0  # Lab units; what differs less from the backdrop is noise or shading


class Box(NamedTuple):
    """Edges in px of the photo; right and bottom lie outside, as in Pillow."""

    left: float
    top: float
    right: float
    bottom: float


def find_subject(rgb: NDArray[np.uint8]) -> Box:
    """The box around what stands out in `rgb` [H, W, 3]; the whole photo where nothing does.

    On a backdrop, what differs from it; in a scene, what has colours that its border lacks.
    """
    height, width = rgb.shape[:2]
    weights, _, is_plain = weigh_subject(rgb)
    if not weights.any():
        return Box(0.0, 0.0, float(width), float(height))
    tail = 0.02 if is_plain else 0.1
    left, right = _extent(weights, 1, tail, width)
    top, bottom = _extent(weights, 0, tail, height)
    return Box(left, top, right, bottom)


class Salience(NamedTuple):
    """What stands out in a copy of a photo at most 128 px long."""

    weights: NDArray[np.float32]  # [h, w], 0 or more
    visible: NDArray[np.bool_]  # [h, w], all that is not surely backdrop: pale parts, shadows
    is_plain: bool  # a backdrop, not a scene


def weigh_subject(rgb: NDArray[np.uint8]) -> Salience:
    """Of `rgb` [H, W, 3]."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    difference, spread = _backdrop_difference(lab)
    if spread < _PLAIN_SPREAD:
        floor = max(_JUST_VISIBLE, 3 * spread)
        return Salience(_split(difference, floor), difference > floor, True)
    weights = _unlike_border(lab)
    return Salience(weights, weights > 0, False)


def _backdrop_difference(lab: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Distance of each pixel from a backdrop guessed from the border, and the border's median one.

    The backdrop is a quadratic per channel, so a gradient or a vignette belongs to it, and so does
    what is like both ends of its row or of its column: the edge of a table. The refits leave out
    what is far off, so a product may touch the border.
    """
    height, width = lab.shape[:2]
    y, x = _coordinates(height, width)
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    border = _border(height, width, 3)
    kept = border
    for _ in range(4):
        coefficients, *_ = np.linalg.lstsq(terms[kept], lab[kept], rcond=None)
        smooth = np.linalg.norm(lab - terms @ coefficients, axis=-1)
        spread = float(np.median(smooth[border]))
        kept = border & (smooth <= max(2 * spread, 1.0))
    rows, columns = (
        np.maximum(*(np.linalg.norm(lab - end, axis=-1) for end in ends))
        for ends in (
            (lab[:, :3].mean(axis=1, keepdims=True), lab[:, -3:].mean(axis=1, keepdims=True)),
            (lab[:3].mean(axis=0, keepdims=True), lab[-3:].mean(axis=0, keepdims=True)),
        )
    )
    return np.minimum(smooth, np.minimum(rows, columns)), spread


def _split(difference: NDArray[np.float32], floor: float) -> NDArray[np.float32]:
    """Otsu's threshold, but never below `floor`; single pixels are dropped."""
    levels = np.clip(difference * 2, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    # Half of Otsu's value: it cuts between the product's light and dark parts as readily as
    # between product and backdrop, and losing the pale half costs more than keeping a shadow.
    mask = (difference > max(otsu / 4, floor)).astype(np.uint8)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return np.asarray(opened, dtype=np.float32)


def _unlike_border(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much likelier a pixel's colour is inside than on the border, weighted towards the centre.

    What the border is made of is scenery; a photographer keeps the product off it.
    """
    height, width = lab.shape[:2]
    lightness, red, blue = np.moveaxis(np.floor(lab / (12.5, 12.0, 12.0)).astype(int), -1, 0)
    colour = (lightness * 32 + red + 16) * 32 + blue + 16  # one index per cell of the Lab space
    share = np.bincount(colour.ravel()) / colour.size
    border = _border(height, width, max(2, min(height, width) // 16))
    border_share = np.bincount(colour[border], minlength=len(share)) / border.sum()
    likelihood = (share / (share + 2 * border_share + 1e-6))[colour]
    smooth = cv2.GaussianBlur(likelihood, (0, 0), 3)
    y, x = _coordinates(height, width)
    centred = np.exp(-(x * x + y * y) / (2 * 0.6**2))
    return np.asarray(np.maximum(smooth - np.median(smooth), 0) * centred, dtype=np.float32)


def _border(height: int, width: int, depth: int) -> NDArray[np.bool_]:
    border = np.ones((height, width), dtype=bool)
    border[depth:-depth, depth:-depth] = False
    return border


def _coordinates(height: int, width: int) -> NDArray[np.float64]:
    """y and x of every pixel, [2, H, W], from -1 to 1."""
    return np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]


def _extent(
    weights: NDArray[np.float32], axis: int, tail: float, length: int
) -> tuple[float, float]:
    """Where the weights stand on `axis`, less a share `tail` of them at either end, in px."""
    profile = weights.sum(axis=1 - axis)
    mass = np.cumsum(profile) / profile.sum()
    first, last = np.searchsorted(mass, (tail, 1 - tail))
    return float(first) * length / len(profile), float(last + 1) * length / len(profile)
