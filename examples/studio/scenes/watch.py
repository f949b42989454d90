"""A steel wristwatch on a leather strap, closed around an unseen cushion."""

import math

import numpy as np

from studio.lights import three_softboxes, white
from studio.scene import Camera, Material, Part, Scene, Softbox
from studio.sdf import (
    Array,
    box,
    box_2d,
    cylinder,
    mix,
    move,
    repeat_around_y,
    rotate_x,
    rotate_y,
    smooth_max,
    smooth_min,
    smoothstep,
    vec,
)
from studio.texture import fbm, lettering, noise, rgb

CASE = 0.62
NAME = lettering([("ORVELL", 0.10, 0.26, 0.16), ("automatic", 0.058, 0.76, 0.1)], 1.0)
DATE = lettering([("18", 0.86, 0.52, 0.02)], 1.3)
LOOP_Y, LOOP_Z = 0.98, 0.74  # half axes of the strap's loop
HEAD = 0.72  # from the middle of the loop to the back of the case


def _stand(p: Array) -> Array:
    """Into the frame of the strap: y up, z towards the face."""
    return rotate_x(rotate_y(move(p, 0.0, 1.03, 0.0), 24.0), -9.0)


def _head(p: Array) -> Array:
    """Into the frame of the case: the face looks along +y, twelve o'clock towards -z."""
    q = _stand(p) - vec(0.0, 0.0, HEAD)
    return np.stack([q[0], q[2], -q[1]])


def _case(p: Array) -> Array:
    q = _head(p)
    body = cylinder(move(q, 0, 0.1, 0), CASE, 0.10, 0.035)
    lug = np.abs(q)
    lug[1] = q[1] - (0.06 - 0.55 * np.maximum(lug[2] - 0.46, 0.0))
    lugs = box(move(lug, 0.345, 0.0, 0.52), 0.042, 0.055, 0.185, 0.03)
    body = smooth_min(body, lugs, 0.05)
    cut = cylinder(move(q, 0, 0.25, 0), CASE - 0.06, 0.12, 0.01)
    return smooth_max(body, -cut, 0.01)


def _bezel(p: Array) -> Array:
    q = _head(p)
    ring = cylinder(move(q, 0, 0.215, 0), CASE - 0.02, 0.035, 0.02)
    slope = 0.8 * (np.hypot(q[0], q[2]) - (CASE - 0.095)) + 0.6 * (0.19 - q[1])
    return smooth_max(ring, -slope, 0.008)


def _crown(p: Array) -> Array:
    q = move(_head(p), CASE + 0.055, 0.1, 0.0)
    q = np.stack([q[1], q[0], q[2]])
    knurl: Array = 0.004 * np.cos(np.arctan2(q[2], q[0]) * 26.0)
    return cylinder(q, 0.075, 0.055, 0.015) - knurl


def _indices(p: Array) -> Array:
    q = move(_head(p), 0.0, 0.165, 0.0)
    marks = box(move(repeat_around_y(q, 12), 0.415, 0, 0), 0.062, 0.012, 0.014, 0.004)
    double = np.abs(q)
    double[2] = q[2]
    return np.minimum(marks, box(move(double, 0.026, 0.0, -0.415), 0.014, 0.012, 0.062, 0.004))


def _hand(p: Array, angle: float, reach: float, width: float, height: float) -> Array:
    """`angle` in degrees clockwise from twelve."""
    q = move(rotate_y(_head(p), -angle), 0.0, height, 0.0)
    taper = width * (1.0 - 0.55 * np.clip(-q[2] / reach, 0.0, 1.0))
    flat = np.maximum(np.abs(q[0]) - taper, np.abs(q[2] + reach * 0.42) - reach * 0.58)
    ridge = 0.008 - 0.25 * np.abs(q[0])
    solid: Array = np.maximum(flat, np.abs(q[1]) - np.maximum(ridge, 0.002))
    return solid * 0.8


def _hands(p: Array) -> Array:
    hands = np.minimum(_hand(p, 304.0, 0.30, 0.026, 0.178), _hand(p, 54.0, 0.44, 0.02, 0.194))
    return np.minimum(hands, cylinder(move(_head(p), 0, 0.19, 0), 0.034, 0.022, 0.008))


def _second(p: Array) -> Array:
    q = _head(p)
    needle = _hand(p, 186.0, 0.47, 0.0065, 0.208)
    return np.minimum(needle, cylinder(move(q, 0, 0.21, 0), 0.018, 0.012, 0.004))


