"""Decoder: latents to uint8 frames, a chunk at a time."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
from pydantic import Field

from cluster.stage import StageConfig
from deployments.denoiser import Denoised
from deployments.timing import Stopwatch
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DecoderConfig(StageConfig):
    chunk_frames: int = Field(4, ge=1, description="frames at once; 0.38 GiB each at 512x512, fp16")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Where decoded frames are: uint8 [F, H, W, 3] behind the reference."""

    frames: "ray.ObjectRef[object]"
    seconds: float


class Decoder:
    def __init__(self, config: DecoderConfig, model: ModelConfig, digests: dict[str, str]):
        import torch

        from diffusion.device import open_device
        from diffusion.weights import load_vae_decoder

        folder = ModelFolder.open(model)
        folder.verify(digests, "vae")
        device = open_device(config.device, config.num_gpus, config.threads)
        self._vae = load_vae_decoder(folder, device, getattr(torch, model.dtype_on(config.device)))
        self._chunk_frames = config.chunk_frames
        self._lock = asyncio.Lock()

    async def decode(self, denoised: Denoised) -> Decoded:
        """Decode the latents behind `denoised`; the frames stay in the object store."""
        from diffusion.decode import decode_latents

        latents = await denoised.latents
        watch = Stopwatch()

        def work() -> "NDArray[np.uint8]":
            with watch.running():
                return decode_latents(self._vae, latents, self._chunk_frames)

        async with self._lock:
            frames = await asyncio.to_thread(work)
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "decoding"})
        return Decoded(await asyncio.to_thread(ray.put, frames), watch.seconds)
