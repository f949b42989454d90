"""How long what is kept, and what a collection has done."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

_HOUR_S, _DAY_S = 3600.0, 86_400.0


class Retention(BaseModel):
    """Seconds that things are kept; None: for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs_s: float | None = Field(
        30 * _DAY_S, gt=0, description="photos, after the last job that used them has ended"
    )
    results_s: float | None = Field(None, gt=0, description="videos; their jobs then say `expired`")
    attempts_s: float | None = Field(
        _DAY_S, gt=0, description="files of tries that failed or lost, after the job has ended"
    )
    checkpoints_s: float | None = Field(_DAY_S, gt=0, description="of jobs that have ended")
    rows_s: float | None = Field(
        None,
        gt=0,
        description="jobs that have ended, videos included; batches, and what they wrote where they"
        " were given no prefix of their own",
    )
    deliveries_s: float | None = Field(7 * _DAY_S, gt=0, description="webhooks that are over")
    endpoints_s: float | None = Field(
        30 * _DAY_S, gt=0, description="webhook addresses that answered 410; then tried again"
    )
    grace_s: float = Field(
        _HOUR_S,
        gt=0,
        description="no younger object is collected: its row or its commit may be still to come",
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What was deleted, by class, and what was left that looks like garbage."""

    deleted: Mapping[str, int]
    bytes_freed: int  # of what was found by listing; the files of deleted videos come on top
    left: Mapping[str, int]


@dataclass(slots=True)
class Tally:
    """A report in the making."""

    deleted: Counter[str] = field(default_factory=Counter)
    bytes_freed: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def report(self) -> Report:
        return Report(dict(self.deleted), self.bytes_freed, dict(self.left))
