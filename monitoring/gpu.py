"""A card as the driver's library (NVML) knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pynvml

CardError: type[Exception] = pynvml.NVMLError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """None: this kind of card, or a part of one (MIG), does not tell."""

    utilization: float | None  # 0 to 1, of the last fraction of a second
    memory_used_bytes: int | None  # by all processes
    memory_total_bytes: int | None
    temperature_celsius: float | None
    energy_joules: float | None  # since the driver was loaded


class Card:
    def __init__(self, uuid: str):
        """Raises CardError where there is no driver, or it does not know the card."""
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.index = str(pynvml.nvmlDeviceGetIndex(self._handle))  # on its node, as nvidia-smi's

    def read(self) -> Reading:
        """Raises CardError, for a card that has fallen off the bus, say."""
        memory = self._told(pynvml.nvmlDeviceGetMemoryInfo)
        rates = self._told(pynvml.nvmlDeviceGetUtilizationRates)
        energy_mj = self._told(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return Reading(
            rates and rates.gpu / 100,
            memory and memory.used,
            memory and memory.total,
            self._told(lambda card: pynvml.nvmlDeviceGetTemperature(card, _CHIP)),
            energy_mj and energy_mj / 1000,
        )

    def _told(self, ask: Callable[[object], T]) -> T | None:
        try:
            return ask(self._handle)
        except pynvml.NVMLError_NotSupported:
            return None


_CHIP = pynvml.NVML_TEMPERATURE_GPU
