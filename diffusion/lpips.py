"""LPIPS: how far apart two images look, by AlexNet's features. Weights are given, never fetched."""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Conv2d, Dropout, MaxPool2d, Module, ReLU, Sequential

from diffusion.errors import WeightsUnusable

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in -1..1
_TAPS = (2, 5, 8, 10, 12)  # ends of the five slices of AlexNet's features: after each ReLU
_WIDTHS = (64, 192, 384, 256, 256)  # channels at the taps


class Lpips(Module):
    """Version 0.1 on AlexNet: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
    Perceptual Metric", CVPR 2018.

    Named as torchvision and lpips name theirs, so that one safetensors file with the tensors of
    both, `features.*` of alexnet and `lin*` of lpips' alex.pth, is the checkpoint.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, 2),
            Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, 2),
            Conv2d(192, 384, 3, padding=1), ReLU(),
            Conv2d(384, 256, 3, padding=1), ReLU(),
            Conv2d(256, 256, 3, padding=1), ReLU(),
        )  # fmt: skip
        for index, width in enumerate(_WIDTHS):
            head = Sequential(Dropout(), Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{index}", Sequential(OrderedDict(model=head)))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Distance of each of `images` [N, 3, H, W] from `reference` [1, 3, H, W], both -1..1."""
        total = torch.zeros(len(images), device=images.device)
        ours, theirs = ((image - self.shift) / self.scale for image in (images, reference))
        for index, (start, stop) in enumerate(pairwise((0, *_TAPS))):
            ours, theirs = self.features[start:stop](ours), self.features[start:stop](theirs)
            difference = (_unit(ours) - _unit(theirs)).square()
            total = total + self.get_submodule(f"lin{index}")(difference).mean(dim=(1, 2, 3))
        return total


class PerceptualDistance:
    """A `video.measure.Perceptual` on the CPU."""

    def __init__(self, weights: Path) -> None:
        """Raises WeightsUnusable."""
        self._model = Lpips().eval().requires_grad_(False)
        try:
            tensors = load_file(weights)
            wanted = {name: t for name, t in tensors.items() if not name.startswith("classifier.")}
            self._model.load_state_dict(wanted)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WeightsUnusable(
                f"lpips_weights {weights}: {error}; expected is a safetensors file with"
                " `features.*` of torchvision's alexnet and `lin*` of lpips 0.1's alex.pth"
            ) from error

    def __call__(self, frames: NDArray[np.uint8], photo: NDArray[np.uint8]) -> list[float]:
        """Distance of each of `frames` [N, H, W, 3] from `photo` [H, W, 3]; 0 is equal."""
        with torch.inference_mode():
            distances: list[float] = self._model(_tensor(frames), _tensor(photo[None])).tolist()
        return distances


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    """[N, H, W, 3] 0..255 to [N, 3, H, W] -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _unit(features: Tensor) -> Tensor:
    length = features.square().sum(dim=1, keepdim=True).sqrt()
    return features / (length + 1e-10)
