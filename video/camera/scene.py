"""A photo and a camera path become frames, one at a time: whatever the clip's length, a scene holds
one stage for each layer and a frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from video.camera.layers import Cutout, take_apart
from video.camera.move import CameraMove
from video.camera.path import CameraPath
from video.camera.stage import Pixels, Stage, make_stage
from video.photo import Fit

PRODUCT, BEHIND = 1.0, -0.6
"""Parallax: of an orbit's product and of a photo without layers, and of what is behind a product.
The camera looks at a point between the two."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a camera goes past. `layers` is 2 in an orbit whose product was found,
    which then goes one way and what is behind it the other; else 1, and all of it goes."""

    path: CameraPath
    stage: Stage  # the photo; behind a product, filled in
    product: Cutout | None = None

    @property
    def layers(self) -> int:
        return 1 if self.product is None else 2

    def frames(self) -> Iterator[Pixels]:
        """uint8 [H, W, 3], `path.num_frames` of them."""
        size = self.path.width, self.path.height
        for near, far in zip(self.path.views(PRODUCT), self.path.views(BEHIND), strict=True):
            if self.product is None:
                yield self.stage.look(near, *size)
                continue
            matte = self.product.matte.look(near, *size).astype(np.float32) / 255
            product = self.product.colors.look(near, *size)
            behind = self.stage.look(far, *size)
            yield np.asarray(cv2.blendLinear(product, behind, matte, 1 - matte))

    def flow(self, first: int, second: int) -> NDArray[np.float32]:
        """The true motion from frame `first` to `second`, [H, W, 2] px, x before y."""
        flow = self.path.flow(first, second, PRODUCT)
        if self.product is not None:
            view = self.path.views(PRODUCT)[first]
            matte = self.product.matte.look(view, self.path.width, self.path.height)
            behind = self.path.flow(first, second, BEHIND)
            flow = np.where(matte[..., None] > 127, flow, behind)
        return flow


def open_scene(
    rgb: Pixels,
    path: CameraPath,
    fit: Fit = Fit.CROP,
    color: tuple[int, int, int] = (255, 255, 255),
) -> Scene:
    """`rgb` [H, W, 3] as `path` passes it. For an orbit, the product is cut out where one stands
    clear of its background."""
    stage = make_stage(rgb, path, fit, color)
    if path.camera.move.is_orbit and (parts := take_apart(stage)):
        return Scene(path, *parts)
    return Scene(path, stage)


def render(
    photo: Pixels, camera: CameraMove, num_frames: int, size: tuple[int, int], fit: Fit
) -> Iterator[Pixels]:
    """`num_frames` frames [height, width, 3] of a move over `photo` [H, W, 3]; `size` is (width,
    height). Nothing in it is random."""
    return open_scene(photo, CameraPath(camera, *size, num_frames), fit).frames()
