"""A smart speaker: a cloth-covered drum under a glass touch plate with a ring of light."""

import math

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Part, Scene
from studio.sdf import Array, box_2d, cylinder, mix, move, smoothstep
from studio.texture import fbm, noise, rgb, weave

RADIUS = 0.72
TOP = 1.72
THREADS = 2 * 108  # around; one thread per 1/36 unit or so


def _cloth(p: Array) -> Array:
    u = np.arctan2(p[0], p[2]) * (THREADS / (2.0 * math.pi))
    return weave(u, p[1] * (THREADS / (2.0 * math.pi * RADIUS)))


def _paint(p: Array) -> Array:
    melange = 0.5 + 0.5 * fbm(p * np.array([[34.0], [60.0], [34.0]], dtype=np.float32), 2)
    colour = mix(rgb("#4e5a63"), rgb("#8e9aa2"), melange)
    return colour * (0.35 + 0.75 * _cloth(p))


def _ring(p: Array) -> Array:
    away = abs(np.hypot(p[0], p[2]) - 0.545)
    angle = np.arctan2(p[2], p[0])
    tint = mix(rgb("#3fd6ff"), rgb("#7a7bff"), 0.5 + 0.5 * np.sin(angle + 0.6))
    return tint * (1.9 * smoothstep(0.016, 0.008, away) + 0.16 * smoothstep(0.11, 0.0, away))


def _glyphs(p: Array) -> Array:
    """Touch marks, plus and minus, printed on the plate."""
    left = np.minimum(box_2d(p[0] + 0.27, p[2], 0.05, 0.007), 1.0)
    plus = np.minimum(
        box_2d(p[0] - 0.27, p[2], 0.05, 0.007), box_2d(p[0] - 0.27, p[2], 0.007, 0.05)
    )
    dots = np.hypot(p[0], p[2]) - 0.022
    mark = smoothstep(0.004, -0.004, np.minimum(np.minimum(left, plus), dots))
    return mix(rgb("#0c0d0f"), rgb("#cfd6da"), mark)


def scene() -> Scene:
    cloth = Material(_paint, roughness=0.85, sheen=0.25, wrap=0.1, bump=lambda p: 0.006 * _cloth(p))
    body = Part(lambda p: cylinder(move(p, 0, 0.9, 0), RADIUS, 0.8, 0.16), cloth)
    collar = Part(
        lambda p: cylinder(move(p, 0, TOP - 0.02, 0), 0.625, 0.035, 0.02),
        Material(rgb("#3a3d41"), roughness=0.35, specular=0.06),
    )
    plate = Part(
        lambda p: cylinder(move(p, 0, TOP + 0.012, 0), 0.6, 0.016, 0.01),
        Material(_glyphs, roughness=0.16, specular=0.045, glow=_ring),
    )
    foot = Part(
        lambda p: cylinder(move(p, 0, 0.05, 0), 0.6, 0.05, 0.015),
        Material(lambda p: rgb("#26282b") * (1.0 + 0.1 * noise(p * 60.0)), roughness=0.7),
    )
    return Scene(
        [body, collar, plate, foot],
        Camera((0.0, 3.7, 7.2), (0.0, 0.88, 0.0), 3.1),
        three_softboxes(key=0.85, fill=0.26, top=0.4, aim=0.9),
        centre=(0.0, 0.88, 0.0),
        radius=1.18,
        backdrop_top=rgb("#dfe5e8"),
        backdrop_bottom=rgb("#eceff0"),
        ambient=0.4,
    )
