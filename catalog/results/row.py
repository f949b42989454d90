"""One row of results per input row, and its Parquet schema."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

STAGES = (
    "text_encoding",
    "image_encoding",
    "denoising",
    "decoding",
    "interpolation",
    "video_encoding",
    "quality",
    "storing",
)
"""Of the service's timings, in the order of the path; seconds of any other stage are `t_other`."""


class RowStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """What became of one input row. Raises ValueError where it contradicts itself."""

    row: int  # of the manifest, from 0
    status: RowStatus
    sku: str | None = None  # None only where the manifest had none
    title: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    video_id: str | None = None
    attempts: int = 0
    downgrades: tuple[str, ...] = ()
    tier: str | None = None
    model: str | None = None
    model_revision: str | None = None
    seed: int | None = None
    width: int | None = None  # px
    height: int | None = None  # px
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None  # of playback
    video_uri: str | None = None
    poster_uri: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    score: float | None = None  # 0..1
    subject_first: float | None = None
    subject_mean: float | None = None
    color_shift: float | None = None  # this and the other measures as in video.quality.Quality
    lpips_first: float | None = None
    lpips_mean: float | None = None
    flicker: float | None = None
    warp_error: float | None = None
    tracked: float | None = None
    motion: float | None = None
    queue_s: float | None = None
    timings: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds of work
    gpu_seconds: float | None = None  # of all videos made for the row, the gate's other seeds too
    cost: float | None = None  # of these, in the run's currency; None: a tier has no price
    peak_vram_bytes: int | None = None
    shared_with: str | None = None  # video whose result was used; `ID_cN`: its candidate N
    started_at: float | None = None  # Unix seconds
    finished_at: float | None = None  # Unix seconds
    echoed: Mapping[str, object] = field(default_factory=dict)  # manifest column -> value

    def __post_init__(self) -> None:
        ok = self.status is RowStatus.OK
        if ok != (self.video_uri is not None):
            raise ValueError(f"row {self.row} is {self.status}, its video is {self.video_uri}")
        if ok and self.error_code is not None:
            raise ValueError(f"row {self.row} is ok and failed with {self.error_code}")
        if self.status is RowStatus.FAILED and self.error_code is None:
            raise ValueError(f"row {self.row} failed without a code")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"row {self.row} has a score of {self.score}, not of 0 to 1")


_TIME = pa.timestamp("us", tz="UTC")
_COLUMNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        ("sku", pa.string()),
        ("title", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        *((f"error_{part}", pa.string()) for part in ("type", "code", "message")),
        ("video_id", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("downgrades", pa.list_(pa.string()), nullable=False),
        *((name, pa.string()) for name in ("tier", "model", "model_revision")),
        ("seed", pa.int64()),
        *((name, pa.int32()) for name in ("width", "height", "frames")),
        *((name, pa.float64()) for name in ("fps", "seconds")),
        *((name, pa.string()) for name in ("video_uri", "poster_uri", "sha256")),
        ("bytes", pa.int64()),
        ("score", pa.float64()),
        *((name, pa.float64()) for name in ("subject_first", "subject_mean", "color_shift")),
        *((name, pa.float64()) for name in ("lpips_first", "lpips_mean")),
        *((name, pa.float64()) for name in ("flicker", "warp_error", "tracked", "motion")),
        *((f"t_{name}", pa.float64()) for name in ("queue", *STAGES, "other")),
        *((name, pa.float64()) for name in ("gpu_seconds", "cost")),
        ("peak_vram_bytes", pa.int64()),
        ("shared_with", pa.string()),
        *((name, _TIME) for name in ("started_at", "finished_at")),
    ]
)


class ResultSchema:
    """The columns of a run's results: its own, then those of the manifest that are echoed."""

    def __init__(self, echoed: Iterable[pa.Field] = ()) -> None:
        """An echoed column that bears a name already taken is called `in_<name>`."""
        fields = list(echoed)
        taken = {*_COLUMNS.names, *(column.name for column in fields)}
        self._names: dict[str, str] = {}  # of the manifest -> here
        for column in fields:
            name = column.name
            if name in _COLUMNS.names:
                while name in taken:
                    name = f"in_{name}"
                taken.add(name)
            self._names[column.name] = name
        self.arrow = pa.schema(
            [*_COLUMNS, *(column.with_name(self._names[column.name]) for column in fields)]
        )

    def record(self, run_id: str, row: ResultRow) -> dict[str, object]:
        """`row` by column name. Raises KeyError where it echoes a column that is not declared."""
        timings = {f"t_{stage}": row.timings.get(stage) for stage in STAGES}
        others = [seconds for stage, seconds in row.timings.items() if stage not in STAGES]
        same = {name: getattr(row, name) for name in _COLUMNS.names if name in ResultRow.__slots__}
        return {
            **same,
            **timings,
            "run_id": run_id,
            "bytes": row.size_bytes,
            "t_queue": row.queue_s,
            "t_other": sum(others) if others else None,
            "started_at": _moment(row.started_at),
            "finished_at": _moment(row.finished_at),
            **{self._names[column]: value for column, value in row.echoed.items()},
        }

    def restored(self, record: Mapping[str, Any]) -> ResultRow:
        """The row that `record` was made of, as a part has it; other stages are one, `other`. A
        part of an earlier release may lack columns."""
        stages = {stage: record[f"t_{stage}"] for stage in (*STAGES, "other")}
        names = [name for name in _COLUMNS.names if name in record]
        same = {name: record[name] for name in names if name in ResultRow.__slots__}
        return ResultRow(
            **same
            | {
                "status": RowStatus(record["status"]),
                "downgrades": tuple(record["downgrades"]),
                "size_bytes": record["bytes"],
                "queue_s": record["t_queue"],
                "timings": {name: took for name, took in stages.items() if took is not None},
                "started_at": _seconds(record["started_at"]),
                "finished_at": _seconds(record["finished_at"]),
                "echoed": {column: record[name] for column, name in self._names.items()},
            }
        )


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
