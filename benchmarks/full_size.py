"""What a clip takes of a card: time with company and without, memory, and beside diffusers."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from benchmarks.card import CappedCard
from benchmarks.interleave import in_turns
from benchmarks.models import (
    UNetConfig,
    architecture_of,
    random_model,
    random_vae,
)
from benchmarks.stock import DECODED_AT_ONCE, Made, Maker, Ours, Stock
from benchmarks.tick_overhead import REQUESTS, ROWS
from benchmarks.ticker import Ticker
from diffusion.decode import decode_latents
from diffusion.engine_config import EngineConfig, TorchOptions
from diffusion.errors import OutOfMemory
from diffusion.memory import Architecture
from diffusion.params import SamplingParams
from diffusion.state import Latents, WireTensor
from diffusion.unet_call import ATTENTION_BATCH
from diffusion.weights import DenoisingModel

HOUR_S = 3600.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A card with a UNet and a VAE on it."""

    card: CappedCard
    model: DenoisingModel
    vae: Any

    @classmethod
    def build(cls, card: CappedCard, unet: UNetConfig, vae: dict[str, Any]) -> "Bench":
        place = (card.device, card.dtype)
        return cls(card, random_model(unet, *place), random_vae(vae, *place))

    @cached_property
    def architecture(self) -> Architecture:
        return architecture_of(self.model.unet, self.vae)

    def row_flops(self, params: SamplingParams) -> float:
        return self.architecture.unet_flops(params.width, params.height, params.num_frames)

    def predicted_bytes(self, params: SamplingParams, rows: int, chunked: bool) -> int:
        """Of the largest UNet call that `rows` of such a clip make."""
        area = params.width * params.height // self.architecture.latent_scale**2
        at_once = min(rows, max(1, ATTENTION_BATCH // area))
        return self.architecture.unet_bytes(
            params.width,
            params.height,
            params.num_frames,
            at_once,
            self.card.dtype.itemsize,
            chunked,
        )


def in_flight(bench: Bench, params: SamplingParams, ticks: int) -> Figures:
    """1, 2 and 4 clips in one engine: every tick is a step of each of them."""
    decode_s = _decode_s(bench, params)
    clips: Figures = {}
    for requests in REQUESTS:
        try:
            clips[str(requests)] = _company(bench, params, ticks, requests, decode_s)
        except OutOfMemory as error:
            clips[str(requests)] = {"out_of_memory": str(error)}
    return {
        "decode_s": round(decode_s, 3),
        "clips": clips,
        "memory, chunked feed forward": _memory(bench, params, ROWS, chunked=True),
        "memory, one row": _memory(bench, replace(params, guidance_scale=1.0), 1, chunked=False),
    }


def side_by_side(bench: Bench, params: SamplingParams, steps: int, repeats: int) -> Figures:
    """Whole clips by diffusers' pipeline and by the engine, in turns. With fewer `steps` than the
    clip has, denoising is scaled up to them."""
    makers: dict[str, Maker] = {
        "stock": Stock(bench.card, bench.model, bench.vae),
        "ours": Ours(bench.card, bench.model, bench.vae),
    }
    short = replace(params, num_inference_steps=steps)
    made: dict[str, list[tuple[Made, int]]] = {name: [] for name in makers}
    figures: Figures = {"steps_run": steps, "repeats": repeats}
    for number in range(repeats):
        for name in list(makers)[:: -1 if number % 2 else 1]:
            try:
                made[name].append(_make(bench.card, makers[name], short))
            except OutOfMemory as error:
                figures[name] = {"out_of_memory": str(error)}
    scale = params.num_inference_steps / steps
    figures |= {name: _clip_figures(clips, scale) for name, clips in made.items() if clips}
    if all(made.values()):
        ratio = figures["stock"]["clip_s"] / figures["ours"]["clip_s"]
        figures["stock_over_ours"] = round(ratio, 3)
    return figures


def _make(card: CappedCard, maker: Maker, params: SamplingParams) -> tuple[Made, int]:
    """A clip, and the bytes that it took at its peak."""
    made: list[Made] = []
    peak = card.peak_bytes(lambda: made.append(maker.make(params)))
    return made[0], peak


def _clip_figures(clips: Sequence[tuple[Made, int]], scale: float) -> Figures:
    denoising_s = statistics.median(made.denoising_s for made, _ in clips) * scale
    decoding_s = statistics.median(made.decoding_s for made, _ in clips)
    return {
        "denoising_s": round(denoising_s, 3),
        "decoding_s": round(decoding_s, 3),
        "clip_s": round(denoising_s + decoding_s, 3),
        "videos_per_gpu_hour": round(HOUR_S / (denoising_s + decoding_s), 1),
        "peak_mb_over_weights": round(max(peak for _, peak in clips) / 1e6),
    }


def _company(
    bench: Bench, params: SamplingParams, ticks: int, requests: int, decode_s: float
) -> Figures:
    ticker = Ticker(bench.model, EngineConfig(), params, requests)
    rows = ROWS * requests
    peak = bench.card.peak_bytes(ticker)
    seconds = in_turns({"tick": ticker}, ticks, bench.card.settle)["tick"]
    tick_s, steps = statistics.median(seconds), params.num_inference_steps
    return {
        "tick_s": round(tick_s, 4),
        "clip_s": round(tick_s * steps + decode_s, 3),
        "videos_per_gpu_hour": round(requests * HOUR_S / (tick_s * steps + requests * decode_s), 1),
        "tflops": round(rows * bench.row_flops(params) / tick_s / 1e12, 2),
        "memory": _peaks(bench.predicted_bytes(params, rows, chunked=False), peak),
        "degraded": ticker.degraded,
    }


def _memory(bench: Bench, params: SamplingParams, rows: int, chunked: bool) -> Figures:
    config = EngineConfig(torch=TorchOptions(chunk_feed_forward=chunked))
    try:
        peak = bench.card.peak_bytes(Ticker(bench.model, config, params, 1))
    except OutOfMemory as error:
        return {"out_of_memory": str(error)}
    return _peaks(bench.predicted_bytes(params, rows, chunked), peak)


def _peaks(predicted: int, measured: int) -> Figures:
    """Tensors alive at once, weights apart: what ALLOCATOR_SLACK is for comes on top."""
    return {
        "predicted_mb": round(predicted / 1e6, 1),
        "measured_mb": round(measured / 1e6, 1),
        "measured_over_predicted": round(measured / predicted, 3),
    }


def _decode_s(bench: Bench, params: SamplingParams) -> float:
    """After one decoding that does not count."""
    scale = bench.architecture.latent_scale
    shape = (1, 4, params.num_frames, params.height // scale, params.width // scale)
    latents = Latents(WireTensor.of(torch.randn(shape)))
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        decode_latents(bench.vae, latents, DECODED_AT_ONCE)  # ends on the CPU
        seconds.append(time.perf_counter() - begun)
    return seconds[-1]
