"""diffusers' schedulers as values: one per request, and what a checkpoint must keep of it."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from diffusion.params import Sampler, SamplingParams, TimestepSpacing

_CLASSES: dict[Sampler, Any] = {
    Sampler.DDIM: DDIMScheduler,
    Sampler.DPMPP_2M: DPMSolverMultistepScheduler,
    Sampler.UNIPC: UniPCMultistepScheduler,
}

State = Mapping[str, Any]
"""Attributes of a scheduler by name: JSON scalars, tensors on the CPU, and lists of both."""


def make_scheduler(config: Mapping[str, Any], params: SamplingParams) -> Any:
    """A scheduler of its own for one request, from the checkpoint's scheduler_config.json.

    Its timesteps stay on the CPU: schedulers index tables with them.
    """
    changed: dict[str, Any] = {}
    if params.timestep_spacing is TimestepSpacing.TRAILING:
        changed["timestep_spacing"] = "trailing"
    scheduler = _CLASSES[params.sampler].from_config(config, **changed)
    steps = params.num_inference_steps
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps:
        # Rounding gives "trailing" one timestep too many for some counts (61, 103, 121, ...): the
        # last one goes, and the solvers' sigmas end at zero all the same.
        scheduler.timesteps = scheduler.timesteps[:steps]
        scheduler.num_inference_steps = steps
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
    return scheduler


def first_latents(
    scheduler: Any, params: SamplingParams, noise: torch.Tensor, start: torch.Tensor | None
) -> torch.Tensor:
    """What the first step that is run gets: noise, or `start` with as much of it as the schedule
    has there by the sampler's own forward process (q(x_t | x_0), zero terminal SNR included).

    `noise` and `start` [1, 4, F, h, w] float32 on the CPU, as the scheduler's tables are. Raises
    ValueError unless `start` is given exactly where `params` begin with frames, in that shape.
    """
    if (start is not None) != params.starts_from_frames:
        given = "no frames" if start is None else "frames"
        raise ValueError(f"{given} to begin with, for motion_strength {params.motion_strength}")
    if start is None:
        scaled: torch.Tensor = noise * scheduler.init_noise_sigma
        return scaled
    if start.shape != noise.shape:
        raise ValueError(f"latents of {tuple(start.shape)} to begin a clip of {tuple(noise.shape)}")
    # No timestep occurs twice, so the solvers find their place by it, here and at the first step.
    timestep = scheduler.timesteps[params.first_step : params.first_step + 1]
    noisy: torch.Tensor = scheduler.add_noise(start, noise, timestep)
    return noisy


def state_of(scheduler: Any, fresh: Any) -> State:
    """What `scheduler` has come to hold since it was as `fresh`, the like of it before step 0.

    The multistep solvers keep predictions of earlier steps and counters; DDIM keeps nothing.
    """
    untouched = vars(fresh)
    return {
        name: _on_cpu(value)
        for name, value in vars(scheduler).items()
        if name not in untouched or not _same(value, untouched[name])
    }


def restore(scheduler: Any, state: State, device: torch.device) -> None:
    """Give a fresh scheduler the state that another one of its kind had."""
    for name, value in state.items():
        setattr(scheduler, name, _on_device(value, device))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, list):
        return [_on_cpu(part) for part in value]
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_on_device(part, device) for part in value]
    # Scalars (timesteps that UniPC remembers) index CPU tables.
    return value.to(device) if isinstance(value, torch.Tensor) and value.ndim else value
