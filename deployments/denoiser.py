"""Denoiser: the UNet on one GPU tier. Requests in flight share it step by step."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from cluster.tiers import TierConfig
from deployments.timing import Stopwatch, Timed
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from monitoring import metrics

if TYPE_CHECKING:
    from diffusion.state import ImageCondition, TextCondition


REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class StepDone:
    """Progress of one clip: `step` of its num_inference_steps are done."""

    step: int


@dataclass(frozen=True, slots=True)
class Denoised:
    """Where finished latents are: the Dispatcher passes this on, never the latents."""

    latents: "ray.ObjectRef[object]"  # of diffusion.state.Latents
    timings: dict[str, float]  # stage -> seconds
    dropped_prompt: str  # the end of the prompt that the text encoder could not take


class Denoiser:
    def __init__(self, tier: TierConfig, model: ModelConfig, digests: dict[str, str]):
        import torch

        from diffusion.device import open_device
        from diffusion.weights import load_denoising_model

        folder = ModelFolder.open(model)
        folder.verify(digests, "unet", "scheduler")
        device = open_device(tier.device, tier.num_gpus, tier.threads)
        self._model = load_denoising_model(
            folder, device, getattr(torch, model.dtype_on(tier.device))
        )
        self._tier = tier
        self._steps_done = 0
        # One thread owns the UNet and every tensor on its device; requests queue for it per step.
        self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="unet")

    async def denoise(
        self,
        params: SamplingParams,
        text: Timed["TextCondition"],
        image: Timed["ImageCondition"],
    ) -> AsyncIterator[StepDone | Denoised]:
        """Yield a StepDone per step, a few a second at most, and the Denoised at the end.

        Cancelling the stream stops the UNet after the step in flight.
        """
        from diffusion import denoise

        on_device = asyncio.get_running_loop().run_in_executor
        watch = Stopwatch()

        def begin() -> denoise.DenoiseState:
            with watch.running():
                return denoise.begin(self._model, params, text.value, image.value)

        def advance() -> None:
            with watch.running():
                denoise.advance(self._model, state)

        state = await on_device(self._device_thread, begin)
        reported = time.monotonic()
        while not state.is_done:
            await on_device(self._device_thread, advance)
            self._steps_done += 1
            metrics.DENOISE_STEPS.inc(tags={"tier": self._tier.name})
            # A report costs milliseconds of this process, which tiny steps would feel.
            if time.monotonic() - reported >= REPORT_EVERY_S:
                reported = time.monotonic()
                yield StepDone(state.step)
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "denoising"})
        latents = await asyncio.to_thread(lambda: ray.put(denoise.latents_of(state)))
        yield Denoised(
            latents,
            {
                "text_encoding": text.seconds,
                "image_encoding": image.seconds,
                "denoising": watch.seconds,
            },
            text.value.prompt.dropped,
        )

    async def steps_done(self) -> int:
        """UNet steps of this replica since it started."""
        return self._steps_done
