"""Each of the engine's torch options alone, against none of them."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.card import Card
from benchmarks.interleave import in_turns, paired_ratio
from benchmarks.ticker import Ticker
from diffusion.engine_config import EngineConfig, TorchOptions
from diffusion.errors import DiffusionError
from diffusion.params import SamplingParams
from diffusion.weights import DenoisingModel

NONE = "none"
ROWS = 2  # of one request with guidance


@dataclass(frozen=True, slots=True)
class Variant:
    options: TorchOptions = TorchOptions()
    dtype: torch.dtype | None = None  # another one than the card's

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(torch=self.options, row_counts=(ROWS,) if self.options.compile else ())

    def model(self, plain: DenoisingModel) -> DenoisingModel:
        """Its own copy of the weights only where the option changes them."""
        if not (self.options.channels_last or self.dtype):
            return plain
        unet = copy.deepcopy(plain.unet)
        return replace(plain, unet=torch.nn.Module.to(unet, self.dtype) if self.dtype else unet)


QUICK: Mapping[str, Variant] = {
    "channels_last": Variant(TorchOptions(channels_last=True)),
    "sdpa flash": Variant(TorchOptions(sdpa_backend="flash")),
    "sdpa efficient": Variant(TorchOptions(sdpa_backend="efficient")),
    "sdpa cudnn": Variant(TorchOptions(sdpa_backend="cudnn")),
    "sdpa math": Variant(TorchOptions(sdpa_backend="math")),
    "chunk_feed_forward": Variant(TorchOptions(chunk_feed_forward=True)),
    "bfloat16": Variant(dtype=torch.bfloat16),
}
COMPILED: Mapping[str, Variant] = {"compile": Variant(TorchOptions(compile=True))}


def compare(
    card: Card,
    model: DenoisingModel,
    params: SamplingParams,
    variants: Mapping[str, Variant],
    rounds: int,
) -> dict[str, Any]:
    """Ticks of one request under each variant in turns; an option that this device or torch does
    not have is reported with its error.

    `difference` is between the latents after all ticks and those without options, the largest over
    the standard deviation.
    """
    tickers: dict[str, Ticker] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, variant in {NONE: Variant(), **variants}.items():
        try:
            ticker = Ticker(variant.model(model), variant.config, params, 1)
            figures[name] = {"first_tick_s": round(_seconds(ticker, card), 3)}
        except (RuntimeError, DiffusionError) as error:
            figures[name] = {"failed": _first_line(error)}
        else:
            tickers[name] = ticker
    if NONE not in tickers:
        return figures
    for name, ticker in tickers.items():
        figures[name]["peak_mb"] = round(card.peak_bytes(ticker) / 1e6, 1)
    seconds = in_turns(tickers, rounds, card.settle)
    latents = {name: ticker.end() for name, ticker in tickers.items()}
    for name, latent in latents.items():
        figures[name] |= {
            "tick_ms": round(statistics.median(seconds[name]) * 1e3, 2),
            "over_none": round(paired_ratio(seconds[name], seconds[NONE]), 3),
            "fastest_over_fastest": round(min(seconds[name]) / min(seconds[NONE]), 3),
            "peak_over_none": round(figures[name]["peak_mb"] / figures[NONE]["peak_mb"], 3),
            "difference": float(f"{(latent - latents[NONE]).abs().max() / latent.std():.1e}"),
            "degraded": tickers[name].degraded,
        }
    return figures


def _seconds(work: Callable[[], object], card: Card) -> float:
    begun = time.perf_counter()
    work()
    card.settle()
    return time.perf_counter() - begun


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
