"""One whole clip twice: diffusers' own pipeline, and the engine with this project's decoder.

The CLIP encoders are left out of both; the stock pipeline alone still runs the VAE encoder on the
photo, less than a hundredth of its FLOPs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import I2VGenXLPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil

from benchmarks.card import Card
from benchmarks.models import conditions
from diffusion.decode import decode_latents
from diffusion.device import within_memory
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.events import Failed, Finished
from diffusion.params import SamplingParams
from diffusion.state import TextCondition
from diffusion.weights import DenoisingModel

DECODED_AT_ONCE = 4  # DecoderConfig's own; the stock pipeline decodes frame by frame


@dataclass(frozen=True, slots=True)
class Made:
    """Seconds of one clip."""

    denoising_s: float
    decoding_s: float


class Maker(Protocol):
    def make(self, params: SamplingParams) -> Made:
        """Raises OutOfMemory."""


class StockPipeline(I2VGenXLPipeline):  # type: ignore[misc]
    """Takes the image embedding as given, and times its decoder."""

    def given(self, embeddings: torch.Tensor, settle: Callable[[], None]) -> None:
        self._given, self._settle = embeddings, settle

    def _encode_image(self, *_: Any) -> torch.Tensor:
        return torch.cat([torch.zeros_like(self._given), self._given])

    def decode_latents(self, *args: Any, **kwargs: Any) -> Any:
        self._settle()
        begun = time.perf_counter()
        video = super().decode_latents(*args, **kwargs)
        self._settle()
        self.decoding_s = time.perf_counter() - begun
        return video


class Stock:
    """I2VGenXLPipeline as it comes: one clip per call."""

    def __init__(self, card: Card, model: DenoisingModel, vae: Any):
        self._card = card
        self._model = model
        self._pipeline = StockPipeline(
            vae=vae,
            text_encoder=None,
            tokenizer=None,
            image_encoder=None,
            feature_extractor=CLIPImageProcessorPil(crop_size=224),
            unet=model.unet,
            scheduler=model.scheduler,
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def make(self, params: SamplingParams) -> Made:
        text, image = conditions(self._model, params)
        embeddings = image.image_embeddings.to(self._card.device, self._card.dtype)
        self._pipeline.given(embeddings, self._card.settle)
        begun = time.perf_counter()
        with within_memory():
            self._run(params, text)
            self._card.settle()
        clip_s = time.perf_counter() - begun
        return Made(clip_s - self._pipeline.decoding_s, self._pipeline.decoding_s)

    def _run(self, params: SamplingParams, text: TextCondition) -> None:
        device, dtype = self._card.device, self._card.dtype
        self._pipeline(
            image=Image.new("RGB", (params.width, params.height), (200, 120, 40)),
            prompt_embeds=text.prompt.embeds.to(device, dtype),
            negative_prompt_embeds=text.negative_prompt.embeds.to(device, dtype),
            width=params.width,
            height=params.height,
            num_frames=params.num_frames,
            target_fps=params.motion_fps,
            num_inference_steps=params.num_inference_steps,
            guidance_scale=params.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seed),
            output_type="np",
        )


class Ours:
    """The engine alone with one request, then the decoder."""

    def __init__(self, card: Card, model: DenoisingModel, vae: Any):
        self._card = card
        self._model = model
        self._vae = vae

    def make(self, params: SamplingParams) -> Made:
        text, image = conditions(self._model, params)
        begun = time.perf_counter()
        engine = Engine(self._model, EngineConfig())
        engine.join("clip", params, text, image)
        while not isinstance(event := engine.tick()[-1], Finished):
            if isinstance(event, Failed):
                raise event.error
        self._card.settle()
        denoised = time.perf_counter()
        decode_latents(self._vae, event.latents, DECODED_AT_ONCE)
        return Made(denoised - begun, time.perf_counter() - denoised)
