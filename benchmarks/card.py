"""A device whose time and memory are measured: the CPU here, a CUDA card where there is one."""

import ctypes
import gc
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # proc(5): resets VmHWM


class Card(Protocol):
    device: torch.device
    dtype: torch.dtype  # in which the UNet runs

    def settle(self) -> None:
        """Wait for what was left running."""

    def peak_bytes(self, work: Callable[[], object]) -> int:
        """Most bytes taken while `work` ran, over what was taken before."""


class CappedCard(Card, Protocol):
    def taken_bytes(self) -> int:
        """By this process, caches given back."""

    def cap(self, most_bytes: int) -> Any:
        """A context in which this process gets no more than that."""

    def describe(self) -> dict[str, Any]: ...


class Cpu:
    """Peaks are of the whole process's resident memory: torch keeps no count for a CPU."""

    device = torch.device("cpu")
    dtype = torch.float32

    def settle(self) -> None:
        pass

    def peak_bytes(self, work: Callable[[], object]) -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_FORGET_PEAK)
        before = _resident("VmRSS")
        work()
        return max(0, _resident("VmHWM") - before)


class Cuda:
    device = torch.device("cuda")
    dtype = torch.float16

    def settle(self) -> None:
        torch.cuda.synchronize()

    def peak_bytes(self, work: Callable[[], object]) -> int:
        before = self.taken_bytes()
        torch.cuda.reset_peak_memory_stats()
        work()
        self.settle()
        return torch.cuda.max_memory_allocated() - before

    def taken_bytes(self) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    @contextmanager
    def cap(self, most_bytes: int) -> Iterator[None]:
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / whole))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()

    def describe(self) -> dict[str, Any]:
        """As benchmarks.machine.machine, of a machine that may have torch and diffusers only."""
        card = torch.cuda.get_device_properties(self.device)
        return {
            "gpu": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "compute_capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {n: importlib.metadata.version(n) for n in ("torch", "diffusers")},
            "date": datetime.now(UTC).date().isoformat(),
        }


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")
