"""The model on a CUDA device: the same clip as on the CPU, within what fp16 can hold."""

import numpy as np
import pytest
import torch

from diffusion.checkpoint import Checkpoint
from diffusion.decode import decode_latents
from diffusion.device import open_device
from diffusion.engine import Engine, denoise
from diffusion.engine_config import EngineConfig
from diffusion.events import Degraded, Finished, Saved
from diffusion.image import encode_image
from diffusion.model_folder import ModelFolder
from diffusion.params import Sampler, SamplingParams
from diffusion.state import TextCondition
from diffusion.text import encode_prompt
from diffusion.weights import (
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)
from tests.unit.engine_rig import Models, params, results, run

pytestmark = pytest.mark.gpu


def clip(
    folder: ModelFolder, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, np.ndarray]:
    text = load_text_model(folder, device, dtype)
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    image = encode_image(load_image_model(folder, device, dtype), frame)
    model = load_denoising_model(folder, device, dtype, "tiny")
    prompts = TextCondition(encode_prompt(text, "a mug turns"), encode_prompt(text, "blurry"))
    sampling = SamplingParams("a mug turns", "blurry", 96, 64, 8, 10, 9.0, 16, 5)
    latents = denoise(model, sampling, prompts, image)
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


def test_one_row_count_makes_replays_equal_bit_for_bit(tiny: ModelFolder) -> None:
    """fp16, alone and in company, as long as calls are padded to the same rows."""
    device = open_device("cuda", 1, 1)
    config = EngineConfig(row_counts=(8,))
    models = Models(tiny, load_denoising_model(tiny, device, torch.float16, "tiny"))
    alone = models.alone(params(num_inference_steps=6), config)
    engine = Engine(models.unet, config)
    for seed in (2, 3):
        models.join(engine, f"other{seed}", params(seed=seed, num_inference_steps=seed))
    models.join(engine, "clip", params(num_inference_steps=6))
    assert torch.equal(results(run(engine))["clip"], alone)


def test_a_clip_moves_from_the_gpu_to_the_cpu(tiny: ModelFolder) -> None:
    gpu = Models(tiny, load_denoising_model(tiny, open_device("cuda", 1, 1), torch.float32, "tiny"))
    cpu = Models.load(tiny)
    engine = Engine(gpu.unet, EngineConfig())
    wanted = params(num_inference_steps=6, sampler=Sampler.DPMPP_2M)
    gpu.join(engine, "clip", wanted)
    for _ in range(3):
        engine.tick()
    (left,) = (e for e in engine.drain() if isinstance(e, Saved))
    there = Engine(cpu.unet, EngineConfig())
    cpu.join(there, "clip", wanted, checkpoint=Checkpoint.from_bytes(left.checkpoint.to_bytes()))
    alone = cpu.alone(wanted)
    assert (results(run(there))["clip"] - alone).abs().max() / alone.std() < 1e-2


def test_a_clip_tells_the_most_memory_that_its_steps_held(tiny: ModelFolder) -> None:
    """The weights are in it; a smaller clip afterwards does not inherit a larger one's peak."""
    device = open_device("cuda", 1, 1)
    models = Models(tiny, load_denoising_model(tiny, device, torch.float32, "tiny"))
    held = torch.cuda.memory_allocated(device)
    peaks = []
    for side in (256, 64):
        engine = Engine(models.unet, EngineConfig())
        models.join(engine, "clip", params(width=side, height=side, num_inference_steps=2))
        (done,) = (event for event in run(engine) if isinstance(event, Finished))
        assert done.peak_memory_bytes is not None
        peaks.append(done.peak_memory_bytes)
    assert peaks[0] > peaks[1] > held


def test_the_card_s_own_out_of_memory_goes_down_the_ladder(tiny: ModelFolder) -> None:
    """Room for one row but not for two: found by the real allocator under a real cap."""
    device = open_device("cuda", 1, 1)
    models = Models(tiny, load_denoising_model(tiny, device, torch.float32, "tiny"))
    large = params(width=512, height=512, num_frames=16, num_inference_steps=2)
    one_row = params(width=512, height=512, num_frames=16, num_inference_steps=2, guidance_scale=1)
    torch.cuda.reset_peak_memory_stats()
    models.alone(one_row)
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(1.35 * peak / whole)
    try:
        engine = Engine(models.unet, EngineConfig())
        models.join(engine, "clip", large)
        events = run(engine)
        assert "solo_rows" in [e.kind for e in events if isinstance(e, Degraded)]
        assert "clip" in results(events)
        engine.self_test()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
