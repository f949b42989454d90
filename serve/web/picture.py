"""The service as its HTTP API shows it to one caller: readiness, models, and what the caller's own
videos tell of machines, line and failures.

The API tells nothing of replicas, of other callers' jobs or of memory in use.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from serve.web.api import Api, Json

_AT_ONCE = "100"  # the most that the API gives
_STATUSES = ("queued", "in_progress", "completed", "failed")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the caller's videos tell of a tier."""

    tier: str
    at_work: int
    made: int
    gpu_seconds: float | None  # median of those made; None: none
    peak_vram_bytes: int | None  # None: no GPU


@dataclass(frozen=True, slots=True)
class Picture:
    broken: list[str]  # none: ready
    models: list[Json]
    machines: list[Machine]
    waiting: int
    no_machine: int  # in progress, not yet given to a tier
    first_place: int | None  # 0: the next one
    failures: list[Json]  # newest first

    @classmethod
    async def of(cls, api: Api) -> Self:
        """Raises Refused."""
        broken, models = await asyncio.gather(api.broken(), api.models())
        queued, at_work, completed, failed = await asyncio.gather(
            *(_videos(api, status) for status in _STATUSES)
        )
        places = [one["queue_position"] for one in queued if one["queue_position"] is not None]
        return cls(
            broken=broken,
            models=models["data"],
            machines=machines(at_work, completed),
            waiting=len(queued),
            no_machine=sum(one["tier"] is None for one in at_work),
            first_place=min(places, default=None),
            failures=failed,
        )


async def _videos(api: Api, status: str) -> list[Json]:
    page = await api.videos(status=status, limit=_AT_ONCE)
    videos: list[Json] = page["data"]
    return videos


def machines(at_work: Sequence[Json], completed: Iterable[Json]) -> list[Machine]:
    """By name. What took an earlier video's result used no machine."""
    now = Counter(one["tier"] for one in at_work if one["tier"] is not None)
    made: dict[str, list[Json]] = {}
    for one in completed:
        if one["tier"] is not None and one["usage"] is not None and one["shared_with"] is None:
            made.setdefault(one["tier"], []).append(one["usage"])
    return [
        _machine(tier, now[tier], made.get(tier, [])) for tier in sorted(now.keys() | made.keys())
    ]


def _machine(tier: str, at_work: int, usages: Sequence[Json]) -> Machine:
    peaks = [one["peak_vram_bytes"] for one in usages if one["peak_vram_bytes"] is not None]
    return Machine(
        tier,
        at_work,
        len(usages),
        median(one["gpu_seconds"] for one in usages) if usages else None,
        max(peaks, default=None),
    )
