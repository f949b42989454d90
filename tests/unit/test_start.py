"""Clips that begin at the frames of a camera move: how many steps, from which noise, exactly."""

import math
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from diffusion.checkpoint import Checkpoint
from diffusion.chunks import within_memory_by_chunks
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.errors import OutOfMemory, UnusableStrength
from diffusion.image import encode_image
from diffusion.model_folder import ModelFolder
from diffusion.params import Sampler, SamplingParams, TimestepSpacing
from diffusion.samplers import first_latents, make_scheduler
from diffusion.start import encode_start
from diffusion.trajectory import Trajectory
from diffusion.weights import load_image_model, load_vae
from tests.unit.engine_rig import CPU, Models, params, results, run, saved, steps

STOCK: dict[Sampler, Any] = {
    Sampler.DDIM: DDIMScheduler,
    Sampler.DPMPP_2M: DPMSolverMultistepScheduler,
    Sampler.UNIPC: UniPCMultistepScheduler,
}


@pytest.fixture(scope="module")
def models(tiny: ModelFolder) -> Models:
    return Models.load(tiny)


# Strength to steps.


@pytest.mark.parametrize(
    ("num_inference_steps", "strength", "run"),
    [
        (50, None, 50),
        (50, 1.0, 50),
        (50, 0.4, 20),
        (50, 0.6, 30),
        (50, 0.25, 12),  # 12.5: a step is run or not
        (30, 0.4, 12),
        (50, 0.58, 29),  # 28.999999999999996 in floating point
        (100, 0.29, 29),
        (50, 0.02, 1),
        (8, 0.999, 7),
        (1, 1.0, 1),
    ],
)
def test_strength_says_how_many_steps_are_run(
    num_inference_steps: int, strength: float | None, run: int
) -> None:
    wanted = params(num_inference_steps=num_inference_steps, motion_strength=strength)
    assert (wanted.unet_steps, wanted.first_step) == (run, num_inference_steps - run)
    assert wanted.starts_from_frames == (run < num_inference_steps)
    assert wanted.unet_rows == 2 * run


@given(st.integers(1, 200), st.integers(1, 100))
def test_the_steps_are_those_of_diffusers_but_for_its_rounding(n: int, percent: int) -> None:
    strength = percent / 100
    stock = SimpleNamespace(scheduler=make_scheduler({}, params(num_inference_steps=n)))
    _, theirs = StableDiffusionImg2ImgPipeline.get_timesteps(stock, n, strength, CPU)
    exact = Fraction(percent, 100) * n
    if exact < 1:
        with pytest.raises(UnusableStrength):
            params(num_inference_steps=n, motion_strength=strength)
        return
    ours = params(num_inference_steps=n, motion_strength=strength).unet_steps
    assert ours == math.floor(exact)
    assert theirs == ours or (exact.denominator == 1 and theirs == ours - 1)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), float("inf"), 0.01])
def test_a_strength_that_runs_no_step_or_more_than_all_is_refused(strength: float) -> None:
    with pytest.raises(UnusableStrength, match=r"of 50 steps 0\.02 runs one, and 1 all of them"):
        params(num_inference_steps=50, motion_strength=strength)


def test_guidance_acts_at_the_noise_it_acts_at_without_a_camera() -> None:
    whole = params(num_inference_steps=10, guidance_start=0.2, guidance_stop=0.7)
    tail = replace(whole, motion_strength=0.6)
    assert [tail.is_guided(step) for step in range(6)] == [
        whole.is_guided(step) for step in range(4, 10)
    ]
    assert tail.unet_rows == 3 * 2 + 3


# Frames to latents.


def test_the_first_frame_becomes_what_the_image_condition_has_of_it(tiny: ModelFolder) -> None:
    frames = np.random.default_rng(3).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    start = encode_start(load_vae(tiny, CPU, torch.float32), frames, chunk_frames=1)
    assert start.latents.data.shape == (1, 4, 3, 4, 6)
    model = load_image_model(tiny, CPU, torch.float32)
    for index, frame in enumerate(frames):
        alone = encode_image(model, frame).image_latents.data
        assert np.array_equal(start.latents.data[:, :, index : index + 1], alone)


@pytest.mark.parametrize("chunk_frames", [2, 3, 5, 8])
def test_how_many_frames_are_encoded_at_once_changes_nothing(
    tiny: ModelFolder, chunk_frames: int
) -> None:
    frames = np.random.default_rng(3).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    vae = load_vae(tiny, CPU, torch.float32)
    one, some = (encode_start(vae, frames, n).latents.data for n in (1, chunk_frames))
    assert np.abs(one - some).max() <= 1e-5


