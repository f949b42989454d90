"""A stoneware mug, two glazes with a raw foot; photographed for a cut-out."""

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Part, Scene
from studio.sdf import Array, cylinder, mix, move, smooth_max, smooth_min, smoothstep, torus
from studio.texture import fbm, noise, rgb

RADIUS = 0.62
HALF = 0.66


def _mug(p: Array) -> Array:
    q = move(p, 0.0, HALF, 0.0)
    outer = cylinder(q, RADIUS, HALF, 0.1)
    loop = move(p, RADIUS + 0.04, 0.70, 0.0)
    stretched = loop[[0, 2, 1]].copy()
    stretched[2] = stretched[2] - np.clip(stretched[2], -0.08, 0.08)
    stretched[1] = stretched[1] * 0.8
    handle = torus(stretched, 0.29, 0.072)
    outer = smooth_min(outer, handle, 0.09)
    inner = cylinder(move(p, 0.0, HALF + 0.1, 0.0), RADIUS - 0.06, HALF - 0.02, 0.12)
    return smooth_max(outer, -inner, 0.045)


def _paint(p: Array) -> Array:
    wave = p[1] + 0.03 * fbm(p * 2.6, 2)
    low = mix(rgb("#2f6f73"), rgb("#4d9a97"), 0.5 + 0.5 * fbm(p * 1.7, 2))
    glaze = mix(low, rgb("#f1eadc"), smoothstep(0.62, 0.645, wave))
    inside = (np.hypot(p[0], p[2]) < RADIUS - 0.05) & (p[1] > 0.1)
    glaze = np.where(inside, rgb("#f4efe4"), glaze)
    lip = smoothstep(2 * HALF - 0.025, 2 * HALF - 0.004, p[1])
    glaze = mix(glaze, rgb("#b98a5e"), 0.45 * lip)
    clay = rgb("#b08a68") * (1.0 + 0.12 * noise(p * 40.0))
    return mix(clay, glaze, smoothstep(0.085, 0.1, p[1] + 0.008 * noise(p * 6.0)))


def scene() -> Scene:
    glaze = Material(
        _paint, roughness=0.28, coat=0.9, specular=0.02, bump=lambda p: 0.0035 * fbm(p * 3.5, 2)
    )
    return Scene(
        [Part(_mug, glaze)],
        Camera((1.9, 2.6, 6.8), (0.17, 0.64, 0.0), 2.0),
        three_softboxes(key=0.95, fill=0.3, top=0.42, aim=0.7),
        centre=(0.2, 0.66, 0.0),
        radius=1.2,
        backdrop_top=rgb("#f4f2ee"),
        backdrop_bottom=rgb("#f6f4f1"),
        ambient=0.42,
        step=0.85,
    )
