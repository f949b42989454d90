"""The lamps that most photos share: a large key, a fill from the other side, an overhead bank."""

import numpy as np

from studio.scene import Softbox
from studio.sdf import Array


def white(power: float, warmth: float = 0.0) -> Array:
    """Light of a power on a white matte; warmth in -1..1 shifts it between blue and amber."""
    tint = np.array([[1.0 + 0.12 * warmth], [1.0], [1.0 - 0.16 * warmth]], dtype=np.float32)
    return tint * np.float32(power)


def three_softboxes(
    key: float = 0.62,
    fill: float = 0.2,
    top: float = 0.34,
    side: float = -1.0,
    aim: float = 0.8,
    gleam: float = 1.0,
) -> list[Softbox]:
    """Key on the given side (-1 left, 1 right), all aimed at the height `aim`."""
    target = (0.0, aim, 0.0)
    return [
        Softbox((3.6 * side, 4.2, 3.4), 1.3, 1.7, white(key, 0.25), target, gleam=gleam),
        Softbox((-4.6 * side, 2.0, 2.6), 0.9, 2.2, white(fill, -0.2), target, 1.6, gleam),
        Softbox((0.3 * side, 6.0, -0.8), 2.4, 1.6, white(top), target, 1.3, gleam),
    ]