def _dial_paint(p: Array) -> Array:
    q = _head(p)
    x, z = q[0], q[2]
    angle = np.arctan2(z, x)
    radius = np.hypot(x, z)
    fan = 0.5 + 0.5 * np.cos(2.0 * (angle - 0.9))
    rays = 1.0 + 0.10 * noise(np.stack([angle * 60.0, radius * 2.0, 0.0 * x]))
    sun = mix(rgb("#0b1c38"), rgb("#2f62a6"), fan * fan) * rays
    sun = sun * (1.0 - 0.55 * smoothstep(0.35, 0.56, radius))
    minute = np.abs(np.mod(angle * 60.0 / (2.0 * math.pi) + 0.5, 1.0) - 0.5)
    track = smoothstep(0.10, 0.06, minute) * smoothstep(0.500, 0.504, radius)
    track = track * smoothstep(0.538, 0.534, radius)
    print_on = NAME.at(x / 0.62 + 0.5, z / 0.62 + 0.5)[0]
    window = smoothstep(0.003, -0.003, box_2d(x - 0.27, z, 0.056, 0.044, 0.006))
    face = mix(sun, rgb("#e9eef4"), np.maximum(track * 0.9, print_on))
    date = mix(rgb("#f4f4f0"), rgb("#15181c"), DATE.at((x - 0.27) / 0.104 + 0.5, z / 0.08 + 0.5)[0])
    return mix(face, date, window)


def _strap(p: Array) -> Array:
    q = _stand(p)
    k = np.hypot(q[1] / LOOP_Y, q[2] / LOOP_Z)
    slope = np.hypot(q[1] / LOOP_Y**2, q[2] / LOOP_Z**2)
    ring = np.abs(k * (k - 1.0) / np.maximum(slope, 1e-4)) - 0.05
    width = 0.30 - 0.05 * smoothstep(0.6, -0.7, q[2])
    band = smooth_max(ring, np.abs(q[0]) - width, 0.05)
    behind_case = box(move(q, 0, 0, LOOP_Z + 0.02), 0.5, 0.5, 0.2)
    return smooth_max(band, -behind_case, 0.02)


def _along(q: Array) -> Array:
    angle: Array = np.arctan2(q[1] / LOOP_Y, q[2] / LOOP_Z)
    return angle * 0.9


def _stitches(p: Array) -> Array:
    q = _stand(p)
    width = 0.30 - 0.05 * smoothstep(0.6, -0.7, q[2]) - 0.045
    along = np.abs(np.mod(_along(q) / 0.058, 1.0) - 0.5)
    return smoothstep(0.011, 0.006, np.abs(np.abs(q[0]) - width)) * smoothstep(0.40, 0.32, along)


def _leather(p: Array) -> Array:
    q = _stand(p)
    hide = rgb("#8a4f2a") * (1.0 + 0.16 * fbm(q * 7.0, 3))
    edge = smoothstep(0.02, 0.0, 0.30 - np.abs(q[0]))
    return mix(mix(hide, rgb("#3c2113"), 0.5 * edge), rgb("#ead9bd"), _stitches(p))


def _grain(p: Array) -> Array:
    q = _stand(p)
    return 0.0022 * fbm(q * 34.0, 2) + 0.006 * _stitches(p)


def _brush(p: Array) -> Array:
    q = _head(p)
    return 0.00035 * noise(q * vec(8.0, 160.0, 8.0))


def scene() -> Scene:
    polished = Material(rgb("#dfe2e6"), roughness=0.09, metallic=1.0)
    brushed = Material(rgb("#c9ccd0"), roughness=0.26, metallic=1.0, bump=_brush)
    bright = Material(rgb("#eef1f4"), roughness=0.14, metallic=1.0)
    parts = [
        Part(_strap, Material(_leather, roughness=0.48, specular=0.045, bump=_grain)),
        Part(_case, brushed),
        Part(_bezel, polished),
        Part(
            lambda p: cylinder(move(_head(p), 0, 0.14, 0), CASE - 0.05, 0.012),
            Material(_dial_paint, roughness=0.3, coat=0.9),
        ),
        Part(_indices, bright),
        Part(_hands, bright),
        Part(_second, Material(rgb("#d8432f"), roughness=0.35)),
        Part(_crown, polished),
    ]
    lights = three_softboxes(key=0.75, fill=0.26, top=0.4, aim=1.0)
    front = Softbox((1.4, 3.4, 6.0), 1.8, 0.7, white(0.22), (0.0, 1.0, 0.0), gleam=0.9)
    return Scene(
        parts,
        Camera((0.3, 1.75, 8.0), (0.3, 0.99, 0.0), 2.75),
        [*lights, front],
        centre=(0.0, 1.02, 0.0),
        radius=1.35,
        backdrop_top=rgb("#dadde1"),
        backdrop_bottom=rgb("#e9ebed"),
        room=0.16,
        ambient=0.4,
        gloss=0.12,
        step=0.75,
    )
