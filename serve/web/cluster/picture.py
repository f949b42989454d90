"""The service as its HTTP API shows it to one caller, and its machines in words."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

from serve.web.api import Api, Json, Refused
from serve.web.words import Words

T = TypeVar("T")

_UNKNOWN = "–"
_GB = 1e9
_UNITS = (("hours", 3600, 1.5), ("minutes", 60, 1.5), ("seconds", 1, 0.0))
"""Name, seconds of it, and from how many of it on a span is told in it."""


@dataclass(frozen=True, slots=True)
class Picture:
    cluster: Json  # of GET /v1/cluster
    models: list[Json]
    failures: list[Json] | None  # newest first; None: the job table does not answer

    @classmethod
    async def of(cls, api: Api) -> Self:
        """Raises Refused."""
        cluster, models, failures = await asyncio.gather(
            api.cluster(), api.models(), _failures(api)
        )
        return cls(cluster, models["data"], failures)


async def _failures(api: Api) -> list[Json] | None:
    try:
        return list((await api.videos(status="failed"))["data"])
    except Refused as e:
        if e.code != "store_unavailable":
            raise
        return None  # the rest tells what is broken


@dataclass(frozen=True, slots=True)
class Machine:
    """A tier's row."""

    tier: str
    makes: str  # "": generated videos
    replicas: str
    at_work: str
    queued: str
    ahead: str
    speed: str
    card: str
    memory: str


def machine(words: Words, tier: Json) -> Machine:
    now, vram = tier["now"], tier["vram"] or {}
    card_gb, peak_bytes = vram.get("card_gb"), vram.get("peak_bytes")
    return Machine(
        tier=tier["id"],
        makes=words("cluster.renders") if tier["kind"] == "camera" else "",
        replicas=_told(now, partial(_replicas, words, tier)),
        at_work=_told(now, partial(_at_work, words, tier)),
        queued=_told(now, lambda now: _clips(words, now["queued"])),
        ahead=_told(now, partial(_ahead, words)),
        speed=_told(now and now["tflops"], lambda rate: f"{rate:.3g} TFLOP/s"),
        card=_told(card_gb, lambda gb: f"{gb:g} GB"),
        memory=_told(peak_bytes, partial(_memory, words, vram.get("replica_limit_bytes"))),
    )


def _told(value: T | None, tell: Callable[[T], str]) -> str:
    return _UNKNOWN if value is None else tell(value)


def in_line(words: Words, waiting: Json) -> str:
    """Of one priority: `3, the first one for 12 s`."""
    if not waiting["clips"]:
        return "0"
    wait = _span(words, waiting["oldest_seconds"])
    return words("cluster.in_line", clips=waiting["clips"], wait=wait)


def _replicas(words: Words, tier: Json, now: Json) -> str:
    running, starting = now["replicas"], now["starting"]
    if running is None:
        return _UNKNOWN
    if starting:
        return words("cluster.starting", running=running, starting=starting)
    if not running and not tier["min_replicas"]:
        return words("cluster.at_rest", span=_span(words, tier["cold_start_seconds"]))
    return str(running)


def _at_work(words: Words, tier: Json, now: Json) -> str:
    clips = _clips(words, now["running"])
    if not now["replicas"]:  # none runs, or nobody knows
        return clips
    return words("cluster.of_slots", clips=clips, slots=now["replicas"] * tier["slots"])


def _clips(words: Words, loads: Json) -> str:
    people, batch = loads["interactive"]["clips"], loads["batch"]["clips"]
    return words("cluster.with_batch", people=people, batch=batch) if batch else str(people)


def _ahead(words: Words, now: Json) -> str:
    """Until what is given to it now has been made."""
    loads = (*now["running"].values(), *now["queued"].values())
    seconds = sum(load["gpu_seconds"] for load in loads) / max(1, now["replicas"] or 0)
    if not any(load["clips"] for load in loads):
        return words("cluster.nothing")
    return words("cluster.about", span=_span(words, seconds))


def _memory(words: Words, limit_bytes: int | None, peak_bytes: int) -> str:
    used = f"{peak_bytes / _GB:.1f}"
    if limit_bytes is None:
        return f"{used} GB"
    return words("cluster.gb_of", gb=used, limit=f"{limit_bytes / _GB:.1f}")


def _span(words: Words, seconds: float) -> str:
    """Finer would claim to know too much."""
    unit, length = next(
        (unit, length) for unit, length, least in _UNITS if seconds >= least * length
    )
    return words(f"cluster.spans.{unit}", count=max(1, round(seconds / length)))
