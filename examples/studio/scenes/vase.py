"""A thrown vase in a speckled off-white glaze over dark clay."""

import numpy as np

from studio.lights import three_softboxes
from studio.scene import Camera, Material, Part, Scene
from studio.sdf import Array, Profile, mix, rotate_x, rotate_z, smooth_max, smoothstep, vec
from studio.texture import fbm, noise, rgb, specks

HEIGHT = 2.0
OUTER = Profile(
    [
        (0.0, 0.40), (0.12, 0.50), (0.45, 0.74), (0.8, 0.80), (1.12, 0.66), (1.4, 0.37),
        (1.62, 0.235), (1.8, 0.235), (1.93, 0.29), (HEIGHT, 0.34),
    ]
)  # fmt: skip
WALL = 0.045


def _vase(p: Array) -> Array:
    outer = OUTER.revolve(p, 0.035)
    hollow = np.hypot(p[0], p[2]) - (OUTER.radius(p[1]) - WALL)
    return smooth_max(outer, -np.maximum(hollow * 0.8, 0.2 - p[1]), 0.04)


def _paint(p: Array) -> Array:
    tilted = rotate_x(rotate_z(p, 33.0), 27.0)  # hides the cells of the specks
    coarse = specks(tilted * 9.0, 0.10, 0.3, 0.4) * 0.8
    fine = specks(tilted * 21.0 + 5.0, 0.15, 0.36, 0.5) * 0.6
    milk = rgb("#ece4d6") * (1.0 + 0.06 * fbm(p * vec(1.5, 4.0, 1.5), 3))
    glaze = mix(milk, rgb("#6b4a33"), np.maximum(coarse, fine))
    clay = mix(rgb("#5b4032"), rgb("#77543f"), 0.5 + 0.5 * noise(p * vec(9, 40, 9)))
    line = p[1] - 0.34 - 0.035 * fbm(p * 2.2 + 3.0, 2)
    return mix(clay, glaze, smoothstep(-0.006, 0.006, line))


def _throwing(p: Array) -> Array:
    """Faint rings of the wheel, and the step from clay to glaze."""
    wander = p[1] + 0.02 * noise(p * 1.5)
    step = 0.006 * smoothstep(-0.012, 0.012, p[1] - 0.34 - 0.035 * fbm(p * 2.2 + 3.0, 2))
    height: Array = 0.0022 * np.sin(wander * 62.0) + 0.003 * noise(p * 7.0) + step
    return height


def scene() -> Scene:
    glaze = Material(_paint, roughness=0.36, coat=0.35, bump=_throwing)
    return Scene(
        [Part(_vase, glaze)],
        Camera((0.0, 2.2, 8.0), (0.0, 0.95, 0.0), 3.0),
        three_softboxes(key=0.9, fill=0.18, top=0.36, aim=1.0),
        centre=(0.0, 1.0, 0.0),
        radius=1.2,
        backdrop_top=rgb("#b9b2a5"),
        backdrop_bottom=rgb("#cdc7bb"),
        ambient=0.36,
        step=0.75,
    )
