"""Macarons in four flavours: a stack of three, one leaning on it, one in front."""

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Part, Scene
from studio.sdf import (
    Array,
    cylinder,
    ellipsoid,
    mix,
    move,
    rotate_x,
    rotate_y,
    rotate_z,
    smooth_max,
    smooth_min,
    smoothstep,
)
from studio.texture import fbm, noise, rgb

RADIUS = 0.46
HALF = 0.245  # height above and below the middle of the filling


def _shape(p: Array, seed: float) -> Array:
    """One macaron lying flat, its middle at the origin."""
    mirrored = p.copy()
    mirrored[1] = np.abs(p[1])
    dome = ellipsoid(move(mirrored, 0.0, 0.06, 0.0), RADIUS * 1.04, HALF - 0.06, RADIUS * 1.04)
    dome = smooth_max(dome, 0.095 - mirrored[1], 0.02)
    rim = cylinder(move(mirrored, 0.0, 0.14, 0.0), RADIUS + 0.004, 0.058, 0.056)
    shell = smooth_min(dome, rim, 0.06)
    feet = cylinder(move(mirrored, 0.0, 0.078, 0.0), RADIUS + 0.002, 0.03, 0.025)
    feet = feet - 0.018 * noise(p * 21.0 + seed) - 0.012 * noise(p * 47.0 + seed)
    cream = cylinder(p, RADIUS - 0.02, 0.064, 0.05) - 0.008 * noise(p * 6.0 + seed)
    return smooth_min(smooth_min(shell, feet, 0.012), cream, 0.008)


def _macaron(
    at: tuple[float, float, float], turn: tuple[float, float, float], shell: str, cream: str, k: int
) -> Part:
    """`turn` is applied about z, then x, then y, in degrees."""
    seed = k * 9.7

    def local(p: Array) -> Array:
        q = rotate_y(move(p, *at), turn[2])
        return rotate_z(rotate_x(q, turn[1]), turn[0])

    def paint(p: Array) -> Array:
        q = local(p)
        biscuit = rgb(shell) * (1.0 + 0.05 * fbm(q * 5.0 + seed, 2))
        biscuit = biscuit * (1.0 - 0.1 * smoothstep(0.4, 0.8, noise(q * 38.0 + seed)))
        feet = smoothstep(0.115, 0.085, np.abs(q[1]))
        biscuit = mix(biscuit, rgb(shell) * 0.8 + 0.12, 0.45 * feet)
        return mix(biscuit, rgb(cream) * (1.0 + 0.06 * noise(q * 20.0)), edge(q))

    def edge(q: Array) -> Array:
        level = smoothstep(0.056, 0.048, np.abs(q[1]) + 0.005 * noise(q * 14.0 + seed))
        return level * smoothstep(RADIUS + 0.012, RADIUS, np.hypot(q[0], q[2]))

    def crumb(p: Array) -> Array:
        q = local(p)
        return 0.0016 * noise(q * 24.0 + seed) + 0.0005 * noise(q * 60.0)

    look = Material(paint, roughness=0.5, wrap=0.4, bump=crumb, sheen=0.12)
    return Part(lambda p: _shape(local(p), seed), look, at, 0.56)


def scene() -> Scene:
    rest = HALF
    step = 2.0 * HALF - 0.03
    parts = [
        _macaron((-0.12, rest, -0.1), (0, 0, 0), "#e79aa6", "#f7dfe0", 1),
        _macaron((-0.08, rest + step, -0.08), (1.5, 0, 50), "#bcd3a0", "#f4efd8", 2),
        _macaron((-0.15, rest + 2 * step, -0.1), (-2, 1, 100), "#f0cf8e", "#8a4b2c", 3),
        _macaron((0.74, 0.474, -0.02), (58, 0, 0), "#b9a2d6", "#efe6f6", 4),
        _macaron((-0.78, rest, 0.62), (0, 0, 200), "#8a5a3e", "#e9cfae", 5),
        _macaron((0.33, rest, 0.95), (0, 0, 130), "#f2b99c", "#fbe6d8", 6),
    ]
    return Scene(
        parts,
        Camera((0.5, 2.3, 7.0), (0.02, 0.60, 0.2), 2.25),
        three_softboxes(key=0.8, fill=0.3, top=0.42, aim=0.6),
        centre=(0.0, 0.7, 0.25),
        radius=1.6,
        backdrop_top=rgb("#f3e6e1"),
        backdrop_bottom=rgb("#f7ede8"),
        step=0.75,
        ambient=0.45,
    )
