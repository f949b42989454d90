"""What stands in the studio: materials, parts, softboxes, the camera, the scene of them all."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from studio.sdf import Array, Sdf, dot, length, normalise, vec

Paint: TypeAlias = Callable[[Array], Array]  # points [3, n] -> linear RGB [3, n] or [3, 1]

BOUND_MARGIN = 0.4  # further away than this from its bound, a part answers with the bound


@dataclass(frozen=True)
class Glass:
    """A clear body with an optional coloured filling."""

    index: float  # of refraction
    filling: Sdf
    absorption: Array  # [3, 1] per unit of path inside the filling


@dataclass(frozen=True)
class Material:
    """How a surface answers light. `metallic` surfaces tint their reflections with the paint."""

    paint: Array | Paint
    roughness: float = 0.5
    metallic: float = 0.0
    specular: float = 0.04  # reflectance at normal incidence
    coat: float = 0.0  # weight of a mirror-smooth lacquer on top
    sheen: float = 0.0  # light caught by fibres at grazing angles
    wrap: float = 0.0  # how far light creeps past the terminator, for soft and translucent stuff
    bump: Sdf | None = None  # height that bends the normal only
    glow: Paint | None = None
    glass: Glass | None = None

    def colour(self, p: Array) -> Array:
        return self.paint(p) if callable(self.paint) else self.paint


@dataclass(frozen=True)
class Part:
    """One shape of one material; a bounding sphere spares far points the full distance."""

    shape: Sdf
    material: Material
    centre: tuple[float, float, float] | None = None
    radius: float = 0.0

    def distance(self, p: Array) -> Array:
        if self.centre is None:
            return self.shape(p)
        bound = length(p - vec(*self.centre)) - self.radius
        near = bound < BOUND_MARGIN
        if near.all():
            return self.shape(p)
        if near.any():
            bound[near] = self.shape(p[:, near])
        return bound


@dataclass(frozen=True)
class Softbox:
    """A rectangular area light. `power` is what it adds to a white matte that faces it."""

    centre: tuple[float, float, float]
    half_width: float
    half_height: float
    power: Array  # [3, 1]
    target: tuple[float, float, float] = (0.0, 0.8, 0.0)
    shadow: float = 1.0  # scales the width of the penumbra
    gleam: float = 1.0  # scales the highlight against the physical one

    facing: Array = field(init=False)  # from the light to its target
    right: Array = field(init=False)
    up: Array = field(init=False)
    penumbra: float = field(init=False)  # half angle, as a tangent
    radiance: Array = field(init=False)  # [3, 1]

    def __post_init__(self) -> None:
        facing = normalise(vec(*self.target) - vec(*self.centre))
        up = vec(0.0, 1.0, 0.0) if abs(float(facing[1, 0])) < 0.98 else vec(0.0, 0.0, -1.0)
        right = normalise(np.cross(facing, up, axis=0))
        reach = float(length(vec(*self.target) - vec(*self.centre))[0])
        area = 4.0 * self.half_width * self.half_height
        object.__setattr__(self, "facing", facing)
        object.__setattr__(self, "right", right)
        object.__setattr__(self, "up", np.cross(right, facing, axis=0))
        object.__setattr__(self, "penumbra", self.shadow * math.sqrt(area) / 2.0 / reach)
        radiance = self.power * (self.gleam * math.pi * reach * reach / area)
        object.__setattr__(self, "radiance", radiance.astype(np.float32))

    def seen(self, p: Array, ray: Array, lobe: float) -> Array:
        """Radiance along rays, the rectangle blurred by the lobe of a rough reflection. [3, n]"""
        away = dot(ray, self.facing)
        to_light = vec(*self.centre) - p
        t = dot(to_light, self.facing) / np.where(away < -1e-3, away, -1.0)
        off = ray * np.maximum(t, 0.0) - to_light
        width = lobe * np.maximum(t, 0.1) + 0.04
        mask = _blurred_box(dot(off, self.right), self.half_width, width)
        mask = mask * _blurred_box(dot(off, self.up), self.half_height, width)
        return self.radiance * np.where(away < -1e-3, mask, 0.0)


def _blurred_box(x: Array, half: float, width: Array) -> Array:
    low, high = (x + half) / width, (x - half) / width
    return 0.5 * (low / np.sqrt(1.0 + low * low) - high / np.sqrt(1.0 + high * high))


@dataclass(frozen=True)
class Camera:
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    view_height: float  # of the frame in scene units, at the distance of the target
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)

    def rays(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Origin [3, 1] and directions [3, n] for screen points; y runs over -1..1, upwards."""
        origin = vec(*self.position)
        ahead = vec(*self.target) - origin
        reach = float(length(ahead)[0])
        ahead = ahead / reach
        right = normalise(np.cross(ahead, vec(*self.up), axis=0))
        up = np.cross(right, ahead, axis=0)
        spread = self.view_height / 2.0 / reach
        return origin, normalise(ahead + right * (x * spread) + up * (y * spread))


@dataclass(frozen=True)
class Scene:
    """One product on a seamless floor at y = 0."""

    parts: Sequence[Part]
    camera: Camera
    lights: Sequence[Softbox]
    centre: tuple[float, float, float]  # with `radius`: a sphere around the whole product
    radius: float
    backdrop_top: Array  # [3, 1], as the finished photo shows it
    backdrop_bottom: Array
    ambient: float = 0.35  # light from everywhere, on a white matte
    room: float = 0.12  # what mirrors see where there is neither light nor backdrop
    step: float = 0.9  # share of the distance that a march dares to go
    gloss: float = 0.0  # mirror share of the floor
    floor_paint: Paint | None = None  # multiplies the backdrop on the floor
    shade: Array | float = 1.0  # strength of the shadow on the floor, by channel if [3, 1]
    mirror_depth: int = 1

    def distance(self, p: Array) -> Array:
        best = self.parts[0].distance(p)
        for part in self.parts[1:]:
            best = np.minimum(best, part.distance(p))
        return best

    def nearest(self, p: Array) -> npt.NDArray[np.intp]:
        """Index of the part that each point belongs to."""
        owner: npt.NDArray[np.intp] = np.argmin([part.distance(p) for part in self.parts], axis=0)
        return owner

    def span(self, origin: Array, ray: Array, slack: Array | float = 0.0) -> tuple[Array, Array]:
        """Where rays enter and leave the sphere around the product, or one larger by `slack`.

        On a miss the end is -1.
        """
        off = origin - vec(*self.centre)
        b = dot(off, ray)
        gap = b * b - dot(off, off) + (self.radius + slack) ** 2
        half = np.sqrt(np.maximum(gap, 0.0))
        return np.maximum(-b - half, 0.0), np.where(gap > 0.0, half - b, -1.0)
