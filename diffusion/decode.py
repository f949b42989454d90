"""Latents to pixels, a few frames at a time: all at once would peak above the UNet's own memory."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.device import within_memory
from diffusion.state import Latents


@within_memory()
@torch.inference_mode()
def decode_latents(vae: Any, latents: Latents, chunk_frames: int) -> NDArray[np.uint8]:
    """Decode [1, 4, F, h, w] to uint8 [F, H, W, 3].

    The VAE knows single images only, so the chunk size changes memory and nothing else. Raises
    OutOfMemory.
    """
    values = latents.latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    frames = values[0].permute(1, 0, 2, 3)  # [F, 4, h, w]
    chunks = []
    for chunk in frames.split(chunk_frames):
        pixels = vae.decode(chunk).sample.float()
        pixels = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        chunks.append(pixels.permute(0, 2, 3, 1).cpu())
    return torch.cat(chunks).numpy()
