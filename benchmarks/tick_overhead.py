"""What the engine adds to its UNet call, per tick."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.interleave import in_turns, paired_ratio
from benchmarks.models import unet_inputs
from benchmarks.paced import instant_model
from benchmarks.ticker import Ticker
from diffusion.engine_config import EngineConfig
from diffusion.params import SamplingParams
from diffusion.weights import DenoisingModel

GOAL = 0.02  # at most, over the bare call
REQUESTS = (1, 2, 4)
ROWS = 2  # of a request with guidance
PADDED_ROWS = 8


def against_bare_calls(
    model: DenoisingModel,
    params: SamplingParams,
    rounds: int,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Ticks with 1, 2 and 4 requests, and padded, in turns with the UNet alone over as many rows.

    `own_ms` is the same tick with a UNet that returns at once: on a noisy machine it says more than
    the ratio of two long calls.
    """
    works: dict[str, Callable[[], object]] = {}
    for requests in REQUESTS:
        works[f"tick {requests}"] = Ticker(model, EngineConfig(), params, requests)
        works[f"bare {requests}"] = _bare(model, params, requests * ROWS)
    padded = EngineConfig(row_counts=(PADDED_ROWS,))
    works["padded"] = Ticker(model, padded, params, 1)
    seconds = in_turns(works, rounds, settle)
    own = own_seconds(model, params, 100, settle)
    bare = {n: statistics.median(seconds[f"bare {n}"]) for n in REQUESTS}
    return {
        "rounds": rounds,
        "requests": {
            str(n): {
                "bare_ms": round(bare[n] * 1e3, 2),
                "tick_ms": round(statistics.median(seconds[f"tick {n}"]) * 1e3, 2),
                "tick_over_bare": round(
                    paired_ratio(seconds[f"tick {n}"], seconds[f"bare {n}"]), 4
                ),
                "fastest_over_fastest": round(
                    min(seconds[f"tick {n}"]) / min(seconds[f"bare {n}"]), 4
                ),
                "own_ms": round(own[n] * 1e3, 3),
                "own_over_bare": round(own[n] / bare[n], 4),
                "clips_per_second_over_one_alone": round(
                    n * paired_ratio(seconds["tick 1"], seconds[f"tick {n}"]), 3
                ),
            }
            for n in REQUESTS
        },
        "one request padded from 2 to 8 rows, over its tick": round(
            paired_ratio(seconds["padded"], seconds["tick 1"]), 2
        ),
        "within_goal": max(own[n] / bare[n] for n in REQUESTS) <= GOAL,
    }


def own_seconds(
    model: DenoisingModel,
    params: SamplingParams,
    rounds: int,
    settle: Callable[[], object] = lambda: None,
) -> dict[int, float]:
    """Median of a tick whose UNet returns at once, by requests, on the device of `model`."""
    instant = instant_model(model.device, model.dtype)
    tickers = {str(n): Ticker(instant, EngineConfig(), params, n) for n in REQUESTS}
    return {int(n): statistics.median(s) for n, s in in_turns(tickers, rounds, settle).items()}


def _bare(model: DenoisingModel, params: SamplingParams, rows: int) -> Callable[[], object]:
    inputs = unet_inputs(model, params, rows)

    @torch.inference_mode()
    def call() -> object:
        return model.unet(**inputs, return_dict=False)

    return call
