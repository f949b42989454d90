"""A run so far: what was asked, and the sum of what its finished shards say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from catalog.results.commit import finished_shards, read_markers
from catalog.results.errors import PartOfAnother
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.row import RowStatus
from catalog.results.tally import Tally


class RunPlan(BaseModel):
    """What a run is asked to do; fixed when it begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_uri: str
    fingerprint: str  # of the pinned manifest
    rows: int = Field(ge=0)
    shards: int = Field(ge=0)
    options: Mapping[str, str | int | float | bool | None] = Field(default_factory=dict)
    versions: Mapping[str, str] = Field(default_factory=dict)
    currency: str | None = None  # ISO 4217; None: no tier has a price
    created_at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class RunSummary:
    run_id: str
    plan: RunPlan
    tally: Tally  # of the finished shards
    shards_done: int
    faulty: tuple[ShardMarker, ...]  # of the shards in which some row has no video; without tallies
    stopped: str | None  # why the run ended before its end

    @property
    def complete(self) -> bool:
        return self.shards_done == self.plan.shards

    @property
    def status(self) -> str:
        if self.complete:
            return "completed"
        return "in_progress" if self.stopped is None else "stopped"

    @property
    def percent(self) -> int:
        """Of the rows; rounded down, so that 100 means all."""
        if self.complete:
            return 100
        return min(99, 100 * self.tally.rows // max(1, self.plan.rows))

    @property
    def wall_s(self) -> float | None:
        """From the first row's start to the last row's end, pauses of the run included."""
        began, ended = self.tally.started_at, self.tally.finished_at
        return None if began is None or ended is None else ended - began


def summarise(
    output: RunOutput,
    plan: RunPlan,
    stopped: str | None = None,
    progress: Callable[[], None] = lambda: None,
) -> RunSummary:
    """Reads every marker, one request each; `progress` is called for each.

    Raises StorageError, MarkerDamaged, and PartOfAnother for a marker that is not this run's.
    """
    tally, faulty = Tally(), []
    shards = finished_shards(output)
    for marker in read_markers(output, shards.values()):
        if marker.run_id != output.run_id or marker.shard >= plan.shards:
            raise PartOfAnother(marker.part_key, f"run {marker.run_id}, shard {marker.shard}")
        progress()
        tally += marker.tally
        if marker.tally.rows > marker.tally.count(RowStatus.OK):
            faulty.append(marker.model_copy(update={"tally": Tally()}))  # a small one
    return RunSummary(output.run_id, plan, tally, len(shards), tuple(faulty), stopped)
