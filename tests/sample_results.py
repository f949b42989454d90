"""Rows of results, shards and a plan to test a catalogue run's results and report with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.report.summary import RunPlan
from catalog.results.counting import tally_of
from catalog.results.output import RunOutput
from catalog.results.part import write_part
from catalog.results.row import ResultRow, ResultSchema, RowStatus
from catalog.results.tally import Tally
from storage.object_store import ObjectStoreConfig, S3ObjectStore

RUN, FINGERPRINT = "crun_1", "sha256:feed"
SCHEMA = ResultSchema([pa.field("brand", pa.string()), pa.field("status", pa.string())])
BEGAN = 1_790_000_000.0


@dataclass(frozen=True)
class Span:
    id: int
    first_row: int
    rows: int

    @property
    def indices(self) -> range:
        return range(self.first_row, self.first_row + self.rows)


def output_in(config: ObjectStoreConfig, run_id: str = RUN) -> RunOutput:
    return RunOutput(S3ObjectStore(config), config.bucket, "runs/autumn", run_id)


def ok_row(row: int, **facts: Any) -> ResultRow:
    uri = "s3://shop/runs/autumn/videos"
    return ResultRow(
        **{
            "row": row,
            "sku": f"SKU-{row}",
            "title": f"Mug {row}",
            "status": RowStatus.OK,
            "video_id": f"video_{row}",
            "attempts": 1,
            "tier": "a100",
            "seconds": 2.0,
            "video_uri": f"{uri}/{row}.mp4",
            "poster_uri": f"{uri}/{row}.webp",
            "size_bytes": 1000,
            "score": 0.75,
            "queue_s": 10.0,
            "timings": {"denoising": 3.0, "decoding": 0.5},
            "gpu_seconds": 3.0,
            "cost": 0.01,
            "peak_vram_bytes": 12_000_000_000,
            "started_at": BEGAN + row,
            "finished_at": BEGAN + row + 4,
            "echoed": {"brand": "Nord", "status": "live"},
            **facts,
        }
    )


def failed_row(row: int, code: str = "image_too_small", **facts: Any) -> ResultRow:
    return ResultRow(
        **{
            "row": row,
            "sku": f"SKU-{row}",
            "status": RowStatus.FAILED,
            "error_type": "invalid_request_error",
            "error_code": code,
            "error_message": "the photo is 96 x 72 px",
            "echoed": {"brand": "Nord", "status": "live"},
            **facts,
        }
    )


def rows_of(span: Span) -> Iterator[ResultRow]:
    """Every tenth one fails."""
    for row in span.indices:
        yield failed_row(row) if row % 10 == 9 else ok_row(row)


def part_of(*rows: ResultRow, schema: ResultSchema = SCHEMA) -> bytes:
    return write_part(RUN, FINGERPRINT, rows, schema)


def table_of(*rows: ResultRow) -> pa.Table:
    return pq.read_table(pa.BufferReader(part_of(*rows)))


def tally(*rows: ResultRow) -> Tally:
    return tally_of(table_of(*rows))


def plan_of(rows: int, shards: int, **facts: Any) -> RunPlan:
    return RunPlan(
        **{
            "manifest_uri": "s3://shop/feeds/autumn.csv",
            "fingerprint": FINGERPRINT,
            "rows": rows,
            "shards": shards,
            "options": {"preset": "standard", "max_failures": None, "retry_failed": True},
            "versions": {"shopreel": "0.1.0"},
            "currency": "EUR",
            "created_at": BEGAN,
            **facts,
        }
    )
