"""How the emissions of all replicas are counted, or left out: by files that every process maps.

Knows no Ray: it is made before a cluster is.
"""

import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

_VARIABLE = "BENCH_EMISSIONS"
_SWITCH, _COUNTS = "switch", ".counts"
_LAYOUT = struct.Struct("qq")  # calls, nanoseconds of CPU in them


class Mode(IntEnum):
    SHIPPED = 0
    MUTED = 1  # nothing is handed to Ray
    COUNTED = 2


@dataclass(frozen=True, slots=True)
class Emitted:
    """By all replicas; one call is an increment, a gauge set, or an observation."""

    calls: int
    cpu_s: float

    def __sub__(self, other: "Emitted") -> "Emitted":
        return Emitted(self.calls - other.calls, self.cpu_s - other.cpu_s)


class Switch:
    """Make it before the cluster, whose processes inherit the environment."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self._folder = folder
        (folder / _SWITCH).write_bytes(bytes([Mode.SHIPPED]))
        os.environ[_VARIABLE] = str(folder)

    def turn(self, mode: Mode) -> None:
        with (self._folder / _SWITCH).open("r+b") as file:
            file.write(bytes([mode]))

    def emitted(self) -> Emitted:
        """So far, whenever it stood on COUNTED."""
        read = [_LAYOUT.unpack(path.read_bytes()) for path in self._folder.glob(f"*{_COUNTS}")]
        return Emitted(sum(calls for calls, _ in read), sum(ns for _, ns in read) / 1e9)


def meter() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In a replica: wraps the calls that emit."""
    folder = Path(os.environ[_VARIABLE])
    with (folder / _SWITCH).open("r+b") as file:
        switch = mmap.mmap(file.fileno(), 1)
    counts = folder / f"{os.getpid()}{_COUNTS}"
    counts.write_bytes(_LAYOUT.pack(0, 0))
    with counts.open("r+b") as file:
        cell = mmap.mmap(file.fileno(), _LAYOUT.size)
    lock = threading.Lock()

    def metered(call: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **kwargs: Any) -> None:
            mode = switch[0]
            if mode == Mode.SHIPPED:
                call(*args, **kwargs)
            elif mode == Mode.COUNTED:
                begun = time.thread_time_ns()
                call(*args, **kwargs)
                spent_ns = time.thread_time_ns() - begun
                with lock:
                    calls, ns = _LAYOUT.unpack(cell)
                    cell[:] = _LAYOUT.pack(calls + 1, ns + spent_ns)

        return run

    return metered
