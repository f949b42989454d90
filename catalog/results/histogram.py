"""A histogram of scores from 0 to 1 in fixed bins: those of two shards add up."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BINS = 50


class Histogram(BaseModel):
    model_config = ConfigDict(frozen=True)

    counts: Annotated[tuple[int, ...], Field(min_length=BINS, max_length=BINS)] = (0,) * BINS

    @classmethod
    def of(cls, scores: Iterable[float]) -> "Histogram":
        counts = [0] * BINS
        for score in scores:
            counts[min(int(score * BINS), BINS - 1)] += 1
        return cls(counts=tuple(counts))

    @property
    def total(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The score that `share` (0..1) of all lie below, to half a bin; None: there are none."""
        if not self.total:
            return None
        wanted = share * self.total
        below = 0
        for index, reached in enumerate(accumulate(self.counts)):
            if reached > below and reached >= wanted:
                return (index + (wanted - below) / (reached - below)) / BINS
            below = reached
        raise AssertionError("the last bin reaches the total")

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(counts=tuple(map(sum, zip(self.counts, other.counts, strict=True))))
