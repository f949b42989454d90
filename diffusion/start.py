"""Frames of a camera move to the latents that a clip with a motion strength begins at."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.device import within_memory
from diffusion.image import vae_latents
from diffusion.state import StartLatents, WireTensor


@within_memory()
@torch.inference_mode()
def encode_start(vae: Any, frames: NDArray[np.uint8], chunk_frames: int) -> StartLatents:
    """Encode [F, H, W, 3], at the clip's size, to [1, 4, F, h, w]; the first frame to just what
    `encode_image` makes of it. Raises OutOfMemory."""
    parts = np.split(frames, range(chunk_frames, len(frames), chunk_frames))
    latents = torch.cat([vae_latents(vae, part).cpu() for part in parts])  # [F, 4, h, w]
    return StartLatents(WireTensor.of(latents.permute(1, 0, 2, 3).unsqueeze(0)))
