"""What the finished shards of a large run leave in its folder, written without the run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from catalog.report.summary import RunPlan
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.part import marker_of, write_part
from catalog.results.row import ResultRow, ResultSchema, RowStatus
from catalog.results.tally import Tally

_WRITERS = 16
_FAILS_EVERY = 33
_BEGAN = 1_790_000_000.0  # Unix seconds


@dataclass(frozen=True, slots=True)
class _Shard:
    id: int
    first_row: int
    rows: int


def commit_shards(output: RunOutput, plan: RunPlan, number: int, shard_rows: int) -> None:
    """Markers of the first so many shards, as the product writes them, three rows in a hundred
    failed; and their parts, which a driver lists and does not read: those are empty."""
    part = write_part(output.run_id, plan.fingerprint, _rows(output, shard_rows), ResultSchema())
    first = marker_of(output, plan.fingerprint, _Shard(0, 0, shard_rows), part)

    def write(shard: int) -> None:
        marker = _marker(output, first, shard, shard * shard_rows)
        output.objects.put(marker.part_key, b"", "application/vnd.apache.parquet")
        output.objects.put(output.marker_key(shard), marker.to_json(), "application/json")

    with ThreadPoolExecutor(_WRITERS) as writers:
        for _ in writers.map(write, range(number)):
            pass


def _rows(output: RunOutput, number: int) -> Iterator[ResultRow]:
    for row in range(number):
        known: dict[str, Any] = {
            "row": row,
            "sku": f"SKU-{row:09d}",
            "title": f"Stainless steel watch {row:09d}",
            "started_at": _BEGAN + row,
            "finished_at": _BEGAN + row + 20,
        }
        if row % _FAILS_EVERY == 0:
            yield ResultRow(
                status=RowStatus.FAILED,
                error_type="invalid_request_error",
                error_code="image_too_small",
                error_message="the photo is 32x32 px, at least 64 px a side are needed",
                **known,
            )
            continue
        uri = f"{output.uri}/videos/00000/SKU-{row:09d}-{row}"
        yield ResultRow(
            status=RowStatus.OK,
            attempts=1,
            tier="a100",
            seconds=2.0,
            video_uri=f"{uri}.mp4",
            poster_uri=f"{uri}.webp",
            size_bytes=200_000,
            score=row % 100 / 100,
            timings={"text_encoding": 0.1, "denoising": 17.0, "decoding": 1.0, "storing": 0.1},
            gpu_seconds=17.0,
            peak_vram_bytes=12 << 30,
            **known,
        )


def _marker(output: RunOutput, first: ShardMarker, shard: int, ahead: int) -> ShardMarker:
    """The first one's, of rows so far ahead."""
    return first.model_copy(
        update={
            "shard": shard,
            "first_row": ahead,
            "part_key": output.part_key(shard),
            "tally": _shifted(first.tally, ahead),
        }
    )


def _shifted(tally: Tally, ahead: int) -> Tally:
    def moved(found: Any) -> Any:
        return found.model_copy(update={"row": found.row + ahead})

    failures = {
        code: failure.model_copy(update={"examples": tuple(map(moved, failure.examples))})
        for code, failure in tally.failures.items()
    }
    return tally.model_copy(
        update={
            "failures": failures,
            "worst": tuple(map(moved, tally.worst)),
            "samples": tuple(map(moved, tally.samples)),
        }
    )
