"""What a denoiser's replica tells of itself: its UNet's calls, its card, and what would be lost."""

import asyncio
import logging
from typing import TYPE_CHECKING

from deployments.checkpoint_shelf import CheckpointShelf
from monitoring import metrics
from monitoring.gpu import Card, CardError, Reading
from monitoring.instruments import TELL_EVERY_S

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class Vitals:
    """Lives on the replica's event loop."""

    def __init__(self, tier: str, device: "torch.device", shelf: CheckpointShelf):
        from diffusion.device import card_uuid

        self._tier, self._device, self._shelf = {"tier": tier}, device, shelf
        metrics.begin(metrics.DENOISE_STEPS, metrics.GPU_SECONDS, tier=[tier])
        uuid = card_uuid(device)
        self._card = None if uuid is None else _open(uuid)
        self._joules: float | None = None
        self._task = asyncio.create_task(self._tell())

    def note_call(self, seconds: float) -> None:
        """The UNet has made a call; from the engine's thread."""
        metrics.DENOISE_STEP_SECONDS.observe(seconds, tags=self._tier)
        metrics.GPU_SECONDS.inc(seconds, tags=self._tier)

    def note_steps(self, steps: int) -> None:
        if steps:
            metrics.DENOISE_STEPS.inc(steps, tags=self._tier)

    async def _tell(self) -> None:
        fails = False
        while True:
            try:
                await self._tell_once()
                fails = False
            except Exception:  # nobody awaits this loop: whatever ends it would do so unheard
                if not fails:  # each few seconds would fill the log
                    log.exception("the vitals of a replica of %s are not all told", self._tier)
                fails = True
            await asyncio.sleep(TELL_EVERY_S)

    async def _tell_once(self) -> None:
        """Raises CardError, and what torch raises once the card has failed."""
        from diffusion.device import reserved_bytes

        metrics.CHECKPOINT_AGE.set(self._shelf.unsaved_s, tags=self._tier)
        reserved = reserved_bytes(self._device)
        if reserved is not None:
            metrics.GPU_MEMORY_RESERVED.set(reserved, tags=self._tier)
        if self._card is not None:
            self._show(self._card, await asyncio.to_thread(self._card.read))

    def _show(self, card: Card, reading: Reading) -> None:
        labels = {"gpu": card.index}
        for gauge, value in (
            (metrics.GPU_UTILIZATION, reading.utilization),
            (metrics.GPU_MEMORY_USED, reading.memory_used_bytes),
            (metrics.GPU_MEMORY_TOTAL, reading.memory_total_bytes),
            (metrics.GPU_TEMPERATURE, reading.temperature_celsius),
        ):
            if value is not None:
                gauge.set(value, tags=labels)
        before, self._joules = self._joules, reading.energy_joules
        if self._joules is None:
            return
        if before is None:
            metrics.GPU_ENERGY.begin(gpu=[card.index])
        elif self._joules > before:  # less: the driver was loaded anew
            metrics.GPU_ENERGY.inc(self._joules - before, tags=labels)


def _open(uuid: str) -> Card | None:
    try:
        return Card(uuid)
    except CardError as e:
        log.warning("no metrics of card %s: %s", uuid, e)
        return None
