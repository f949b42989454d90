"""Procedural textures over points: noise, specks, wood, knitted and woven cloth, pictures."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from studio.sdf import Array, length, mix, smoothstep, vec

Index: TypeAlias = npt.NDArray[np.int32]

_CELLS = 64
_LATTICE: Array = (
    np.random.default_rng(20).random((_CELLS * _CELLS * _CELLS,), dtype=np.float32) * 2.0 - 1.0
)


def rgb(code: str) -> Array:
    """ "#rrggbb" in sRGB -> linear light, [3, 1]."""
    encoded = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)[:, None]


def noise(p: Array) -> Array:
    """Value noise in [-1, 1], one lattice cell per unit."""
    cell = np.floor(p)
    t = p - cell
    t = t * t * (3.0 - 2.0 * t)
    low = cell.astype(np.int32) & (_CELLS - 1)
    high = (low + 1) & (_CELLS - 1)
    x0, x1 = low[0] * (_CELLS * _CELLS), high[0] * (_CELLS * _CELLS)
    y0, y1 = low[1] * _CELLS, high[1] * _CELLS
    z0, z1 = low[2], high[2]

    def edge(xy: Index, z_low: Index, z_high: Index) -> Array:
        return mix(_LATTICE[xy + z_low], _LATTICE[xy + z_high], t[2])

    near = mix(edge(x0 + y0, z0, z1), edge(x0 + y1, z0, z1), t[1])
    far = mix(edge(x1 + y0, z0, z1), edge(x1 + y1, z0, z1), t[1])
    return mix(near, far, t[0])


def fbm(p: Array, octaves: int) -> Array:
    """Noise summed over octaves, about [-1, 1]."""
    total = noise(p)
    weight, reach = 0.5, 1.0
    for octave in range(1, octaves):
        total = total + weight * noise(p * (2.03**octave) + vec(7.1, 3.7, 5.3) * octave)
        reach += weight
        weight *= 0.5
    return total / reach


def specks(p: Array, least: float, most: float, share: float) -> Array:
    """1 inside round specks, one in a `share` of the unit cells, radii from least to most < 0.5."""
    cell = np.floor(p)
    low = cell.astype(np.int32) & (_CELLS - 1)
    key = (low[0] * _CELLS + low[1]) * _CELLS + low[2]
    size = len(_LATTICE)
    radius = least + (most - least) * (0.5 + 0.5 * _LATTICE[(key + 977) % size]) ** 2
    centre = 0.5 + np.stack([_LATTICE[(key + k) % size] for k in (31, 5003, 70001)]) * (
        0.5 - radius
    )
    radius = np.where(_LATTICE[(key + 40009) % size] < 2.0 * share - 1.0, radius, -1.0)
    away = p - cell - centre
    return smoothstep(0.05, -0.05, length(away) - radius)


def wood(p: Array, light: Array, dark: Array, rings: float = 9.0) -> Array:
    """Grain along x: growth rings around a far axis, with fine pores. Colours [3, n]."""
    wander = 0.35 * fbm(p * vec(0.5, 1.6, 1.6), 2)
    ring = np.hypot(p[1] * 0.8 + 1.3, p[2] * 1.4 + 0.35) * rings + wander * 3.0
    band = ring - np.floor(ring)
    band = band * band * (1.0 - np.maximum(band - 0.86, 0.0) / 0.14)
    pores = np.maximum(noise(p * vec(6.0, 90.0, 90.0)), 0.0)
    broad = fbm(p * vec(1.0, 3.0, 3.0) + 11.0, 2)
    return mix(light, dark, np.clip(0.55 * band + 0.35 * pores + 0.2 * broad, 0.0, 1.0))


def stockinette(u: Array, v: Array) -> Array:
    """Height in [0, 1] of plain knit: one column of V stitches per unit u, one row per unit v."""
    across = np.abs(u - np.floor(u) - 0.5) * 2.0  # 0 in the middle of a column, 1 between columns
    along = v - 0.75 * across
    along = (along - np.floor(along)) * 2.0 - 1.0
    strand = 1.0 - along * along
    leg = np.sqrt(np.clip(4.0 * across * (1.0 - across), 0.0, 1.0))
    height: Array = np.sqrt(np.maximum(strand, 0.0)) * leg
    return height


def weave(u: Array, v: Array) -> Array:
    """Height in [0, 1] of plain weave: threads go over and under, one crossing per unit."""
    parity = np.mod(np.floor(u) + np.floor(v), 2.0)
    a, b = (u - np.floor(u)) * 2.0 - 1.0, (v - np.floor(v)) * 2.0 - 1.0
    warp = (1.0 - a * a) * (0.45 + 0.55 * (1.0 - b * b))
    weft = (1.0 - b * b) * (0.45 + 0.55 * (1.0 - a * a))
    return np.where(parity > 0.5, warp, weft)


class Picture:
    """A flat picture, [channels, height, width] in [0, 1], looked up with bilinear weights."""

    def __init__(self, pixels: Array) -> None:
        self._pixels = pixels
        self._height, self._width = pixels.shape[1:]

    def at(self, u: Array, v: Array) -> Array:
        """u to the right and v down, both 0..1; the border pixel goes on outside. [channels, n]"""
        x = np.clip(u * self._width - 0.5, 0.0, self._width - 1.001)
        y = np.clip(v * self._height - 0.5, 0.0, self._height - 1.001)
        i, j = x.astype(np.int32), y.astype(np.int32)
        fx, fy = x - i.astype(np.float32), y - j.astype(np.float32)
        top = mix(self._pixels[:, j, i], self._pixels[:, j, i + 1], fx)
        low = mix(self._pixels[:, j + 1, i], self._pixels[:, j + 1, i + 1], fx)
        return mix(top, low, fy)


def lettering(lines: Sequence[tuple[str, float, float, float]], aspect: float) -> Picture:
    """A mask of centred lines, each (text, size, centre v, tracking), in shares of its height."""
    height = 1024
    width = round(height * aspect)
    sheet = Image.new("L", (width, height))
    draw = ImageDraw.Draw(sheet)
    for text, size, centre, tracking in lines:
        font = ImageFont.load_default(size * height)
        gap = tracking * size * height
        total = sum(draw.textlength(letter, font) + gap for letter in text) - gap
        x = (width - total) / 2
        for letter in text:
            draw.text((x, centre * height), letter, fill=255, font=font, anchor="lm")
            x += draw.textlength(letter, font) + gap
    return Picture(np.asarray(sheet, dtype=np.float32)[None] / 255.0)
