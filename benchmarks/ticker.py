"""An engine whose requests do not end while its ticks are timed."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.models import conditions
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.events import Degraded, Event, Failed, Saved
from diffusion.params import SamplingParams
from diffusion.weights import DenoisingModel

STEPS = 500  # DDIM's spacing of this checkpoint leaves its table above that
NEVER = 1_000_000


def without_checkpoints(config: EngineConfig) -> EngineConfig:
    """They fall on one tick in ten, so that a median would not see them: they are timed apart."""
    return config.model_copy(update={"checkpoint_steps": NEVER, "checkpoint_s": float(NEVER)})


class Ticker:
    """`requests` live clips as `params` says, in an Engine; a call is a tick of it."""

    def __init__(
        self,
        model: DenoisingModel,
        config: EngineConfig,
        params: SamplingParams,
        requests: int,
    ):
        self.engine = Engine(model, without_checkpoints(config))
        for number in range(requests):
            endless = replace(params, num_inference_steps=STEPS, seed=params.seed + number)
            self.engine.join(f"clip{number}", endless, *conditions(model, endless))
        self.degraded: list[str] = []

    def __call__(self) -> None:
        self._take_note(self.engine.tick())

    def end(self) -> torch.Tensor:
        """The latents of all requests, [requests, 4, F, h, w] float32 on the CPU; they are gone
        then."""
        saved = [event for event in self.engine.drain() if isinstance(event, Saved)]
        return torch.cat([event.checkpoint.latents for event in saved])

    def _take_note(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Degraded):
                self.degraded.append(event.kind)
