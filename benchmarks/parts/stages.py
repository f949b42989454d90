"""Seconds per stage of the composed functions, in one process, at two sizes."""

from typing import Any

from benchmarks.clip import BareClip, sampling
from benchmarks.machine import spread

REPEATS = 3


def measure() -> dict[str, Any]:
    clip = BareClip()
    clip.run(sampling(num_inference_steps=2))
    figures: dict[str, Any] = {}
    for name, params in {
        "preview 96x96, 8 frames, 30 steps": sampling(
            width=96, height=96, num_frames=8, num_inference_steps=30
        ),
        "standard 128x128, 16 frames, 50 steps": sampling(),
    }.items():
        runs = [clip.run(params) for _ in range(REPEATS)]
        stages = {stage: spread([run[stage] for run in runs]) for stage in runs[0]}
        in_all = sum(figure["median"] for figure in stages.values())
        figures[name] = {
            "seconds": stages,
            "share_of_denoising": round(stages["denoising"]["median"] / in_all, 3),
        }
    return {"repeats": REPEATS, "threads": clip.threads, **figures}
