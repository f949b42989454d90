"""The Decoder's VAE the other way round: what is told where memory was short."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from deployments.decoder import Decoder, DecoderConfig
from deployments.timing import Timed
from diffusion.errors import OutOfMemory
from diffusion.model_folder import ModelConfig, ModelFolder
from tests.unit.test_camera_renderer import NOWHERE

FRAMES = np.zeros((8, 64, 64, 3), np.uint8)


def decoder(tiny: ModelFolder, most_frames: int) -> Decoder:
    """One whose memory suffices for so many frames at once."""
    made = Decoder(
        DecoderConfig(chunk_frames=4), ModelConfig(source=str(tiny.path)), tiny.digests(), NOWHERE
    )
    encode = made._vae.encode

    def scarce(images: torch.Tensor) -> Any:
        if len(images) > most_frames:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    made._vae.encode = scarce
    return made


def test_frames_encoded_fewer_at_once_are_told_of(tiny: ModelFolder) -> None:
    start = asyncio.run(decoder(tiny, 1).encode(Timed(FRAMES, 0.5)))
    ((kind, detail),) = [(event.kind, event.detail) for event in start.events]
    assert (kind, detail) == ("decode_chunk", "4 -> 1 frames at once")
    assert start.timings["rendering"] == 0.5
    plenty = asyncio.run(decoder(tiny, 4).encode(Timed(FRAMES, 0.5)))
    assert plenty.events == ()
    assert np.allclose(plenty.value.latents.data, start.value.latents.data, atol=1e-5)


def test_memory_for_not_even_one_frame_is_out(tiny: ModelFolder) -> None:
    with pytest.raises(OutOfMemory):
        asyncio.run(decoder(tiny, 0).encode(Timed(FRAMES, 0.5)))
