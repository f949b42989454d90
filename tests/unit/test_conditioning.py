"""Conditions and how they travel between processes."""

import numpy as np
import pytest
import torch

from diffusion.image import add_position_planes, encode_image
from diffusion.model_folder import ModelFolder
from diffusion.state import WireTensor
from diffusion.text import encode_prompt
from diffusion.weights import load_image_model, load_text_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    wire = WireTensor.of(tensor)
    assert wire.data.itemsize == tensor.itemsize
    assert torch.equal(wire.to(CPU, dtype), tensor)


def test_what_arrives_read_only_becomes_a_tensor_of_its_own() -> None:
    wire = WireTensor.of(torch.ones(3))
    wire.data.flags.writeable = False  # as the object store maps it
    tensor = wire.to(CPU, torch.float32)
    tensor[0] = 5
    assert wire.data.tolist() == [1, 1, 1]


def test_position_planes_count_from_the_first_frame_to_one() -> None:
    planes = add_position_planes(torch.full((1, 4, 1, 2, 3), 9.0), num_frames=5)
    assert planes.shape == (1, 4, 5, 2, 3)
    assert planes[0, 0, :, 0, 0].tolist() == [9.0, 0.25, 0.5, 0.75, 1.0]
    assert (planes == planes[:, :1, :, :1, :1]).all()


def test_a_prompt_beyond_the_context_says_what_was_left_out(tiny: ModelFolder) -> None:
    model = load_text_model(tiny, CPU, torch.float32)
    short = encode_prompt(model, "a red mug")
    assert (short.dropped, short.embeds.data.shape) == ("", (1, 77, 32))
    long = encode_prompt(model, "x" * 75 + "yz")
    assert long.dropped.replace(" ", "") == "yz"
    assert long.embeds.data.shape == (1, 77, 32)


def test_the_photo_decides_the_condition_and_nothing_random_does(tiny: ModelFolder) -> None:
    model = load_image_model(tiny, CPU, torch.float32)
    grey, white = (np.full((64, 96, 3), value, np.uint8) for value in (128, 255))
    first, again, other = (encode_image(model, frame) for frame in (grey, grey, white))
    assert first.image_latents.data.shape == (1, 4, 1, 8, 12)
    assert np.array_equal(first.image_latents.data, again.image_latents.data)
    assert not np.allclose(first.image_latents.data, other.image_latents.data)
    assert not np.allclose(first.image_embeddings.data, other.image_embeddings.data)
