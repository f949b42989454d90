"""What the stages ask of a virtual camera, and what the CameraRenderer answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from deployments.decoder import Decoded
from video.camera.move import CameraMove
from video.photo import Fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Render(Protocol):
    """It draws nothing random: the same move over the same photo is the same frames."""

    def __call__(
        self,
        photo: "NDArray[np.uint8]",  # [H, W, 3] upright sRGB, as large as it was sent
        camera: CameraMove,
        num_frames: int,
        size: tuple[int, int],  # width, height of a frame in px
        fit: Fit,  # of the photo to the frames' ratio
    ) -> "Iterator[NDArray[np.uint8]]": ...  # num_frames of [height, width, 3]


ONE_LAYER = (
    "no product stands clear of a plain backdrop in this photo: the orbit moves all of it as one"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole clip without a model."""

    frames: Decoded
    layers: int  # 2: the product of an orbit moves apart from what is behind it
