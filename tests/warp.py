"""A camera move for tests: a window that slides over the photo. Real pixels, simple mathematics."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video.camera.move import CameraMove, Move
from video.photo import Fit


def pan(
    photo: NDArray[np.uint8], camera: CameraMove, num_frames: int, size: tuple[int, int], fit: Fit
) -> Iterator[NDArray[np.uint8]]:
    """A deployments.camera.Render. The window is four fifths of the photo and goes from one side to
    the other; up and down it stays in the middle."""
    assert camera.move in (Move.PAN_LEFT, Move.PAN_RIGHT)
    assert fit is Fit.CROP
    height, width = photo.shape[:2]
    window, top = (width * 4 // 5, height * 4 // 5), height // 10
    shares = np.linspace(0, 1, num_frames)
    if camera.move is Move.PAN_LEFT:
        shares = shares[::-1]
    picture = Image.fromarray(photo)
    for left in shares * (width - window[0]):
        box = (left, top, left + window[0], top + window[1])
        yield np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box))
