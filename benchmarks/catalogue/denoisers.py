"""The application with denoisers that note every UNet call; paced ones besides compute nothing."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from ray.serve import Application

import serve.app
from benchmarks.catalogue.call_log import Call
from benchmarks.models import LATENT_SCALE, published_architecture
from benchmarks.paced import paced_model
from cluster.tiers import TierConfig
from deployments.denoiser import Denoiser
from diffusion import weights
from diffusion.weights import DenoisingModel

A100_TFLOPS = 125  # assumed: 40 % of its fp16 peak
SHRINK = 8  # sides of the paced clips: 64 px stand for 512


class TimedDenoiser(Denoiser):
    async def __init__(self, tier: TierConfig, *rest: Any):  # type: ignore[misc]
        self._calls: list[Call] = []
        load = weights.load_denoising_model

        def timed(*args: Any) -> DenoisingModel:
            model = self._adapt(load(*args))
            model.unet.register_forward_pre_hook(self._begin)
            model.unet.register_forward_hook(self._end)
            return model

        vars(weights)["load_denoising_model"] = timed
        await super().__init__(tier, *rest)

    async def unet_calls(self) -> list[Call]:
        """Since the replica started, its self-test's among them."""
        return list(self._calls)

    def _adapt(self, loaded: DenoisingModel) -> DenoisingModel:
        return loaded

    def _begin(self, *_: object) -> None:
        self._began = time.time()

    def _end(self, *_: object) -> None:
        self._calls.append((self._began, time.time()))


class PacedDenoiser(TimedDenoiser):
    def _adapt(self, loaded: DenoisingModel) -> DenoisingModel:
        return paced(loaded)


def paced(loaded: DenoisingModel) -> DenoisingModel:
    """It sleeps as long as an A100 would compute at eight times the sides."""
    architecture, side = published_architecture(), LATENT_SCALE * SHRINK

    def pace(sample: torch.Size) -> float:
        rows, _, frames, height, width = sample
        flops = rows * architecture.unet_flops(width * side, height * side, frames)
        return flops / (A100_TFLOPS * 1e12)

    return replace(loaded, unet=paced_model(pace).unet)


def build_timed(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Denoiser"] = TimedDenoiser
    return serve.app.build_app(args)


def build_paced(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Denoiser"] = PacedDenoiser
    return serve.app.build_app(args)
