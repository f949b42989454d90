"""Training the codec's decoder on still pictures, the encoder being fixed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL

from diffusion.training.codec import PatchCode
from diffusion.training.loop import Forward, Schedule, Workplace, train
from diffusion.training.pictures import Picture

_CHARBONNIER = 1e-3
"""Below this an error counts squared, above it by its size: edges stay sharper than with MSE."""


@dataclass(frozen=True, slots=True)
class Crops:
    """What a training step sees."""

    rows: int
    side: int  # px


def train_decoder(
    vae: AutoencoderKL,
    code: PatchCode,
    pictures: Sequence[Picture],
    schedule: Schedule,
    place: Workplace,
    *,
    shape: Crops,
    seed: int = 0,
    stop_after: int | None = None,
) -> bool:
    """Returns whether it is done; see diffusion.training.loop.train."""

    def loss(decode: Forward, step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        pixels = crops(pictures, shape, rng)
        answer = decode(code.encode(pixels).to(vae.device)).cpu()
        errors: torch.Tensor = ((answer - pixels) ** 2 + _CHARBONNIER**2).sqrt()
        return errors.mean()

    return train(vae.decoder, loss, schedule, place, stop_after=stop_after)


def crops(pictures: Sequence[Picture], shape: Crops, rng: np.random.Generator) -> torch.Tensor:
    """Squares cut from pictures picked by chance: [rows, 3, side, side] in -1..1."""
    side = shape.side
    cut = []
    for index in rng.integers(len(pictures), size=shape.rows):
        picture = pictures[index]
        top, left = rng.integers(np.array(picture.shape[:2]) - side + 1)
        cut.append(picture[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1
