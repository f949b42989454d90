"""The application with denoisers whose memory has no room for two rows of a large clip; it fails by
the allocator's own exception, as on a card."""

from collections.abc import Mapping
from typing import Any

import torch
from ray.serve import Application

import serve.app
from deployments.denoiser import Denoiser

LARGE_SIDE = 192
_LATENT_SIDE = LARGE_SIDE // 8


class ScarceDenoiser(Denoiser):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        await super().__init__(*args)
        unet = self._engine._engine._model.unet
        unet.register_forward_pre_hook(_allocate, with_kwargs=True)


def _allocate(_unet: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
    rows, _, _, height, _ = inputs["sample"].shape
    if rows > 1 and height == _LATENT_SIDE:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Denoiser"] = ScarceDenoiser
    return serve.app.build_app(args)
