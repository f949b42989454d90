"""How far a run is: `progress.json` in its folder, for whoever follows it."""

import json
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from catalog.results.output import RunOutput
from catalog.results.row import ResultRow, RowStatus
from catalog.results.tally import Tally
from storage.errors import ObjectNotFound

_NAME = "progress.json"
_RATE_OVER_S = 300.0


@dataclass(slots=True)
class Counts:
    rows: int  # of the run
    done: int = 0
    ok: int = 0
    failed: int = 0
    cancelled: int = 0
    shared: int = 0
    skipped: int = 0  # of `done`: finished before this driver began
    gpu_seconds: float = 0.0
    cost: float = 0.0

    @classmethod
    def of(cls, rows: int, tally: Tally) -> "Counts":
        return cls(
            rows,
            tally.rows,
            tally.count(RowStatus.OK),
            tally.count(RowStatus.FAILED),
            tally.count(RowStatus.CANCELLED),
            tally.shared,
            tally.rows,
            sum(tier.gpu_seconds for tier in tally.tiers.values()),
            sum(tier.cost for tier in tally.tiers.values()),
        )

    def add(self, row: ResultRow) -> None:
        self._count(row, 1)

    def take_back(self, row: ResultRow) -> None:
        """It is tried again, and comes back with what it has used by then."""
        self._count(row, -1)
        self.skipped -= 1

    def _count(self, row: ResultRow, by: int) -> None:
        self.done += by
        self.ok += by * (row.status is RowStatus.OK)
        self.failed += by * (row.status is RowStatus.FAILED)
        self.cancelled += by * (row.status is RowStatus.CANCELLED)
        self.shared += by * (row.shared_with is not None)
        self.gpu_seconds += by * (row.gpu_seconds or 0.0)
        self.cost += by * (row.cost or 0.0)


@dataclass(slots=True)
class Progress:
    """What this driver has seen done, on top of what it found."""

    counts: Counts
    _ends: deque[float] = field(default_factory=deque)  # monotonic seconds, of the last minutes

    def add(self, row: ResultRow) -> None:
        self.counts.add(row)
        now = time.monotonic()
        if row.video_id is not None:  # the others take no time to speak of
            self._ends.append(now)
        while self._ends and self._ends[0] < now - _RATE_OVER_S:
            self._ends.popleft()

    @property
    def rows_per_s(self) -> float | None:
        """Lately; None before there is anything to go by."""
        if len(self._ends) < 2:
            return None
        return (len(self._ends) - 1) / max(1e-3, time.monotonic() - self._ends[0])

    def write(self, output: RunOutput, in_flight: int, waiting_for: str | None) -> None:
        """Raises StorageError."""
        rate = self.rows_per_s
        left = self.counts.rows - self.counts.done
        document = asdict(self.counts) | {
            "in_flight": in_flight,
            "rows_per_s": rate,
            "eta_s": left / rate if rate else None,
            "waiting_for": waiting_for,
            "written_at": time.time(),
        }
        data = json.dumps(document).encode()
        output.objects.put(output.key(_NAME), data, "application/json")


def read_progress(output: RunOutput) -> dict[str, Any] | None:
    """As its driver wrote it last; None: it has made no video yet. Raises StorageError."""
    try:
        found: dict[str, Any] = json.loads(output.objects.get(output.key(_NAME)))
    except ObjectNotFound:
        return None
    return found
