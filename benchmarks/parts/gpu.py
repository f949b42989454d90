"""The published model's sizes on a CUDA card, with random weights: stock pipeline and engine side
by side, memory predicted and measured, a real out-of-memory, torch options.

Needs torch and diffusers, but no Ray. Every section is kept as soon as it is done; one that would
not end in time is left out, and says so.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.card import CappedCard, Cuda
from benchmarks.full_size import Bench, Figures, in_flight, side_by_side
from benchmarks.machine import RESULTS
from benchmarks.models import PUBLISHED, PUBLISHED_VAE, UNetConfig, clip
from benchmarks.out_of_memory import step_down
from benchmarks.tick_overhead import PADDED_ROWS, REQUESTS, ROWS, against_bare_calls
from benchmarks.torch_variants import COMPILED, QUICK, Variant, compare
from diffusion.errors import OutOfMemory
from diffusion.params import SamplingParams

BUDGET_S = 540.0  # a lent machine runs a command for ten minutes
COMPILE_S = 180.0  # what compiling the published UNet may take
ROUNDS = 5


@dataclass(frozen=True)
class Scale:
    """What is measured; the tests' is tiny."""

    unet: UNetConfig
    vae: dict[str, Any]
    sizes: dict[str, SamplingParams]  # the smallest first
    usual: str  # the size that options are compared at
    short_steps: int  # of a clip that would take too long with all of them


FULL = Scale(
    unet=PUBLISHED,
    vae=PUBLISHED_VAE,
    sizes={
        "512x512, 8 frames, 30 steps": clip(512, 512, 8, 30),
        "512x512, 16 frames, 50 steps": clip(512, 512, 16, 50),
        "768x768, 24 frames, 80 steps": clip(768, 768, 24, 80),
    },
    usual="512x512, 16 frames, 50 steps",
    short_steps=10,
)


def measure(budget_s: float = BUDGET_S) -> None:
    """Keeps its own figures: a file per kind of card."""
    console = Console(stderr=True)
    if not torch.cuda.is_available():
        console.print("No CUDA GPU is at hand: nothing was measured.")
        return
    card = Cuda()
    Session(card, FULL, path_for(card), console, budget_s).run()


def path_for(card: CappedCard) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", card.describe()["gpu"].lower()).strip("-")
    return RESULTS / f"gpu-{slug}.json"


@dataclass
class Session:
    """One measurement against the clock."""

    card: CappedCard
    scale: Scale
    path: Path
    console: Console
    budget_s: float = BUDGET_S
    figures: Figures = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic)
    _flops_per_s: float = float("inf")  # until one is seen

    def run(self) -> None:
        self._say(f"building the model on {self.card.describe()['gpu']}")
        self._bench = Bench.build(self.card, self.scale.unet, self.scale.vae)
        usual, large = self.scale.usual, list(self.scale.sizes)[-1]
        requests = sum(REQUESTS)
        for size in self.scale.sizes:
            self._section("in_flight", size, ROWS * requests * (ROUNDS + 2) + 8, self._in_flight)
        for size in self.scale.sizes:
            self._section("side_by_side", size, 2 * ROWS * self.scale.short_steps, self._clips)
        rows = (2 * ROWS * requests + PADDED_ROWS) * (ROUNDS + 1)
        self._section("engine_over_unet", usual, rows, self._overhead)
        self._section("out_of_memory", large, 30, self._out_of_memory)
        rows = 2 * ROWS * (len(QUICK) + 1) * (ROUNDS + 3)  # twice: the math backend is slow
        self._section("torch_options", usual, rows, partial(self._options, QUICK))
        self._section("torch_compile", usual, rows, partial(self._options, COMPILED), COMPILE_S)
        self._say(f"kept in {self.path}")

    def _in_flight(self, params: SamplingParams) -> Figures:
        figures = in_flight(self._bench, params, ROUNDS)
        if tick_s := figures["clips"]["1"].get("tick_s"):
            self._flops_per_s = ROWS * self._bench.row_flops(params) / tick_s
        return figures

    def _clips(self, params: SamplingParams) -> Figures:
        """Whole clips where they take at most half of the time left, and twice if little of it."""
        both_s = self._takes_s(params, 2 * ROWS * params.num_inference_steps)
        steps = min(params.num_inference_steps, self.scale.short_steps)
        if both_s < self._left_s / 2:
            steps = params.num_inference_steps
        repeats = 2 if both_s < self._left_s / 10 else 1
        return side_by_side(self._bench, params, steps, repeats)

    def _overhead(self, params: SamplingParams) -> Figures:
        return against_bare_calls(self._bench.model, params, ROUNDS, self.card.settle)

    def _out_of_memory(self, params: SamplingParams) -> Figures:
        small = next(iter(self.scale.sizes.values()))
        return step_down(self.card, self._bench.model, self._bench.architecture, params, small)

    def _options(self, variants: Mapping[str, Variant], params: SamplingParams) -> Figures:
        return compare(self.card, self._bench.model, params, variants, ROUNDS)

    def _section(
        self,
        section: str,
        size: str,
        rows: int,
        work: Callable[[SamplingParams], Figures],
        besides_s: float = 0.0,
    ) -> None:
        """Do `work`, which takes about so many rows of UNet calls, unless time is too short."""
        params, left_s = self.scale.sizes[size], self._left_s
        takes_s = self._takes_s(params, rows) + besides_s
        self._say(f"{section}, {size}: about {takes_s:.0f} s, {left_s:.0f} s left")
        if takes_s > left_s:
            figures: Figures = {"left_out": f"about {takes_s:.0f} s, {left_s:.0f} s were left"}
        else:
            try:
                figures = work(params)
            except OutOfMemory as error:
                figures = {"out_of_memory": str(error)}
            except Exception as error:  # the other sections must not lose their time on the card
                self.console.print_exception()
                figures = {"failed": repr(error)}
        self.figures.setdefault(section, {})[size] = figures
        content = {"machine": self.card.describe(), "figures": self.figures}
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(content, indent=1) + "\n")

    def _takes_s(self, params: SamplingParams, rows: int) -> float:
        return rows * self._bench.row_flops(params) / self._flops_per_s

    @property
    def _left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self._begun)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False)
