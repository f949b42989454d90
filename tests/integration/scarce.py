"""The application with denoisers whose memory runs out: a UNet call of too many elements fails, by
the allocator's own exception as on a card."""

from collections.abc import Mapping
from typing import Any

import torch
from ray.serve import Application

import serve.app
from deployments.denoiser import Denoiser

MOST_ELEMENTS = 5000  # rows x frames x height x width of the latents
SHORT_FRAMES = 11  # a clip of so many frames never has enough
FATAL_FRAMES = 9  # a clip of so many frames, and nothing works any more on this device


class ScarceDenoiser(Denoiser):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        await super().__init__(*args)
        self._dead = False
        unet = self._engine._engine._model.unet
        unet.register_forward_pre_hook(self._allocate, with_kwargs=True)

    def _allocate(self, _unet: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        rows, _, frames, height, width = inputs["sample"].shape
        self._dead = self._dead or frames == FATAL_FRAMES
        elements = rows * frames * height * width
        if self._dead or frames == SHORT_FRAMES or elements > MOST_ELEMENTS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Denoiser"] = ScarceDenoiser
    return serve.app.build_app(args)
