"""How long a person waits while batch work fills a replica, against first come, first served.

Goal: at 80 % batch load the interactive p95 is at least five times lower. That is measured on a
paced UNet, which sleeps as long as an A100 would compute, a twentieth of it: the disciplines then
run side by side without taking each other's cores. The tiny model's run has no goal.
"""

import asyncio
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.arrivals import Asked, Source, poisson
from benchmarks.disciplines import Discipline, Dispatched, FirstComeFirstServed
from benchmarks.interleave import in_turns
from benchmarks.machine import spread
from benchmarks.models import LATENT_SCALE, clip, published_architecture, tiny_model
from benchmarks.paced import paced_model
from benchmarks.playback import Served, play
from benchmarks.ticker import Ticker
from cluster.tiers import TierConfig
from diffusion.engine_config import EngineConfig
from diffusion.params import Priority, SamplingParams
from diffusion.weights import DenoisingModel

GOAL = 5.0  # first come, first served over ours, p95
FASTER = 20  # than an A100; every time in the configurations shrinks alike
A100_TFLOPS = 125  # assumed: 40 % of its fp16 peak
SHRINK = 8  # sides of the paced clips: 64 px stand for 512
SEEDS = (1, 2, 3)
PACED_S, TINY_S = 120.0, 20.0  # for so long requests arrive
SLOTS = 4
MAX_ROWS = 4  # two clips with guidance
TIER = TierConfig(name="replica", max_ongoing_requests=SLOTS, interactive_slots=1)
AGEING_S = 600.0  # DispatcherConfig's own

KINDS = BATCH, PREVIEW, STANDARD = "batch", "interactive preview", "interactive standard"
OURS, FIFO, ONE_BY_ONE = "dispatcher", "first come first served", "one at a time"
MIXED = "dispatcher, mixed calls"  # batch rows ride along in a person's
FULL, NEARLY = "80 % batch, 20 % interactive", "80 % batch, 10 % interactive"
LOADS = {FULL: 0.2, NEARLY: 0.1}  # share of the interactive requests

Run = dict[str, list[Served]]
"""One trace, by discipline."""


@dataclass(frozen=True, slots=True)
class Replica:
    model: DenoisingModel
    clips: dict[str, SamplingParams]  # by kind
    faster: float  # than the times in the configurations

    def config(self, mixed: bool = False) -> EngineConfig:
        usual = EngineConfig()
        return EngineConfig(
            max_rows=MAX_ROWS,
            mixed_calls=mixed,
            patience_s=usual.patience_s / self.faster,
            checkpoint_s=usual.checkpoint_s / self.faster,
        )

    def alone_s(self, rounds: int) -> dict[str, float]:
        """Seconds of each kind of clip without company, measured."""
        tickers = {kind: Ticker(self.model, self.config(), p, 1) for kind, p in self.clips.items()}
        return {
            kind: statistics.median(seconds) * self.clips[kind].num_inference_steps
            for kind, seconds in in_turns(tickers, rounds).items()
        }

    def trace(
        self, interactive: float, lasting_s: float, alone_s: dict[str, float], seed: int
    ) -> list[Asked]:
        """80 % of the replica's time asked for by batch work, and `interactive` by people, three
        quarters of whose clips are previews."""
        preview, standard = 3 * alone_s[PREVIEW], alone_s[STANDARD]
        previews = interactive * preview / (preview + standard)
        shares = {BATCH: 0.8, PREVIEW: previews, STANDARD: interactive - previews}
        sources = [
            Source(
                kind,
                Priority.BATCH if kind == BATCH else Priority.INTERACTIVE,
                self.clips[kind],
                share,
            )
            for kind, share in shares.items()
        ]
        return poisson(sources, alone_s, lasting_s, seed)


def measure() -> dict[str, Any]:
    with ProcessPoolExecutor(len(SEEDS), mp_context=get_context("spawn")) as pool:
        traces = list(pool.map(_paced, SEEDS))
    torch.set_num_threads(1)
    return {
        "goal": GOAL,
        "paced": {
            "unet": f"sleeps an A100's step at an assumed {A100_TFLOPS} TFLOP/s over {FASTER}",
            "traces": len(traces),
            "arrivals_s": PACED_S,
            "loads": {load: _paced_figures([trace[load] for trace in traces]) for load in LOADS},
        },
        "tiny model": {
            "traces": 2,
            "arrivals_s": TINY_S,
            "loads": {FULL: _compare(asyncio.run(_tiny()), TINY_S)},
        },
    }


