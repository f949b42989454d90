"""Moves of the product's own camera over photos that the embedded model was never trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from video.camera.move import CameraMove, Move
from video.camera.path import CameraPath
from video.camera.scene import Scene, open_scene
from video.flow import positions
from video.photo import PhotoLimits, open_photo

Frames = NDArray[np.uint8]  # [F, H, W, 3]

MOVES = (
    Move.ZOOM_IN,
    Move.ZOOM_OUT,
    Move.PAN_LEFT,
    Move.PAN_RIGHT,
    Move.TILT_UP,
    Move.TILT_DOWN,
    Move.ROLL_RIGHT,
    Move.ORBIT_LEFT,
)

_PRODUCTS = Path(__file__).parents[2] / "examples" / "products"
_PHOTOGRAPHS = Path(skimage.data.__file__).parent
HELD_OUT = {
    "coffee": _PHOTOGRAPHS / "coffee.png",
    "motorcycle": _PHOTOGRAPHS / "motorcycle_left.png",
    "perfume": _PRODUCTS / "beauty-perfume.jpg",
    "watch": _PRODUCTS / "watch-steel.jpg",
}


@dataclass(frozen=True, slots=True)
class Take:
    """One move over one photo."""

    photo: str
    move: Move
    prompt: str
    truth: Frames
    known: Frames  # what a guided clip starts from


def takes(side: int, num_frames: int, *, photo_only: bool) -> Iterator[Take]:
    """Every held-out photo with every move, in squares of `side` px.

    What is known is the truth itself, as in the service, where the camera moves within the photo;
    with `photo_only` it is the truth's first frame, carried along the true motion.
    """
    for name, path in HELD_OUT.items():
        rgb = open_photo(path.read_bytes(), PhotoLimits()).rgb
        for move in MOVES:
            scene = open_scene(rgb, CameraPath(CameraMove(move), side, side, num_frames))
            truth = np.stack(list(scene.frames()))
            known = carried(truth[0], scene) if photo_only else truth
            prompt = f"a studio photo of a {name}, {move.replace('_', ' ')}"
            yield Take(name, move, prompt, truth, known)


def carried(first: NDArray[np.uint8], scene: Scene) -> Frames:
    """`first`, [H, W, 3], moved as all frames of `scene` are; beyond its borders it is mirrored."""
    frames = []
    for index in range(scene.path.num_frames):
        flow = scene.flow(index, 0)
        places = (positions(flow) + flow).astype(np.float32)
        frames.append(
            cv2.remap(first, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        )
    return np.stack(frames)
