"""Training pictures: drawn by chance, and a few free photos that scikit-image carries.

Most are dead leaves: opaque shapes that hide each other, fewer the larger, by the cube of the size.
They have the edges and the spectrum of photos, and denoisers trained on them come close to those
trained on photos (Achddou, Gousseau, Ladjal, SSVM 2021). Others imitate a packshot. None is of a
photo that results are measured on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

PHOTOS = {
    "astronaut.png": "Eileen Collins, NASA, public domain",
    "chelsea.png": "Chelsea the cat, Stefan van der Walt, CC0",
    "rocket.jpg": "Falcon 9 with DSCOVR, SpaceX, public domain",
}
"""Files of scikit-image's wheel that are trained on, with their sources."""

TEXTURES = {
    "brick.png": "CC0Textures, CC0",
    "grass.png": "DeviantArt, linolafett, CC0",
    "gravel.png": "CC0Textures, CC0",
}
"""Grey surfaces of the same wheel: laid on some of the shapes."""

_PRINT = "NOVA LUMEN KODA ATLAS MIRA 250ml PURE No.5 STUDIO ORBIT 100% OAK & SON fresh 12oz"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


class Pictures:
    """An endless set: picture `index` of a seed is always the same."""

    def __init__(self, seed: int, side: int = 384):
        self.side = side  # px
        self._seed = seed
        folder = Path(skimage.data.__file__).parent
        self._photos = [cv2.imread(str(folder / n), cv2.IMREAD_COLOR_RGB) for n in PHOTOS]
        self._textures = [cv2.imread(str(folder / n), cv2.IMREAD_GRAYSCALE) for n in TEXTURES]

    def __getitem__(self, index: int) -> Picture:
        """uint8 [side, side, 3]."""
        rng = np.random.default_rng([self._seed, index])
        kinds: tuple[Callable[[Any], Any], ...] = (self._leaves, self._packshot, self._photo)
        picture = kinds[rng.choice(3, p=(0.45, 0.35, 0.2))](rng)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))

    def _photo(self, rng: Any) -> NDArray[np.float32]:
        """A square of a photo at some scale, with the colours moved a little."""
        photo = self._photos[rng.integers(len(self._photos))]
        height, width = photo.shape[:2]
        cut = int(min(height, width) * rng.uniform(0.55, 1))
        top, left = rng.integers(height - cut + 1), rng.integers(width - cut + 1)
        part = photo[top : top + cut, left : left + cut]
        method = cv2.INTER_AREA if cut > self.side else cv2.INTER_CUBIC
        part = cv2.resize(part, (self.side, self.side), interpolation=method).astype(np.float32)
        part = part[:, :, rng.permutation(3)] if rng.random() < 0.5 else part
        return np.asarray(part * rng.uniform(0.75, 1.2, 3), np.float32)

    def _leaves(self, rng: Any) -> NDArray[np.float32]:
        palette = _palette(rng, rng.integers(2, 9))
        canvas = np.empty((self.side, self.side, 3), np.float32)
        canvas[:] = palette[0]
        least = rng.choice((3.0, 6.0, 16.0))
        for _ in range(rng.integers(40, 260)):
            # Density r^-3 between `least` and half the picture.
            radius = least / np.sqrt(1 - rng.random() * (1 - (2 * least / self.side) ** 2))
            self._leaf(canvas, rng, rng.random(2) * self.side, radius, palette)
        if rng.random() < 0.3:
            canvas = cv2.GaussianBlur(canvas, None, rng.uniform(0.6, 2.0))
        return canvas

    def _packshot(self, rng: Any) -> NDArray[np.float32]:
        """Shapes on one axis before a plain background, with a shadow and some print."""
        side = self.side
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
        base = rng.uniform(150, 252) if rng.random() < 0.75 else rng.uniform(20, 150)
        light = base * (1 - rng.uniform(0, 0.4) * np.abs(rows - rng.random()))
        light -= rng.uniform(0, 60) * ((columns - rng.random()) ** 2 + (rows - 0.4) ** 2)
        canvas = (light[..., None] * rng.uniform(0.9, 1.06, 3)).astype(np.float32)
        x, foot = side * rng.uniform(0.35, 0.65), side * rng.uniform(0.7, 0.9)
        wide = side * rng.uniform(0.12, 0.3)
        shadow = np.zeros((side, side), np.float32)
        cv2.ellipse(
            shadow, (int(x), int(foot)), (int(wide * 1.3), int(wide * 0.25)), 0, 0, 360, 1, -1
        )
        shadow = cv2.GaussianBlur(shadow, None, side * rng.uniform(0.01, 0.06))
        canvas *= 1 - rng.uniform(0.2, 0.7) * shadow[..., None]
        palette = _palette(rng, rng.integers(2, 6))
        for _ in range(rng.integers(2, 8)):
            centre = (x + rng.normal() * wide * 0.25, foot - side * rng.uniform(0, 0.55))
            self._leaf(canvas, rng, centre, wide * rng.uniform(0.3, 1), palette, upright=True)
        words = _PRINT.split()
        for _ in range(rng.integers(0, 4)):
            word, font = words[rng.integers(len(words))], _FONTS[rng.integers(len(_FONTS))]
            at = (int(x - wide * rng.uniform(0.2, 0.9)), int(foot - side * rng.uniform(0.05, 0.5)))
            ink = palette[rng.integers(len(palette))] * rng.choice((0.2, 1.0))
            scale, thick = rng.uniform(0.4, 1.6), int(rng.integers(1, 3))
            mask = np.zeros((side, side), np.uint8)
            cv2.putText(mask, word, at, font, scale, 255, thick, cv2.LINE_AA)
            canvas += (mask.astype(np.float32) / 255)[..., None] * (ink - canvas)
        return np.asarray(canvas, np.float32)

    def _leaf(
        self,
        canvas: NDArray[np.float32],
        rng: Any,
        centre: Any,
        radius: float,
        palette: NDArray[np.float32],
        *,
        upright: bool = False,
    ) -> None:
        """Draw one opaque shape, shaded and perhaps textured, onto `canvas`."""
        reach = int(radius * 1.5) + 2
        size = 2 * reach + 1
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [_outline(rng, radius, upright) + reach], 255, cv2.LINE_AA)
        top, left = int(centre[1]) - reach, int(centre[0]) - reach
        here = canvas[max(0, top) : top + size, max(0, left) : left + size]
        mask = mask[max(0, -top) :, max(0, -left) :][: here.shape[0], : here.shape[1]]
        if not mask.size:
            return
        height, width = mask.shape
        across = np.linspace(-1, 1, width, dtype=np.float32)[None]
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        depth = rng.uniform(0, 0.7) if upright else rng.uniform(-0.25, 0.25)
        shade = 1 - depth * (across - rng.uniform(-0.5, 0.5)) ** 2 + rng.uniform(-0.15, 0.15) * down
        kind = rng.random()
        if kind < 0.15:  # stripes
            pitch = rng.uniform(0.5, 12) * np.array([rng.normal(), rng.normal()])
            shade = shade * (1 + 0.35 * np.sin(np.pi * (pitch[0] * across + pitch[1] * down)))
        elif kind < 0.3:  # a real surface
            texture = self._textures[rng.integers(len(self._textures))]
            y, x = rng.integers(0, 512 - min(500, height)), rng.integers(0, 512 - min(500, width))
            patch = cv2.resize(texture[y : y + height, x : x + width], (width, height))
            shade = shade * (0.6 + patch.astype(np.float32) / 320)
        elif kind < 0.4:  # grain
            shade = shade * (1 + 0.15 * rng.standard_normal((height, width), dtype=np.float32))
        colour = palette[rng.integers(len(palette))]
        cover = (mask.astype(np.float32) / 255)[..., None]
        here += cover * (shade[..., None].astype(np.float32) * colour - here)