def _paced(seed: int) -> dict[str, Run]:
    """One trace, all loads and disciplines side by side."""
    torch.set_num_threads(1)
    replica = _paced_replica()
    alone_s = replica.alone_s(rounds=30)

    async def play_all() -> list[list[Served]]:
        traces = {
            load: replica.trace(share, PACED_S, alone_s, seed) for load, share in LOADS.items()
        }
        return await asyncio.gather(*(_play(replica, name, traces[load]) for load, name in runs))

    runs = [(load, name) for load in LOADS for name in (OURS, MIXED, FIFO, ONE_BY_ONE)]
    found: dict[str, Run] = {load: {} for load in LOADS}
    for (load, name), served in zip(runs, asyncio.run(play_all()), strict=True):
        found[load][name] = served
    return found


def _paced_figures(runs: Sequence[Run]) -> dict[str, Any]:
    ratio = _over(_pool(runs), OURS)["p95"]
    return {"within_goal": ratio >= GOAL, **_compare(runs, PACED_S)}


async def _tiny() -> list[Run]:
    """One discipline after the other, and the other way round: here they do take each other's
    cores."""
    standard = clip(64, 64, 16, 12)
    clips = {BATCH: standard, PREVIEW: clip(64, 64, 8, 8), STANDARD: standard}
    replica = Replica(tiny_model(), clips, FASTER)
    alone_s = replica.alone_s(rounds=60)
    runs: list[Run] = []
    for seed, names in zip(SEEDS, ((OURS, FIFO), (FIFO, OURS)), strict=False):
        trace = replica.trace(LOADS[FULL], TINY_S, alone_s, seed)
        runs.append({name: await _play(replica, name, trace) for name in names})
    return runs


def _paced_replica() -> Replica:
    architecture = published_architecture()
    side = LATENT_SCALE * SHRINK  # px of a full-size clip per latent of a paced one

    def pace(sample: torch.Size) -> float:
        rows, _, frames, height, width = sample
        flops = rows * architecture.unet_flops(width * side, height * side, frames)
        return flops / (A100_TFLOPS * 1e12) / FASTER

    small = 512 // SHRINK
    standard = clip(small, small, 16, 50)
    clips = {BATCH: standard, PREVIEW: clip(small, small, 8, 30), STANDARD: standard}
    return Replica(paced_model(pace), clips, FASTER)


async def _play(replica: Replica, name: str, trace: Sequence[Asked]) -> list[Served]:
    disciplines: dict[str, Discipline] = {
        OURS: Dispatched(TIER, AGEING_S / replica.faster),
        MIXED: Dispatched(TIER, AGEING_S / replica.faster),
        FIFO: FirstComeFirstServed(SLOTS),
        ONE_BY_ONE: FirstComeFirstServed(1),
    }
    config = replica.config(mixed=name == MIXED)
    return await play(trace, disciplines[name], replica.model, config)


def _compare(runs: Sequence[Run], lasting_s: float) -> dict[str, Any]:
    """Latencies of all traces together; what they differ in between traces, as a spread.

    A batch clip that is late here gave its time to a person's, so what fairness itself costs is the
    time until everything is done.
    """
    over = {name: [_over(run, name) for run in runs] for name in runs[0] if name != FIFO}
    pooled = _pool(runs)
    return {
        "requests": {kind: len(_latencies(pooled[OURS], kind)) for kind in KINDS},
        "interactive latency of first come first served, over that of": {
            name: {
                percentile: {
                    "all_traces": round(value, 2),
                    "each": spread([one[percentile] for one in over[name]]),
                }
                for percentile, value in _over(pooled, name).items()
            }
            for name in over
        },
        "disciplines": {
            name: {
                "latency_s": {kind: _percentiles(_latencies(served, kind)) for kind in KINDS}
                | {"interactive": _percentiles(_interactive(served))},
                "batch_clips_done_while_requests_arrived": sum(
                    s.asked.kind == BATCH and s.ended_s <= lasting_s for s in served
                ),
                "all_done_s": spread([max(s.ended_s for s in run[name]) for run in runs]),
            }
            for name, served in pooled.items()
        },
    }


def _pool(runs: Sequence[Run]) -> Run:
    return {name: [served for run in runs for served in run[name]] for name in runs[0]}


def _over(run: Run, name: str) -> dict[str, float]:
    fifo, other = _interactive(run[FIFO]), _interactive(run[name])
    return {f"p{p}": _percentile(fifo, p) / _percentile(other, p) for p in (50, 95)}


def _latencies(served: Sequence[Served], kind: str) -> list[float]:
    return [s.latency_s for s in served if s.asked.kind == kind]


def _interactive(served: Sequence[Served]) -> list[float]:
    return [s.latency_s for s in served if s.asked.priority is Priority.INTERACTIVE]


def _percentiles(values: list[float]) -> dict[str, float] | None:
    """None where no such request came."""
    if not values:
        return None
    return {f"p{p}": round(_percentile(values, p), 3) for p in (50, 95)} | {
        "max": round(max(values), 3)
    }


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent))
