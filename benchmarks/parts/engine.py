"""What the step engine costs beside the UNet: per tick, per checkpoint, per row of padding.

Goal: a tick takes at most 2 % more than the bare UNet call over the same rows, at realistic sizes,
which is where a call takes as long as on a GPU.
"""

import statistics
from typing import Any

import torch

from benchmarks.interleave import in_turns
from benchmarks.models import (
    CPU,
    MIDDLE,
    clip,
    conditions,
    published_architecture,
    random_model,
    tiny_model,
)
from benchmarks.paced import instant_model
from benchmarks.tick_overhead import GOAL, ROWS, against_bare_calls, own_seconds
from diffusion.checkpoint import Checkpoint
from diffusion.params import Sampler, SamplingParams
from diffusion.trajectory import Trajectory

A100_TFLOPS = 125  # assumed: 40 % of its fp16 peak
PUBLISHED_SIZES = {
    "512x512, 16 frames": clip(512, 512, 16, 50),
    "768x768, 24 frames": clip(768, 768, 24, 80),
}


def measure() -> dict[str, Any]:
    torch.set_num_threads(2)  # as cluster/local.yaml
    tiny, standard = tiny_model(), clip(128, 128, 16, 50)
    middle = random_model(MIDDLE, CPU, torch.float32)
    return {
        "goal": GOAL,
        "tiny model, 128x128, 16 frames": against_bare_calls(tiny, standard, rounds=40),
        "9.9 M parameters, 128x128, 16 frames": against_bare_calls(middle, standard, rounds=11),
        "published sizes, without a UNet": {
            name: _beside_an_a100(params) for name, params in PUBLISHED_SIZES.items()
        },
        "checkpoints": {
            name: {str(sampler): _checkpoint(params, sampler) for sampler in Sampler}
            for name, params in PUBLISHED_SIZES.items()
        },
    }


def _beside_an_a100(params: SamplingParams) -> dict[str, Any]:
    """The engine's own time, on this CPU, against a step at an A100's assumed rate.

    On a GPU the same few operations run in microseconds, but one after the other.
    """
    flops = published_architecture().unet_flops(params.width, params.height, params.num_frames)
    row_s = flops / (A100_TFLOPS * 1e12)
    own = own_seconds(instant_model(), params, rounds=30)
    return {
        "assumed_tflops": A100_TFLOPS,
        "requests": {
            str(n): {
                "step_ms": round(n * ROWS * row_s * 1e3, 1),
                "own_ms": round(seconds * 1e3, 2),
                "own_over_step": round(seconds / (n * ROWS * row_s), 4),
            }
            for n, seconds in own.items()
        },
        "within_goal": max(s / (n * ROWS * row_s) for n, s in own.items()) <= GOAL,
    }


def _checkpoint(params: SamplingParams, sampler: Sampler) -> dict[str, Any]:
    """`taken` is on the engine's thread, every tenth step or twenty seconds; the bytes are made
    and read elsewhere."""
    trajectory = _under_way(params, sampler)
    checkpoint = trajectory.checkpoint()
    data = checkpoint.to_bytes()
    seconds = in_turns(
        {
            "taken": trajectory.checkpoint,
            "to_bytes": checkpoint.to_bytes,
            "from_bytes": lambda: Checkpoint.from_bytes(data),
        },
        rounds=30,
    )
    return {
        "megabytes": round(len(data) / 1e6, 2),
        **{f"{name}_ms": round(statistics.median(s) * 1e3, 2) for name, s in seconds.items()},
    }


@torch.inference_mode()
def _under_way(params: SamplingParams, sampler: Sampler) -> Trajectory:
    """After three steps, when the multistep solvers remember as much as they ever will."""
    model = instant_model()
    begun = clip(
        params.width, params.height, params.num_frames, params.num_inference_steps, sampler=sampler
    )
    trajectory = Trajectory.begin(model, begun, *conditions(model, begun))
    for _ in range(3):
        trajectory.move(trajectory.latents.repeat(ROWS, 1, 1, 1, 1))
    return trajectory
