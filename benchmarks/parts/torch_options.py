"""What each of the engine's torch options changes, alone: time, peak memory, latents."""

import shutil
from typing import Any

import torch

from benchmarks.card import Cpu, Cuda
from benchmarks.models import MIDDLE, PUBLISHED, clip, random_model
from benchmarks.torch_variants import COMPILED, QUICK, compare


def measure() -> dict[str, Any]:
    """On the CPU a UNet of 9.9 M parameters; on a card the published one besides, in fp16."""
    torch.set_num_threads(2)
    cpu = Cpu()
    figures: dict[str, Any] = {
        "9.9 M parameters, 128x128, 16 frames, float32, 2 threads": compare(
            cpu,
            random_model(MIDDLE, cpu.device, cpu.dtype),
            clip(128, 128, 16, 50),
            {**QUICK, **_compiled()},
            rounds=9,
        ),
        "compiler": _compiler() or "none here: torch.compile was not tried on the CPU",
    }
    if torch.cuda.is_available():
        card = Cuda()
        figures["published UNet, 512x512, 16 frames, float16"] = compare(
            card,
            random_model(PUBLISHED, card.device, card.dtype),
            clip(512, 512, 16, 50),
            {**QUICK, **COMPILED},
            rounds=9,
        )
    return figures


def _compiled() -> dict[str, Any]:
    return dict(COMPILED) if _compiler() else {}


def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")
