"""The embedded model's stages in one process, as the service composes them."""

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.takes import Frames
from diffusion.decode import decode_latents
from diffusion.engine import denoise
from diffusion.image import encode_image
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from diffusion.start import encode_start
from diffusion.state import (
    ImageCondition,
    Latents,
    StartLatents,
    TextCondition,
    WireTensor,
)
from diffusion.text import encode_prompt
from diffusion.trajectory import Trajectory
from diffusion.weights import load_denoising_model, load_image_model, load_text_model, load_vae

Frame = NDArray[np.uint8]  # [H, W, 3]

_CPU = torch.device("cpu")
_CHUNK_FRAMES = 4


class EmbeddedModel:
    """In float32 on the CPU, as cluster/local.yaml has it."""

    def __init__(self) -> None:
        folder = ModelFolder.open(ModelConfig(name="embedded", source="embedded"))
        self._text = load_text_model(folder, _CPU, torch.float32)
        self._image = load_image_model(folder, _CPU, torch.float32)
        self._denoising = load_denoising_model(folder, _CPU, torch.float32, "embedded")
        self._vae = load_vae(folder, _CPU, torch.float32)

    def encode(self, frames: Frames) -> StartLatents:
        return encode_start(self._vae, frames, _CHUNK_FRAMES)

    def decode(self, latents: WireTensor) -> Frames:
        return decode_latents(self._vae, Latents(latents), _CHUNK_FRAMES)

    def denoise(
        self, params: SamplingParams, first_frame: Frame, start: StartLatents | None
    ) -> WireTensor:
        """From `start` where the params begin with frames, else from noise alone."""
        conditions = self._conditions(params, first_frame)
        return denoise(self._denoising, params, *conditions, start=start).latents

    @torch.inference_mode()
    def noisy_start(
        self, params: SamplingParams, first_frame: Frame, start: StartLatents
    ) -> WireTensor:
        """What the UNet gets at its first step, over the signal's share of it, so that it can be
        decoded."""
        conditions = self._conditions(params, first_frame)
        begun = Trajectory.begin(self._denoising, params, *conditions, start)
        signal = begun.scheduler.alphas_cumprod[begun.timestep].sqrt()
        return WireTensor.of(begun.latents / signal)

    def _conditions(
        self, params: SamplingParams, first_frame: Frame
    ) -> tuple[TextCondition, ImageCondition]:
        texts = (params.prompt, params.negative_prompt)
        text = TextCondition(*(encode_prompt(self._text, text) for text in texts))
        return text, encode_image(self._image, first_frame)