def test_frames_are_encoded_fewer_at_once_where_memory_is_short(tiny: ModelFolder) -> None:
    frames = np.random.default_rng(3).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    vae = load_vae(tiny, CPU, torch.float32)
    most = 1

    def refuse(_module: Any, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = vae.encoder.register_forward_pre_hook(refuse)
    start, taken = within_memory_by_chunks(lambda n: encode_start(vae, frames, n), 4)
    assert taken == 1
    most = 0
    with pytest.raises(OutOfMemory):
        within_memory_by_chunks(lambda n: encode_start(vae, frames, n), 4)
    handle.remove()
    assert np.array_equal(start.latents.data, encode_start(vae, frames, 1).latents.data)


# The noise.


@pytest.mark.parametrize("spacing", TimestepSpacing)
@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("strength", [0.1, 0.4, 0.9])
def test_the_noisy_start_is_the_one_of_the_samplers_own_add_noise(
    models: Models, sampler: Sampler, spacing: TimestepSpacing, strength: float
) -> None:
    wanted = params(
        num_inference_steps=20,
        sampler=sampler,
        timestep_spacing=spacing,
        motion_strength=strength,
    )
    noise = torch.randn((1, 4, 3, 4, 4), generator=torch.Generator().manual_seed(wanted.seed))
    start = models.start_of(wanted)
    assert start is not None
    clean = start.latents.to(CPU, torch.float32)

    changed = {"timestep_spacing": "trailing"} if spacing is TimestepSpacing.TRAILING else {}
    stock = STOCK[sampler].from_config(models.unet.scheduler.config, **changed)
    stock.set_timesteps(20)
    # diffusers' img2img, StableDiffusionImg2ImgPipeline.get_timesteps.
    begin = 20 - int(20 * strength)
    if hasattr(stock, "set_begin_index"):
        stock.set_begin_index(begin)
    timestep = stock.timesteps[begin]
    expected = stock.add_noise(clean, noise, timestep[None])

    text, image = models.conditions(wanted.prompt, 32, 32)
    trajectory = Trajectory.begin(models.unet, wanted, text, image, start)
    assert trajectory.timestep == timestep
    assert torch.equal(trajectory.latents, expected)

    # And that is the forward process at the level of noise that the UNet is told of, by a table
    # that was computed here: zero terminal SNR included.
    ideal = DDIMScheduler.from_config(models.unet.scheduler.config).alphas_cumprod[timestep]
    process = ideal**0.5 * clean + (1 - ideal) ** 0.5 * noise
    assert (trajectory.latents - process).abs().max() <= 1e-3


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", Sampler)
def test_a_perfect_model_brings_the_start_back(
    models: Models, sampler: Sampler, prediction_type: str
) -> None:
    """Noise and steps belong together: whoever predicts the truth ends at the clean start."""
    config = dict(models.unet.scheduler.config) | {"prediction_type": prediction_type}
    wanted = params(num_inference_steps=20, sampler=sampler, motion_strength=0.4, seed=3)
    scheduler = make_scheduler(config, wanted)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn((1, 4, 3, 4, 4), generator=generator) for _ in range(2))
    latents = first_latents(scheduler, wanted, noise, clean)
    alphas = DDIMScheduler.from_config(config).alphas_cumprod
    assert (latents - clean).abs().max() > 0.5
    for step in range(wanted.unet_steps):
        timestep = scheduler.timesteps[wanted.first_step + step]
        a, s = alphas[timestep] ** 0.5, (1 - alphas[timestep]) ** 0.5
        truth = {
            "epsilon": (latents - a * clean) / s,
            "v_prediction": (a * latents - clean) / s,
            "sample": clean,
        }[prediction_type]
        latents = scheduler.step(truth, timestep, latents).prev_sample
    # DDIM's last step ends at the noise of timestep 0 or before, by its spacing.
    assert (latents - clean).abs().max() <= 2e-2


# Through the engine.


@pytest.mark.parametrize("spacing", TimestepSpacing)
@pytest.mark.parametrize("sampler", Sampler)
def test_all_of_the_way_is_the_clip_without_a_camera_bit_for_bit(
    models: Models, sampler: Sampler, spacing: TimestepSpacing
) -> None:
    plain = params(num_inference_steps=5, sampler=sampler, timestep_spacing=spacing)
    alone = models.alone(plain)
    assert torch.equal(models.alone(replace(plain, motion_strength=1.0)), alone)
    assert not torch.allclose(models.alone(replace(plain, motion_strength=0.8)), alone)


