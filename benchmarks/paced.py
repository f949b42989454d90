"""A UNet that takes a given time and computes nothing: a GPU's pace where there is no GPU.

It is the real class, so that the engine meets what it expects; only `forward` sleeps.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import I2VGenXLUNet

from benchmarks.models import CPU, UNetConfig, random_model
from diffusion.weights import DenoisingModel

Pace = Callable[[torch.Size], float]
"""Seconds of a call on a sample of [rows, 4, F, h, w]."""

_SMALLEST: UNetConfig = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "cross_attention_dim": 8,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "sample_size": 8,
    "down_block_types": ("DownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "UpBlock3D"),
}


class PacedUNet(I2VGenXLUNet):  # type: ignore[misc]
    pace: Pace

    def forward(self, sample: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        """The sample itself as v-prediction: DDIM keeps such latents as they are, so they stay
        finite for any number of steps."""
        ends = time.perf_counter() + self.pace(sample.shape)
        time.sleep(max(0.0, ends - time.perf_counter()))
        return (sample,)


def paced_model(
    pace: Pace, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> DenoisingModel:
    model = random_model(_SMALLEST, device, dtype, PacedUNet)
    model.unet.pace = pace
    return model


def instant_model(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> DenoisingModel:
    """Leaves of an engine's tick only what is the engine's own."""
    return paced_model(lambda _: 0.0, device, dtype)
