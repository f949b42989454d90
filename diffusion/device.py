"""The device of one replica: which, how much of its memory, how many threads."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from diffusion.errors import OutOfMemory


def open_device(kind: str, num_gpus: float, threads: int) -> torch.device:
    """Set this process up for `kind` ("cpu" or "cuda") and return the device.

    A fraction of a GPU is only Ray's book-keeping, so the process caps its own memory to it.
    """
    torch.set_num_threads(threads)
    device = torch.device(kind)
    if device.type == "cuda" and 0 < num_gpus < 1:
        torch.cuda.set_per_process_memory_fraction(num_gpus)
    return device


def memory_bytes(device: torch.device, num_gpus: float) -> float | None:
    """What open_device left this process of its card; None for a CPU, which is not rationed."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_properties(device).total_memory * min(1.0, num_gpus)


def card_uuid(device: torch.device) -> str | None:
    """As the driver writes it, GPU-…; None for a CPU."""
    if device.type == "cpu":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def reserved_bytes(device: torch.device) -> int | None:
    """What this process holds of its card, what the allocator has cached included; None for a
    CPU."""
    return None if device.type == "cpu" else torch.cuda.memory_reserved(device)


class PeakMemory:
    """The most that this process held of a GPU's memory since `restart`."""

    def __init__(self, device: torch.device):
        self._device = device

    def restart(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def bytes(self) -> int | None:
        """Tensors alone, without what the allocator has cached; None on a CPU."""
        if self._device.type == "cpu":
            return None
        return torch.cuda.max_memory_allocated(self._device)


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn the allocator's failure into our OutOfMemory and give back what it had cached, so that
    the next, smaller request finds room."""
    try:
        yield
    except torch.OutOfMemoryError as e:
        # The frames of the failed call hold its tensors for as long as somebody keeps the error.
        traceback.clear_frames(e.__traceback__)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory(str(e).partition(". ")[0]) from None