@pytest.mark.parametrize("sampler", Sampler)
def test_it_makes_the_last_steps_and_counts_those(models: Models, sampler: Sampler) -> None:
    wanted = params(num_inference_steps=10, sampler=sampler, motion_strength=0.4)
    told: list[int] = []

    def note(_module: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        told.append(int(inputs["timestep"][0]))

    engine = Engine(models.unet, EngineConfig(checkpoint_steps=2))
    models.join(engine, "clip", wanted)
    handle = models.unet.unet.register_forward_pre_hook(note, with_kwargs=True)
    events = run(engine)
    handle.remove()
    whole = make_scheduler(models.unet.scheduler.config, replace(wanted, motion_strength=None))
    assert told == whole.timesteps[6:].tolist()
    assert steps(events, "clip") == [1, 2, 3, 4]
    assert [e.checkpoint.step for e in saved(events, "clip")] == [2, 4]
    last = saved(events, "clip")[-1].checkpoint
    assert np.array_equal(last.result().latents.data, results(events)["clip"].numpy())


@pytest.mark.parametrize("moved_after", [0, 1, 3, 5])
@pytest.mark.parametrize("sampler", Sampler)
def test_resumed_anywhere_it_is_the_uninterrupted_clip(
    models: Models, sampler: Sampler, moved_after: int
) -> None:
    wanted = params(num_inference_steps=10, sampler=sampler, motion_strength=0.6)
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", wanted)
    for _ in range(moved_after):
        engine.tick()
    (left,) = saved(list(engine.drain()), "clip")
    fresh = Engine(models.unet, EngineConfig())
    models.join(fresh, "clip", wanted, checkpoint=Checkpoint.from_bytes(left.checkpoint.to_bytes()))
    events = run(fresh)
    assert steps(events, "clip") == list(range(moved_after + 1, 7))
    assert torch.equal(results(events)["clip"], models.alone(wanted))


def test_a_checkpoint_of_another_strength_is_of_another_request(models: Models) -> None:
    wanted = params(num_inference_steps=10, motion_strength=0.6)
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", wanted)
    (left,) = saved(list(engine.drain()), "clip")
    fresh = Engine(models.unet, EngineConfig())
    other = replace(wanted, motion_strength=0.5)
    text, image = models.conditions(other.prompt, 32, 32)
    (refused,) = fresh.join(
        "clip", other, text, image, models.start_of(other), checkpoint=left.checkpoint
    )
    assert "another request" in getattr(refused, "detail", "")


def company(**changes: Any) -> list[SamplingParams]:
    """Every sampler with a camera and without, in calls of one shape."""
    return [
        params(num_inference_steps=6, sampler=sampler, motion_strength=strength, **changes)
        for sampler in Sampler
        for strength in (None, 0.5)
    ]


def test_beside_each_other_and_beside_plain_clips_each_is_its_solo_run(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig(max_rows=64))
    for number, wanted in enumerate(company()):
        models.join(engine, str(number), wanted)
    counts: list[int] = []
    handle = models.unet.unet.register_forward_pre_hook(
        lambda _m, _a, inputs: counts.append(len(inputs["sample"])), with_kwargs=True
    )
    found = results(run(engine))
    handle.remove()
    assert counts == [12, 12, 12, 6, 6, 6]  # one call each, until the shorter ones have left
    for number, wanted in enumerate(company()):
        assert (found[str(number)] - models.alone(wanted)).abs().max() <= 5e-5


@pytest.mark.parametrize("strength", [None, 1.0, 0.5])
def test_frames_are_given_where_they_are_needed_and_nowhere_else(
    models: Models, strength: float | None
) -> None:
    wanted = params(num_inference_steps=4, motion_strength=strength)
    text, image = models.conditions(wanted.prompt, 32, 32)
    wrong = None if wanted.starts_from_frames else models.start(3, 32, 32)
    with pytest.raises(ValueError, match="to begin with"):
        Trajectory.begin(models.unet, wanted, text, image, wrong)


def test_frames_of_another_clip_are_refused(models: Models) -> None:
    wanted = params(num_inference_steps=4, motion_strength=0.5)
    text, image = models.conditions(wanted.prompt, 32, 32)
    with pytest.raises(ValueError, match="to begin a clip of"):
        Trajectory.begin(models.unet, wanted, text, image, models.start(2, 32, 32))
