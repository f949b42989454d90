"""A lit table lamp: ribbed ceramic foot, brass neck, linen shade."""

import math

import numpy as np

from studio.lights import three_softboxes, white
from studio.scene import Camera, Material, Part, Scene, Softbox
from studio.sdf import Array, Profile, cylinder, mix, move, smooth_max, smoothstep, vec
from studio.texture import fbm, rgb, weave

FOOT = Profile(
    [
        (0.06, 0.30), (0.14, 0.37), (0.4, 0.50), (0.66, 0.50), (0.9, 0.35), (1.08, 0.17),
        (1.2, 0.115), (1.26, 0.11),
    ]
)  # fmt: skip
LOW, HIGH = 1.42, 2.42  # the shade
LOW_RADIUS, HIGH_RADIUS = 0.86, 0.60
RIBS = 44


def _foot(p: Array) -> Array:
    ribs: Array = np.cos(np.arctan2(p[2], p[0]) * RIBS)
    fade = smoothstep(0.1, 0.25, p[1]) * smoothstep(1.12, 0.85, p[1])
    return FOOT.revolve(p, 0.03) - 0.009 * ribs * fade


def _shade(p: Array) -> Array:
    share = (p[1] - LOW) / (HIGH - LOW)
    radius = LOW_RADIUS + (HIGH_RADIUS - LOW_RADIUS) * share
    wall = (np.abs(np.hypot(p[0], p[2]) - radius) - 0.012) * 0.96
    return smooth_max(wall, np.maximum(LOW - p[1], p[1] - HIGH), 0.02)


def _linen(p: Array) -> Array:
    u = np.arctan2(p[0], p[2]) * (360.0 / (2.0 * math.pi))
    return weave(u, p[1] * 78.0)


def _shade_glow(p: Array) -> Array:
    """Brightest at the height of the bulb, seen through cloth; the seams stay dark."""
    height = (p[1] - 1.9) / 0.5
    pool = np.exp(-1.1 * height * height)
    slub = 0.9 + 0.16 * fbm(p * vec(5.0, 46.0, 5.0), 2) + 0.12 * (_linen(p) - 0.5)
    seam = smoothstep(0.0, 0.02, np.minimum(p[1] - LOW - 0.035, HIGH - 0.035 - p[1]))
    inside = np.hypot(p[0], p[2]) < LOW_RADIUS - (LOW_RADIUS - HIGH_RADIUS) * (
        (p[1] - LOW) / (HIGH - LOW)
    )
    bright = np.where(inside, 1.1, (0.25 + 0.55 * pool) * slub)
    return mix(rgb("#ffc98a"), rgb("#ffe2b8"), pool) * bright * (0.5 + 0.5 * seam)


def scene() -> Scene:
    linen = Material(
        rgb("#e9dcc6"), roughness=0.9, bump=lambda p: 0.003 * _linen(p), glow=_shade_glow
    )
    brass = Material(rgb("#d9b06a"), roughness=0.22, metallic=1.0)
    ceramic = Material(
        lambda p: mix(rgb("#35586a"), rgb("#4f7d8e"), 0.5 + 0.5 * fbm(p * 2.5, 2)),
        roughness=0.3,
        coat=0.7,
    )
    parts = [
        Part(_foot, ceramic),
        Part(lambda p: cylinder(move(p, 0, 0.035, 0), 0.34, 0.035, 0.02), brass),
        Part(lambda p: cylinder(move(p, 0, 1.36, 0), 0.05, 0.16, 0.01), brass),
        Part(lambda p: cylinder(move(p, 0, 1.285, 0), 0.10, 0.03, 0.012), brass),
        Part(_shade, linen),
        Part(lambda p: cylinder(move(p, 0, 2.46, 0), 0.035, 0.05, 0.02), brass),
        Part(lambda p: cylinder(move(p, 0, 2.40, 0), 0.6, 0.008, 0.004), linen),
    ]
    lights = three_softboxes(key=0.42, fill=0.13, top=0.2, aim=1.2)
    bulb = Softbox((0.0, 1.75, 0.9), 0.5, 0.3, white(0.16, 1.0), (0.0, 0.2, 0.3), 2.5, gleam=0.05)
    return Scene(
        parts,
        Camera((0.0, 1.9, 9.0), (0.0, 1.2, 0.0), 3.7),
        [*lights, bulb],
        centre=(0.0, 1.25, 0.0),
        radius=1.5,
        backdrop_top=rgb("#b8aa9a"),
        backdrop_bottom=rgb("#c9bcab"),
        ambient=0.3,
        step=0.8,
    )
