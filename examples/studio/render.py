"""Takes the photo: camera rays to the product or the floor, then more of them along the edges.

Everything is a function of the pixel alone (no random numbers but a fixed dither), so that a photo
comes out the same on every run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from studio.march import march, openness, sunlit
from studio.scene import Scene
from studio.sdf import Array, mix, normalise, smoothstep, vec
from studio.shade import shade
from studio.tone import develop, encode, undevelop

CHUNK = 1 << 15  # rays at a time: a field of them fits the processor's cache
BUSY = 0.035  # change to a neighbour, of 1, that calls for more rays
# The second pass adds eight rooks to the centre of each pixel that needs them.
ROOKS = [((2 * i - 7) / 16, (2 * j - 7) / 16) for i, j in enumerate((3, 6, 1, 4, 7, 0, 5, 2))]


def lay_floor(scene: Scene, p: Array, ray: Array, backdrop: Array) -> Array:
    """The backdrop with the product's shadow on it, and its mirror image on a glossy floor."""
    normal = vec(0.0, 1.0, 0.0)
    up = np.broadcast_to(normal, p.shape)
    open_share = openness(scene, p, up, floor=False)
    lit = np.zeros_like(p) + scene.ambient * open_share
    full = np.zeros_like(p) + scene.ambient
    for light in scene.lights:
        towards = normalise(vec(*light.centre) - p)
        slant = np.maximum(towards[1], 0.0)
        lit += light.power * slant * sunlit(scene, p, towards, light.penumbra)
        full += light.power * slant
    away = np.hypot(p[0] - scene.centre[0], p[2] - scene.centre[2]) / scene.radius
    strength = scene.shade * smoothstep(4.5, 1.2, away)  # the sweep curves up into the light
    ratio = 1.0 - strength * (1.0 - lit / np.maximum(full, 1e-6))
    ground = backdrop if scene.floor_paint is None else backdrop * scene.floor_paint(p)
    out: Array = ground * ratio
    if scene.gloss:
        mirror = ray * vec(1.0, -1.0, 1.0)
        enter, leave = scene.span(p, mirror)
        t = march(scene.distance, p, mirror, np.maximum(enter, 2e-3), leave, scene.step)
        hit = np.flatnonzero(np.isfinite(t))
        if hit.size:
            q = p[:, hit] + mirror[:, hit] * t[hit]
            seen = shade(scene, q, mirror[:, hit], 1)
            out[:, hit] = mix(out[:, hit], seen, scene.gloss * np.exp(-1.6 * q[1]))
    return out


def trace(scene: Scene, x: Array, y: Array) -> tuple[Array, Array]:
    """Developed light [4, n], product colour weighted by cover with the cover last, and the
    photo's light [3, n], for screen points in -1..1 (y upwards)."""
    origin, ray = scene.camera.rays(x, y)
    backdrop = undevelop(mix(scene.backdrop_bottom, scene.backdrop_top, smoothstep(-0.9, 0.9, y)))
    enter, leave = scene.span(origin, ray)
    t = march(scene.distance, origin, ray, enter, leave, scene.step)
    hit = np.isfinite(t)
    photo = backdrop.astype(np.float32)
    cut = np.zeros((4, x.size), dtype=np.float32)

    to_floor = -origin[1] / np.minimum(ray[1], -1e-4)
    floor = np.flatnonzero(~hit & (ray[1] < -1e-4) & (to_floor < 60.0))
    if floor.size:
        p = origin + ray[:, floor] * to_floor[floor]
        photo[:, floor] = lay_floor(scene, p, ray[:, floor], photo[:, floor])
    body = np.flatnonzero(hit)
    if body.size:
        photo[:, body] = shade(scene, origin + ray[:, body] * t[body], ray[:, body], 0)
    photo = develop(photo)
    cut[:3, body] = photo[:, body]
    cut[3, body] = 1.0
    return photo, cut


@dataclass(frozen=True)
class Photo:
    """A developed photo, sRGB."""

    full: npt.NDArray[np.uint8]  # [height, width, 3]
    cut_out: npt.NDArray[np.uint8]  # [height, width, 4], the product alone, straight alpha


def render(scene: Scene, width: int, height: int, progress: Callable[[int, int], None]) -> Photo:
    """One ray through the middle of every pixel, then eight more where the picture changes.

    `progress` is told the rays done and the rays to do; the latter grows once.
    """
    rows, columns = np.divmod(np.arange(width * height), width)
    done, to_do = 0, width * height

    def sample(pixels: npt.NDArray[np.intp], dx: float, dy: float) -> Array:
        nonlocal done
        out = np.empty((7, pixels.size), dtype=np.float32)
        for first in range(0, pixels.size, CHUNK):
            own = pixels[first : first + CHUNK]
            x = ((columns[own] + 0.5 + dx) * 2.0 - width) / height
            y = (height - (rows[own] + 0.5 + dy) * 2.0) / height
            photo, cut = trace(scene, x.astype(np.float32), y.astype(np.float32))
            out[:3, first : first + CHUNK], out[3:, first : first + CHUNK] = photo, cut
            done += own.size
            progress(done, to_do)
        return out

    light = sample(np.arange(width * height), 0.0, 0.0)
    busy = np.zeros((height, width), dtype=bool)
    window = np.ones((3, 3), dtype=np.uint8)
    for channel in (*encode(light[:3]), light[6]):
        plane = channel.reshape(height, width).astype(np.float32)
        busy |= cv2.dilate(plane, window) - cv2.erode(plane, window) > BUSY
    pixels = np.flatnonzero(busy)
    to_do += len(ROOKS) * pixels.size
    total = light[:, pixels]
    for dx, dy in ROOKS:
        total = total + sample(pixels, dx, dy)
    light[:, pixels] = total / (1 + len(ROOKS))

    def picture(channels: Array) -> npt.NDArray[np.uint8]:
        eight_bit = np.clip(np.round(channels * 255.0), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(eight_bit.T.reshape(height, width, -1))

    # Half a step of noise, so that the even backdrop does not fall into bands.
    dither = np.random.default_rng(4).triangular(-0.7, 0.0, 0.7, (1, width * height)) / 255.0
    cover = light[6:]
    cut = np.concatenate([encode(light[3:6] / np.maximum(cover, 1e-3)), cover])
    return Photo(picture(encode(light[:3]) + dither), picture(cut))
