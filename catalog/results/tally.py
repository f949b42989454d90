"""What a run's report needs to know of a set of rows. Tallies of two sets add up to that of both,
and stay small however many rows they stand for."""

from collections.abc import Iterable, Mapping
from typing import Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from catalog.results.histogram import Histogram
from catalog.results.row import RowStatus

SAMPLES = 24
"""Videos kept to show: those whose hash is lowest, a fair draw that does not depend on shards."""
WORST = 10
EXAMPLES = 3
"""Rows kept of each error code, the first ones."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)  # unknown keys are a newer version's: passed over


class Example(_Frozen):
    row: int
    sku: str | None
    message: str | None


class Failure(_Frozen):
    """Rows that share an error code."""

    count: int
    examples: tuple[Example, ...]

    def __add__(self, other: "Failure") -> "Failure":
        examples = sorted((*self.examples, *other.examples), key=lambda example: example.row)
        return Failure(count=self.count + other.count, examples=tuple(examples[:EXAMPLES]))


class StageTime(_Frozen):
    """Of the rows in which the stage ran."""

    rows: int
    seconds: float

    def __add__(self, other: "StageTime") -> "StageTime":
        return StageTime(rows=self.rows + other.rows, seconds=self.seconds + other.seconds)


class TierUse(_Frozen):
    """A class of GPU at work on videos, those that the quality gate passed over included. A row
    counts where its last video was made."""

    videos: int
    gpu_seconds: float
    cost: float  # of the priced seconds
    unpriced_seconds: float  # of gpu_seconds
    peak_vram_bytes: int

    def __add__(self, other: "TierUse") -> "TierUse":
        return TierUse(
            videos=self.videos + other.videos,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            cost=self.cost + other.cost,
            unpriced_seconds=self.unpriced_seconds + other.unpriced_seconds,
            peak_vram_bytes=max(self.peak_vram_bytes, other.peak_vram_bytes),
        )


class Shown(_Frozen):
    """A video that the report may show."""

    row: int
    sku: str | None
    title: str | None
    video_uri: str
    poster_uri: str | None
    score: float | None
    lot: int  # its place in the draw of samples


class Tally(_Frozen):
    statuses: Mapping[RowStatus, int] = Field(default_factory=dict)
    failures: Mapping[str, Failure] = Field(default_factory=dict)  # by error code
    stages: Mapping[str, StageTime] = Field(default_factory=dict)  # with "queue" and "other"
    tiers: Mapping[str, TierUse] = Field(default_factory=dict)
    downgrades: Mapping[str, int] = Field(default_factory=dict)  # step -> rows
    shared: int = 0  # videos that took another's result, without a GPU
    retried: int = 0  # rows that took more than one attempt
    video_bytes: int = 0
    video_seconds: float = 0.0
    scores: Histogram = Histogram()
    worst: tuple[Shown, ...] = ()  # lowest score first
    samples: tuple[Shown, ...] = ()
    started_at: float | None = None  # Unix seconds, of the first row
    finished_at: float | None = None  # Unix seconds, of the last row

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())

    def count(self, status: RowStatus) -> int:
        return self.statuses.get(status, 0)

    def __add__(self, other: "Tally") -> "Tally":
        starts = (t.started_at for t in (self, other) if t.started_at is not None)
        ends = (t.finished_at for t in (self, other) if t.finished_at is not None)
        return Tally(
            statuses=_merged(self.statuses, other.statuses),
            failures=_merged(self.failures, other.failures),
            stages=_merged(self.stages, other.stages),
            tiers=_merged(self.tiers, other.tiers),
            downgrades=_merged(self.downgrades, other.downgrades),
            shared=self.shared + other.shared,
            retried=self.retried + other.retried,
            video_bytes=self.video_bytes + other.video_bytes,
            video_seconds=self.video_seconds + other.video_seconds,
            scores=self.scores + other.scores,
            worst=worst_of((*self.worst, *other.worst)),
            samples=drawn_from((*self.samples, *other.samples)),
            started_at=min(starts, default=None),
            finished_at=max(ends, default=None),
        )


def drawn_from(videos: Iterable[Shown]) -> tuple[Shown, ...]:
    return tuple(sorted(videos, key=lambda video: video.lot)[:SAMPLES])


def worst_of(videos: Iterable[Shown]) -> tuple[Shown, ...]:
    scored = [(video.score, video.row, video) for video in videos if video.score is not None]
    return tuple(video for _, _, video in sorted(scored, key=lambda entry: entry[:2])[:WORST])


class _Additive(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


_K = TypeVar("_K")
_A = TypeVar("_A", bound=_Additive)


def _merged(one: Mapping[_K, _A], other: Mapping[_K, _A]) -> dict[_K, _A]:
    both = dict(one)
    for key, value in other.items():
        both[key] = both[key] + value if key in both else value
    return both
