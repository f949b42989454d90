"""The model on a CUDA device: the same clip as on the CPU, within what fp16 can hold."""

import numpy as np
import pytest
import torch

from diffusion.decode import decode_latents
from diffusion.device import open_device
from diffusion.engine import denoise
from diffusion.image import encode_image
from diffusion.model_folder import ModelFolder
from diffusion.params import SamplingParams
from diffusion.state import TextCondition
from diffusion.text import encode_prompt
from diffusion.weights import (
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)

pytestmark = pytest.mark.gpu


def clip(
    folder: ModelFolder, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, np.ndarray]:
    text = load_text_model(folder, device, dtype)
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    image = encode_image(load_image_model(folder, device, dtype), frame)
    model = load_denoising_model(folder, device, dtype, "tiny")
    prompts = TextCondition(encode_prompt(text, "a mug turns"), encode_prompt(text, "blurry"))
    params = SamplingParams("a mug turns", "blurry", 96, 64, 8, 10, 9.0, 16, 5)
    latents = denoise(model, params, prompts, image)
    pixels = decode_latents(load_vae_decoder(folder, device, dtype), latents, chunk_frames=3)
    return latents.latents.to(torch.device("cpu"), torch.float32), pixels


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-2), (torch.float16, 0.15)],
    ids=["float32", "float16"],
)
def test_a_clip_is_the_same_on_the_gpu(
    tiny: ModelFolder, dtype: torch.dtype, tolerance: float
) -> None:
    expected, _ = clip(tiny, torch.device("cpu"), torch.float32)
    found, pixels = clip(tiny, open_device("cuda", 1, 1), dtype)
    assert (found - expected).abs().max() / expected.std() < tolerance
    assert pixels.shape == (8, 64, 96, 3)


def test_a_fraction_of_the_card_is_a_cap() -> None:
    device = open_device("cuda", 0.1, 1)
    try:
        whole = torch.cuda.get_device_properties(device).total_memory
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(int(whole * 0.2), dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