def _palette(rng: Any, count: int) -> NDArray[np.float32]:
    """[count, 3] RGB in 0..255, some of it grey, the rest around one or two hues."""
    hue, spread = rng.integers(180), rng.choice((8, 40, 90))
    hsv = np.empty((1, count, 3), np.uint8)
    hsv[..., 0] = (hue + rng.normal(0, spread, count)).astype(int) % 180
    hsv[..., 1] = 255 * rng.beta(1.1, 2.2, count)
    hsv[..., 2] = 255 * rng.beta(1.6, 1.1, count)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0], np.float32)


def _outline(rng: Any, radius: float, upright: bool) -> NDArray[np.int32]:
    """Points around the origin: an ellipse, a rounded box or a ragged polygon."""
    count = int(rng.integers(3, 9)) if rng.random() < 0.35 else 40
    angle = np.arange(count) * 2 * np.pi / count
    # Exponent 1 gives an ellipse, less of it a superellipse: in the end a box.
    power = rng.choice((1.0, 0.5, 0.15))
    points = np.stack([np.cos(angle), np.sin(angle)])
    points = np.sign(points) * np.abs(points) ** (power if count == 40 else 1.0)
    points *= np.array([[1], [rng.uniform(0.35, 1)]]) * radius
    turn = rng.choice((0, np.pi / 2)) if upright else rng.uniform(0, np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.asarray((np.array([[cos, -sin], [sin, cos]]) @ points).T.round(), np.int32)
