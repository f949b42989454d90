"""Signed distance fields on batches of points: shapes, the ways to join them, and vector helpers.

A batch of points is one array of shape [3, n], a field is [n], both float32. Shapes stand at the
origin (use `move` and `rotate_*` on the points) and the y axis points up. The formulas are those
collected by Inigo Quilez (https://iquilezles.org/articles/distfunctions/).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Sdf: TypeAlias = Callable[[Array], Array]  # [3, n] -> [n]


def vec(x: float, y: float, z: float) -> Array:
    return np.array([[x], [y], [z]], dtype=np.float32)


def dot(a: Array, b: Array) -> Array:
    product: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def length(a: Array) -> Array:
    return np.sqrt(dot(a, a))


def normalise(a: Array) -> Array:
    return a / np.maximum(length(a), 1e-9)


def mix(a: Array, b: Array, weight: Array | float) -> Array:
    return a + (b - a) * weight


def smoothstep(low: float, high: float, x: Array) -> Array:
    t: Array = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def move(p: Array, x: float, y: float, z: float) -> Array:
    """The points as seen by a shape whose origin is put at (x, y, z)."""
    return p - vec(x, y, z)


def _rotate(p: Array, first: int, second: int, degrees: float) -> Array:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = p.copy()
    turned[first] = c * p[first] + s * p[second]
    turned[second] = c * p[second] - s * p[first]
    return turned


def rotate_x(p: Array, degrees: float) -> Array:
    """The points as seen by a shape turned from y towards z."""
    return _rotate(p, 1, 2, degrees)


def rotate_y(p: Array, degrees: float) -> Array:
    """The points as seen by a shape turned from z towards x."""
    return _rotate(p, 2, 0, degrees)


def rotate_z(p: Array, degrees: float) -> Array:
    """The points as seen by a shape turned from x towards y."""
    return _rotate(p, 0, 1, degrees)


def repeat_around_y(p: Array, count: int) -> Array:
    """Fold the turn around y into one sector about the +x axis."""
    sector = 2.0 * math.pi / count
    angle = np.arctan2(p[2], p[0])
    angle = angle - sector * np.round(angle / sector)
    radius = np.hypot(p[0], p[2])
    return np.stack([radius * np.cos(angle), p[1], radius * np.sin(angle)])


def sphere(p: Array, radius: float) -> Array:
    return length(p) - radius


def ellipsoid(p: Array, rx: float, ry: float, rz: float) -> Array:
    """First-order distance: right at the surface, a bound near it."""
    scaled = p / vec(rx, ry, rz)
    k0 = length(scaled)
    k1 = length(scaled / vec(rx, ry, rz))
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)


def box(p: Array, hx: float, hy: float, hz: float, rounding: float = 0.0) -> Array:
    """Half extents include the rounding."""
    q = np.abs(p) - vec(hx - rounding, hy - rounding, hz - rounding)
    outside = length(np.maximum(q, 0.0))
    inside: Array = np.minimum(np.maximum(q[0], np.maximum(q[1], q[2])), 0.0)
    return outside + inside - rounding


def box_2d(x: Array, y: Array, hx: float, hy: float, rounding: float = 0.0) -> Array:
    qx, qy = np.abs(x) - (hx - rounding), np.abs(y) - (hy - rounding)
    outside: Array = np.hypot(np.maximum(qx, 0.0), np.maximum(qy, 0.0))
    inside: Array = np.minimum(np.maximum(qx, qy), 0.0)
    return outside + inside - rounding


def extrude(flat: Array, along: Array, half: float, rounding: float = 0.0) -> Array:
    """A 2-D field given thickness 2 * half along a third coordinate."""
    qx, qy = flat + rounding, np.abs(along) - (half - rounding)
    outside: Array = np.hypot(np.maximum(qx, 0.0), np.maximum(qy, 0.0))
    inside: Array = np.minimum(np.maximum(qx, qy), 0.0)
    return outside + inside - rounding


def cylinder(p: Array, radius: float, half_height: float, rounding: float = 0.0) -> Array:
    """Axis along y."""
    return box_2d(np.hypot(p[0], p[2]), p[1], radius, half_height, rounding)


def torus(p: Array, ring: float, tube: float) -> Array:
    """Ring in the xz plane."""
    from_ring: Array = np.hypot(np.hypot(p[0], p[2]) - ring, p[1])
    return from_ring - tube


def smooth_min(a: Array, b: Array, k: float) -> Array:
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * (k * 0.25)


def smooth_max(a: Array, b: Array, k: float) -> Array:
    return -smooth_min(-a, -b, k)


class Profile:
    """A radius over height, r(y): a natural cubic spline through the given knots, tabulated."""

    def __init__(self, knots: Sequence[tuple[float, float]], entries: int = 2048) -> None:
        y = np.array([knot[0] for knot in knots])
        r = np.array([knot[1] for knot in knots])
        gap = np.diff(y)
        system = np.eye(len(y))
        bend = np.zeros(len(y))  # second derivative times two, at each knot
        for i in range(1, len(y) - 1):
            system[i, i - 1 : i + 2] = gap[i - 1], 2.0 * (gap[i - 1] + gap[i]), gap[i]
            bend[i] = 3.0 * ((r[i + 1] - r[i]) / gap[i] - (r[i] - r[i - 1]) / gap[i - 1])
        c = np.linalg.solve(system, bend)
        b = np.diff(r) / gap - gap * (2.0 * c[:-1] + c[1:]) / 3.0
        d = np.diff(c) / (3.0 * gap)
        at = np.linspace(y[0], y[-1], entries)
        k = np.clip(np.searchsorted(y, at, side="right") - 1, 0, len(gap) - 1)
        t = at - y[k]
        radius = r[k] + t * (b[k] + t * (c[k] + t * d[k]))
        slope = b[k] + t * (2.0 * c[k] + 3.0 * t * d[k])
        self.low, self.high = float(y[0]), float(y[-1])
        self._scale = (entries - 1) / (self.high - self.low)
        self._radius: Array = radius.astype(np.float32)
        self._cosine: Array = (1.0 / np.sqrt(1.0 + slope * slope)).astype(np.float32)

    def radius(self, y: Array) -> Array:
        return self._look_up(self._radius, y)

    def revolve(self, p: Array, rounding: float = 0.02) -> Array:
        """The solid of revolution around y, closed flat at both ends."""
        side = np.hypot(p[0], p[2]) - self.radius(p[1])
        side = side * self._look_up(self._cosine, p[1])
        return smooth_max(side, np.maximum(self.low - p[1], p[1] - self.high), rounding)

    def _look_up(self, table: Array, y: Array) -> Array:
        at = np.clip((y - self.low) * self._scale, 0.0, len(table) - 1.001)
        i = at.astype(np.int32)
        here = table[i]
        value: Array = here + (table[i + 1] - here) * (at - i.astype(np.float32))
        return value
