"""Training clips: a still picture seen by a camera that moves, and a sentence that says how."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.training.pictures import Picture


@dataclass(frozen=True, slots=True)
class Move:
    """What the camera does from one frame to the next, at full speed."""

    name: str
    words: tuple[str, ...]
    zoom: float = 0.0  # natural logarithm of the magnification
    right: float = 0.0  # px that the view travels
    down: float = 0.0  # px
    roll: float = 0.0  # degrees, clockwise


MOVES = (
    Move("zoom in", ("the camera pushes in", "the camera zooms in", "slow zoom in"), zoom=0.03),
    Move(
        "zoom out", ("the camera pulls back", "the camera zooms out", "slow zoom out"), zoom=-0.03
    ),
    Move("pan left", ("the camera pans left", "the camera glides to the left"), right=-5),
    Move("pan right", ("the camera pans right", "the camera glides to the right"), right=5),
    Move("tilt up", ("the camera tilts up", "the camera rises"), down=-5),
    Move("tilt down", ("the camera tilts down", "the camera lowers"), down=5),
    Move("roll", ("the camera rolls", "the picture turns slowly"), roll=0.7),
    Move("static", ("a static shot", "the camera stands still")),
)
_THINGS = ("a product", "a bottle", "a cup", "a studio photo", "a colourful object", "")
_LIGHTS = ("", ", soft studio light", ", bright light", ", calm daylight", ", white background")


@dataclass(frozen=True, slots=True)
class Clips:
    """A batch of clips."""

    pixels: torch.Tensor  # [B, F, 3, S, S] in -1..1
    prompts: list[str]  # B
    fps: torch.Tensor  # [B], a condition without consequence here


def sample_clips(
    pictures: Sequence[Picture], count: int, num_frames: int, side: int, rng: np.random.Generator
) -> Clips:
    """`count` windows of `side` px into larger views: zoom and roll turn about a point outside."""
    frames, prompts = [], []
    for _ in range(count):
        move = MOVES[rng.integers(len(MOVES))]
        picture = pictures[int(rng.integers(len(pictures)))]
        frames.append(_film(picture, move, num_frames, side, rng))
        thing, light = rng.choice(_THINGS), rng.choice(_LIGHTS)
        words = move.words[rng.integers(len(move.words))]
        prompts.append(f"{thing}, {words}{light}".lstrip(", ") if rng.random() < 0.9 else "")
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    return Clips(pixels, prompts, torch.from_numpy(rng.choice((8, 12, 16, 24), count)))


def _film(
    picture: Picture, move: Move, num_frames: int, side: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """[F, side, side, 3]"""
    speed = rng.uniform(0.2, 1.0) if rng.random() < 0.9 else 0.0
    scale = np.exp(rng.uniform(np.log(0.5), np.log(1.2)))
    pivot = side / 2 + rng.uniform(-1.5, 1.5, 2) * side
    reach = scale * (0.71 * side + num_frames * speed * max(abs(move.right), abs(move.down)) / 2)
    room = max(0.0, picture.shape[0] / 2 - reach)
    middle = picture.shape[0] / 2 + rng.uniform(-1, 1, 2) * room
    window = Window(side, scale, (middle[0], middle[1]), (pivot[0], pivot[1]))
    return film(picture, move, speed, num_frames, window)


@dataclass(frozen=True, slots=True)
class Window:
    """The frames' place in the picture, halfway through the clip."""

    side: int  # px of the clip
    scale: float  # px of the picture per px of the clip
    middle: tuple[float, float]  # of the window, x and y in the picture
    pivot: tuple[float, float]  # of zoom and roll, x and y in the clip


def film(
    picture: Picture, move: Move, speed: float, num_frames: int, window: Window
) -> NDArray[np.uint8]:
    """[F, side, side, 3]; beyond its borders the picture is mirrored."""
    frames = []
    pivot, middle = np.array(window.pivot), np.array(window.middle)
    for index in range(num_frames):
        time = (index - (num_frames - 1) / 2) * speed
        size, angle = window.scale * np.exp(-move.zoom * time), np.deg2rad(move.roll * time)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * size
        travel = np.array([move.right, move.down]) * time
        centre = middle + window.scale * (pivot - window.side / 2 + travel)
        frames.append(
            cv2.warpAffine(
                picture,
                np.column_stack([turn, centre - turn @ pivot]),
                (window.side, window.side),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        )
    return np.stack(frames)
