"""Runs locust in a process of its own against one address, and reads what its users were told."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Users = Literal["Create", "Get", "List"]

WARM_UP_S, MEASURED_S = 2.0, 20.0
USERS_PER_RATE = 2.0  # enough that an arrival finds one free unless answers take this many seconds


@dataclass(frozen=True, slots=True)
class Load:
    """`rate` calls a second as they come, or `callers` one call after another each."""

    users: Users
    rate: float | None = None
    callers: int | None = None

    @property
    def options(self) -> list[str]:
        if self.rate is None:
            return ["--users", f"{self.callers}", "--spawn-rate", f"{self.callers}"]
        number = f"{math.ceil(USERS_PER_RATE * self.rate)}"
        return ["--users", number, "--spawn-rate", number, "--rate", f"{self.rate:g}"]


class LoadFailed(Exception):
    """The generator did not do what it was told, or nobody was served."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Those to calls begun after the warm-up."""

    ms: Sequence[float]  # in order of size; the refused ones left out
    refused: int  # 503 above all: the service sheds what it cannot do soon
    calls: int  # all of them, the warm-up's too

    @classmethod
    def read(cls, path: Path) -> "Answers":
        """Raises LoadFailed where nobody was served."""
        given = json.loads(path.read_text())
        begun = min((start for start, _, _ in given), default=0.0) + WARM_UP_S
        kept = [(ms, error) for start, ms, error in given if 0 <= start - begun < MEASURED_S]
        served = sorted(ms for ms, error in kept if not error)
        if not served:
            raise LoadFailed(f"{len(kept)} calls, none served: {kept[:1]}")
        return cls(served, len(kept) - len(served), len(given))

    def figures(self) -> dict[str, float]:
        return {
            "served_per_s": round(len(self.ms) / MEASURED_S, 1),
            "refused": self.refused,
            "p50_ms": percentile(self.ms, 0.50),
            "p95_ms": percentile(self.ms, 0.95),
            "p99_ms": percentile(self.ms, 0.99),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)


def load(url: str, what: Load, out: Path, ids: Path | None = None) -> Answers:
    """Raises LoadFailed."""
    command: list[Any] = [sys.executable, "-m", "locust", "--headless", "--skip-log"]
    command += ["--locustfile", Path(__file__).with_name("locustfile.py"), "--host", url]
    command += [*what.options, "--out", out]
    command += ["--run-time", f"{WARM_UP_S + MEASURED_S + 1:g}s"]  # a last call may still be away
    if ids is not None:
        command += ["--ids", ids]
    done = subprocess.run([*map(str, command), what.users], capture_output=True, text=True)
    if not out.exists():
        raise LoadFailed(f"locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Answers.read(out)
