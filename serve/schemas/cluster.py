"""The service as an operator sees it: its tiers, and the work that all callers have given it.

Of work there are counts and seconds, nothing that would tell whose it is.
"""

import math
from collections.abc import Mapping
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field

from cluster.cost import replica_bytes
from cluster.eta import STALE_S, TierState, Work
from cluster.tiers import TierConfig
from diffusion.params import Priority
from storage.sql.overview import Line

T = TypeVar("T")


class ByPriority(BaseModel, Generic[T]):
    interactive: T
    batch: T


class Waiting(BaseModel):
    clips: int = Field(description="each candidate is one")
    oldest_seconds: float | None = Field(description="its first one's wait; null: nobody waits")


class Queue(ByPriority[Waiting]):
    """Of all callers, as the job table has it."""

    @classmethod
    def of(cls, lines: Mapping[Priority, Line], now: float) -> Self:
        """`now` in Unix seconds."""
        return cls(**{priority.value: _waiting(line, now) for priority, line in lines.items()})


class Load(BaseModel):
    clips: int
    gpu_seconds: float = Field(description="of one replica, foreseen for what is left of them")


class Loads(ByPriority[Load]):
    @classmethod
    def of(cls, works: Mapping[Priority, Work]) -> Self:
        return cls(**{priority.value: _load(work) for priority, work in works.items()})


class Vram(BaseModel):
    """Memory of a GPU tier."""

    card_gb: float | None = Field(description="of a whole card, as configured; null: not said")
    replica_limit_bytes: int | None = Field(
        description="what one replica may take of its card, as configured; null: not said"
    )
    peak_bytes: int | None = Field(
        description="the most that a replica's tensors held while a clip was denoised, weights"
        " included, since the Dispatcher started; null: no clip was, or it is not known now"
    )


class TierNow(BaseModel):
    """As the Dispatcher has told at `observed_at`."""

    replicas: int | None = Field(description="that run; null: not counted yet")
    starting: int | None = Field(
        description="replicas that load, or wait for a node with room; null: not counted yet"
    )
    running: Loads = Field(description="clips that hold a slot")
    queued: Loads = Field(
        description="clips that will come here, as planned now; of a long queue an estimate. Clips"
        " that no tier can take are in `queue` alone"
    )
    tflops: float | None = Field(
        description="TFLOP/s that a replica sustains, learned from clips or by a calibration; null:"
        " nothing was measured, and gpu_seconds go by the configuration"
    )

    @classmethod
    def of(cls, state: TierState) -> Self:
        return cls(
            replicas=None if state.starting is None else state.replicas,
            starting=state.starting,
            running=Loads.of(state.running),
            queued=Loads.of(state.queued),
            tflops=state.tflops if state.is_measured else None,
        )


class Tier(BaseModel):
    """A deployment that makes clips, on one class of machine."""

    id: str
    object: Literal["tier"] = "tier"
    kind: Literal["denoiser", "camera"] = Field(
        description="denoiser: runs the UNet; camera: renders camera moves, on CPUs"
    )
    min_replicas: int
    max_replicas: int
    slots: int = Field(description="clips at once on a replica")
    cold_start_seconds: float = Field(description="foreseen, until a first replica runs")
    vram: Vram | None = Field(description="null: it runs on CPUs")
    now: TierNow | None = Field(description="null: not known, see `stale`")

    @classmethod
    def of(cls, config: TierConfig, state: TierState | None) -> Self:
        return cls(
            id=config.name,
            kind="denoiser" if config.denoises else "camera",
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            slots=config.max_ongoing_requests,
            cold_start_seconds=config.cold_start_s,
            vram=_vram(config, state) if config.torch_device == "cuda" else None,
            now=None if state is None else TierNow.of(state),
        )


class Cluster(BaseModel):
    object: Literal["cluster"] = "cluster"
    status: Literal["ready", "not_ready"]
    broken: list[str] = Field(description="what keeps a request from succeeding now, in words")
    observed_at: int | None = Field(
        description="when the Dispatcher last told how the tiers stand, by its clock; null: never,"
        " or the job table does not answer"
    )
    stale: bool = Field(
        description=f"the Dispatcher has told nothing for {STALE_S:.0f} s, or nothing that this"
        " server can read: `now` of every tier is null"
    )
    queue: Queue | None = Field(description="null: the job table does not answer")
    tiers: list[Tier]


def _waiting(line: Line, now: float) -> Waiting:
    oldest_s = None if line.oldest_at is None else max(0.0, now - line.oldest_at)
    return Waiting(clips=line.length, oldest_seconds=oldest_s)


def _load(work: Work) -> Load:
    return Load(clips=round(work.clips), gpu_seconds=work.seconds)


def _vram(config: TierConfig, state: TierState | None) -> Vram:
    limit = replica_bytes(config)
    return Vram(
        card_gb=config.vram_gb or None,
        replica_limit_bytes=None if math.isinf(limit) else int(limit),
        peak_bytes=None if state is None else state.peak_vram_bytes,
    )
