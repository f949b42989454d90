"""A wooden toy car: one block of beech with a sawn-out window, painted wheels on pegs."""

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Part, Scene
from studio.sdf import (
    Array,
    box_2d,
    cylinder,
    extrude,
    move,
    rotate_y,
    smooth_max,
    smooth_min,
    torus,
    vec,
)
from studio.texture import fbm, rgb, wood

TURN = -32.0
AXLES = (-0.66, 0.68)
WHEEL = 0.29


def _stand(p: Array) -> Array:
    return rotate_y(p, TURN)


def _body(p: Array) -> Array:
    q = _stand(p)
    x, y = q[0], q[1]
    hull = box_2d(x, y - 0.47, 1.18, 0.22, 0.17)
    middle = x + 0.10
    lean = middle + 0.30 * (y - 0.8) * np.sign(middle)  # the posts slope inwards
    cabin = box_2d(lean, y - 0.78, 0.60, 0.32, 0.2)
    side = smooth_min(hull, cabin, 0.16)
    window = np.minimum(
        box_2d(lean - 0.215, y - 0.83, 0.165, 0.14, 0.06),
        box_2d(lean + 0.215, y - 0.83, 0.165, 0.14, 0.06),
    )
    side = smooth_max(side, -window, 0.03)
    for axle in AXLES:
        arch = np.hypot(x - axle, y - WHEEL) - (WHEEL + 0.045)
        side = smooth_max(side, -arch, 0.03)
    flat = extrude(side, q[2], 0.43, 0.05)
    core = extrude(box_2d(x, y - 0.45, 1.0, 0.16, 0.1), q[2], 0.26, 0.02)
    return np.minimum(flat, core)


def _wheel_frame(p: Array) -> Array:
    """Folds the four wheels into one whose axis is y."""
    q = _stand(p)
    middle = (AXLES[0] + AXLES[1]) / 2.0
    half = (AXLES[1] - AXLES[0]) / 2.0
    x = np.abs(q[0] - middle) - half
    return np.stack([x, np.abs(q[2]) - 0.40, q[1] - WHEEL])


def _wheel(p: Array) -> Array:
    q = _wheel_frame(p)
    disc = cylinder(q, WHEEL, 0.085, 0.035)
    groove = torus(move(q, 0, 0.095, 0), 0.19, 0.025)
    return smooth_max(disc, -groove, 0.012)


def _peg(p: Array) -> Array:
    q = move(_wheel_frame(p), 0.0, 0.09, 0.0)
    return cylinder(q, 0.075, 0.035, 0.03)


def _lamp(p: Array) -> Array:
    q = _stand(p)
    q = np.stack([q[0] - 1.165, np.abs(q[2]) - 0.24, q[1] - 0.52])
    return cylinder(np.stack([q[1], q[0], q[2]]), 0.075, 0.03, 0.02)


def _beech(p: Array) -> Array:
    q = _stand(p)
    return wood(q + vec(0.0, 0.2, 0.1), rgb("#e3bd8c"), rgb("#b98552"), rings=11.0)


def scene() -> Scene:
    beech = Material(_beech, roughness=0.34)
    red = Material(lambda p: rgb("#c8402f") * (1.0 + 0.04 * fbm(p * 8.0, 2)), 0.34, coat=0.5)
    pale = Material(
        lambda p: wood(_wheel_frame(p), rgb("#edd0a4"), rgb("#cfa26c"), rings=16.0), 0.45, coat=0.2
    )
    yellow = Material(rgb("#f0b93a"), 0.34, coat=0.5)
    return Scene(
        [Part(_body, beech), Part(_wheel, red), Part(_peg, pale), Part(_lamp, yellow)],
        Camera((0.0, 2.5, 7.6), (0.0, 0.50, 0.0), 2.35),
        three_softboxes(key=0.78, fill=0.26, top=0.42, aim=0.6),
        centre=(0.0, 0.55, 0.0),
        radius=1.45,
        backdrop_top=rgb("#cfe3e6"),
        backdrop_bottom=rgb("#dfedee"),
        ambient=0.42,
        step=0.8,
    )
