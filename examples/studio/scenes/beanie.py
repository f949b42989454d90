"""A knitted bobble hat: ribbed turn-up, stockinette crown, fluffy pompom."""

import math

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Paint, Part, Scene
from studio.sdf import (
    Array,
    Profile,
    cylinder,
    length,
    mix,
    move,
    normalise,
    smoothstep,
    sphere,
    vec,
)
from studio.texture import fbm, noise, rgb, stockinette

CROWN = Profile(
    [
        (0.3, 0.78), (0.6, 0.81), (0.85, 0.79), (1.08, 0.70), (1.28, 0.54), (1.42, 0.36),
        (1.50, 0.18), (1.53, 0.05),
    ]
)  # fmt: skip
COLUMNS = 52
ROW = 0.062
CUFF = 0.24  # half its height
POMPOM = (0.0, 1.74, 0.0)


def _crown_knit(p: Array) -> Array:
    u = np.arctan2(p[0], p[2]) * (COLUMNS / (2.0 * math.pi))
    arc = p[1] + 0.5 * np.maximum(p[1] - 0.95, 0.0) ** 2  # rows keep their height on the dome
    return stockinette(u + 0.06 * noise(p * 9.0), arc / ROW)


def _crown(p: Array) -> Array:
    body = CROWN.revolve(p, 0.05) + 0.03 * noise(p * 2.2 + 4.0)
    return body - 0.026 * _crown_knit(p) * smoothstep(1.56, 1.3, p[1])


def _rib(p: Array) -> Array:
    """Two knit columns, then a furrow."""
    u = np.arctan2(p[0], p[2]) * (COLUMNS / (2.0 * math.pi))
    u = u + 0.10 * np.sin(p[1] * 3.0) + 0.05 * noise(p * 7.0)
    ridge = np.sqrt(np.abs(np.sin(u * (math.pi / 2.0))))
    height: Array = ridge * (0.65 + 0.35 * stockinette(u, p[1] / ROW))
    return height


def _cuff(p: Array) -> Array:
    q = move(p, 0.0, CUFF + 0.02, 0.0)
    sag = 0.025 * noise(p * 1.8 + 9.0)
    knitted: Array = cylinder(q, 0.865, CUFF, 0.11) + sag - 0.042 * _rib(p)
    return knitted


def _pompom(p: Array) -> Array:
    q = move(p, *POMPOM)
    way = normalise(q)
    tufts = noise(way * 6.0) * 0.7 + noise(way * 21.0) * 0.5
    hairs = np.abs(noise(way * 50.0 + 1.4 * noise(q * 7.0)))
    return sphere(q, 0.31) - 0.04 * tufts - 0.07 * hairs


def _fluff(p: Array) -> Array:
    """White tips, warmer and darker towards the core."""
    q = move(p, *POMPOM)
    return mix(rgb("#e2d2b8"), rgb("#fffaf0"), smoothstep(0.27, 0.37, length(q)))


def _yarn(p: Array, knit: Array) -> Array:
    fibre = 1.0 + 0.16 * noise(p * vec(60.0, 34.0, 60.0)) + 0.08 * fbm(p * 4.0, 2)
    return mix(rgb("#a8631a"), rgb("#eaa93c"), 0.25 + 0.75 * knit) * fibre


def _fuzz(p: Array) -> Array:
    return 0.003 * noise(p * 75.0) + 0.0022 * noise(p * vec(150.0, 60.0, 150.0))


def scene() -> Scene:
    def wool(paint: Paint, wrap: float) -> Material:
        return Material(paint, 0.95, specular=0.01, sheen=0.5, wrap=wrap, bump=_fuzz)

    crown = wool(lambda p: _yarn(p, _crown_knit(p)), 0.25)
    cuff = wool(lambda p: _yarn(p, _rib(p)), 0.25)
    fluff = wool(_fluff, 1.0)
    return Scene(
        [Part(_crown, crown), Part(_cuff, cuff), Part(_pompom, fluff, POMPOM, 0.43)],
        Camera((0.0, 2.0, 7.6), (0.0, 0.98, 0.0), 2.75),
        three_softboxes(key=0.85, fill=0.26, top=0.42, aim=0.9),
        centre=(0.0, 1.0, 0.0),
        radius=1.3,
        backdrop_top=rgb("#d7dcd6"),
        backdrop_bottom=rgb("#e4e8e2"),
        ambient=0.42,
        step=0.6,
    )
