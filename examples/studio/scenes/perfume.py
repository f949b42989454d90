"""A perfume flacon: thick glass, amber filling, paper label, gilt collar and a dark cap."""

import numpy as np

from studio.lights import three_softboxes, white
from studio.scene import Camera, Glass, Material, Part, Scene, Softbox
from studio.sdf import Array, box, box_2d, cylinder, mix, move, smooth_min, smoothstep
from studio.texture import fbm, lettering, noise, rgb

TEXT = lettering(
    [
        ("maison", 0.10, 0.24, 0.10),
        ("VERANE", 0.21, 0.47, 0.16),
        ("EAU DE PARFUM", 0.075, 0.72, 0.2),
    ],
    0.62 / 0.44,
)
FRONT = 0.30  # half depth of the glass


def _flacon(p: Array) -> Array:
    body = box(move(p, 0, 0.66, 0), 0.60, 0.66, FRONT, 0.07)
    return smooth_min(body, cylinder(move(p, 0, 1.34, 0), 0.17, 0.06, 0.02), 0.06)


def _perfume(p: Array) -> Array:
    chamber = box(move(p, 0, 0.69, 0), 0.49, 0.54, FRONT - 0.10, 0.09)
    filled: Array = np.maximum(chamber, p[1] - 1.08)
    return filled


def _label(p: Array) -> Array:
    x, y = p[0], p[1] - 0.60
    text = TEXT.at(x / 0.62 + 0.5, 0.5 - y / 0.44)[0]
    frame = np.abs(box_2d(x, y, 0.285, 0.195)) - 0.0025
    ink = np.maximum(text, 0.8 * smoothstep(0.003, -0.001, frame))
    paper = rgb("#f6efe3") * (1.0 + 0.03 * noise(p * 70.0))
    return mix(paper, rgb("#3a2a1c"), ink)


def scene() -> Scene:
    glass = Glass(1.48, _perfume, np.array([[0.22], [1.15], [3.0]], dtype=np.float32))
    gilt = Material(rgb("#e2bd78"), roughness=0.14, metallic=1.0)
    lacquer = Material(
        lambda p: rgb("#1d1a1a") * (1.0 + 0.1 * fbm(p * 3.0, 2)), roughness=0.3, coat=1.0
    )
    parts = [
        Part(_flacon, Material(rgb("#ffffff"), roughness=0.02, glass=glass)),
        Part(
            lambda p: box(move(p, 0, 0.60, FRONT + 0.002), 0.31, 0.22, 0.006, 0.003),
            Material(_label, roughness=0.7),
        ),
        Part(lambda p: cylinder(move(p, 0, 1.40, 0), 0.21, 0.055, 0.015), gilt),
        Part(lambda p: cylinder(move(p, 0, 1.475, 0), 0.235, 0.02, 0.01), gilt),
        Part(lambda p: cylinder(move(p, 0, 1.75, 0), 0.265, 0.27, 0.03), lacquer),
        Part(lambda p: cylinder(move(p, 0, 0.80, 0), 0.014, 0.56, 0.01), gilt),
    ]
    lights = three_softboxes(key=0.7, fill=0.28, top=0.36, aim=0.9)
    strip = Softbox((3.4, 2.2, 3.0), 0.25, 1.8, white(0.14), (0.0, 0.9, 0.0))
    return Scene(
        parts,
        Camera((0.75, 1.9, 8.2), (0.0, 0.99, 0.0), 3.05),
        [*lights, strip],
        centre=(0.0, 1.0, 0.0),
        radius=1.25,
        backdrop_top=rgb("#f1dfd3"),
        backdrop_bottom=rgb("#f6e9df"),
        ambient=0.42,
        gloss=0.16,
        shade=np.array([[0.5], [0.62], [0.72]], dtype=np.float32),
        room=0.1,
    )
