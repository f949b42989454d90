"""The composed stages give the latents and pixels of diffusers' own I2VGenXLPipeline."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import I2VGenXLPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from numpy.typing import NDArray
from PIL import Image

from diffusion.decode import decode_latents
from diffusion.engine import denoise
from diffusion.image import encode_image
from diffusion.model_folder import ModelFolder
from diffusion.params import SamplingParams
from diffusion.state import TextCondition
from diffusion.text import encode_prompt
from diffusion.weights import (
    DenoisingModel,
    ImageModel,
    TextModel,
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)

CPU, FP32 = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def stock(tiny: ModelFolder) -> I2VGenXLPipeline:
    pipeline = I2VGenXLPipeline.from_pretrained(tiny.path)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def text_model(tiny: ModelFolder) -> TextModel:
    return load_text_model(tiny, CPU, FP32)


@pytest.fixture(scope="module")
def image_model(tiny: ModelFolder) -> ImageModel:
    return load_image_model(tiny, CPU, FP32)


@pytest.fixture(scope="module")
def denoising_model(tiny: ModelFolder) -> DenoisingModel:
    return load_denoising_model(tiny, CPU, FP32, "tiny")


@pytest.fixture(scope="module")
def vae(tiny: ModelFolder) -> Any:
    return load_vae_decoder(tiny, CPU, FP32)


def photo(width: int, height: int) -> NDArray[np.uint8]:
    rows = np.linspace(0, 255, height)[:, None, None]
    columns = np.linspace(255, 0, width)[None, :, None]
    noise = np.random.default_rng(7).integers(0, 60, (height, width, 3))
    return np.clip((rows + columns) / 2 + noise, 0, 255).astype(np.uint8)


SIZES = {"square": (64, 64), "wide": (128, 64), "tall": (64, 112)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("guidance_scale", [1.0, 9.0])
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_latents_equal_the_stock_pipeline(
    size: str,
    guidance_scale: float,
    steps: int,
    stock: I2VGenXLPipeline,
    text_model: TextModel,
    image_model: ImageModel,
    denoising_model: DenoisingModel,
    vae: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width, height = SIZES[size]
    params = SamplingParams(
        "a blue vase turns to the left", "blurry", width, height, 5, steps, guidance_scale, 8, 11
    )
    frame = photo(width, height)
    text = TextCondition(
        encode_prompt(text_model, params.prompt), encode_prompt(text_model, params.negative_prompt)
    )
    ours = denoise(denoising_model, params, text, encode_image(image_model, frame))

    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )

    def run_stock(output_type: str) -> Any:
        return stock(
            prompt_embeds=text.prompt.embeds.to(CPU, FP32),
            negative_prompt_embeds=text.negative_prompt.embeds.to(CPU, FP32),
            image=Image.fromarray(frame),
            width=width,
            height=height,
            num_frames=params.num_frames,
            target_fps=params.motion_fps,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seed),
            output_type=output_type,
        ).frames

    expected = run_stock("latent")
    difference = (ours.latents.to(CPU, FP32) - expected).abs().max().item()
    assert difference <= 1e-4
    assert expected.std() > 0.1  # the latents are not trivially equal

    frames = decode_latents(vae, ours, chunk_frames=2)
    stock_frames = np.round(run_stock("np")[0] * 255).astype(int)
    assert frames.shape == (5, height, width, 3)
    assert np.abs(frames.astype(int) - stock_frames).max() <= 1


def test_the_chunk_size_changes_no_pixel(
    vae: Any, denoising_model: DenoisingModel, text_model: TextModel, image_model: ImageModel
) -> None:
    params = SamplingParams("a cup", "", 64, 64, 6, 2, 1.0, 8, 3)
    latents = denoise(
        denoising_model,
        params,
        TextCondition(encode_prompt(text_model, "a cup"), encode_prompt(text_model, "")),
        encode_image(image_model, photo(64, 64)),
    )
    whole = decode_latents(vae, latents, chunk_frames=6)
    chunked = decode_latents(vae, latents, chunk_frames=4).astype(int)
    assert np.abs(whole.astype(int) - chunked).max() <= 1  # one rounding step at most
