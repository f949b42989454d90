"""A part's rows into their tally, column by column."""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.results.histogram import Histogram
from catalog.results.row import STAGES, RowStatus
from catalog.results.tally import (
    EXAMPLES,
    Example,
    Failure,
    Shown,
    StageTime,
    Tally,
    TierUse,
    drawn_from,
    worst_of,
)

_TEXT = 300  # characters kept of a title or message


def tally_of(table: pa.Table) -> Tally:
    """`table` has the columns of ResultSchema."""
    ok = table.filter(pc.equal(table["status"], RowStatus.OK.value))
    shown = _shown(ok)
    return Tally(
        statuses={RowStatus(status): count for status, count in _counts(table["status"])},
        failures=_failures(table),
        stages=_stages(table),
        tiers=_tiers(table),
        downgrades=dict(_counts(pc.list_flatten(table["downgrades"]))),
        shared=ok.num_rows - ok["shared_with"].null_count,
        retried=_total(pc.greater(table["attempts"], 1)),
        video_bytes=_total(ok["bytes"]),
        video_seconds=float(_total(ok["seconds"])),
        scores=Histogram.of(video.score for video in shown if video.score is not None),
        worst=worst_of(shown),
        samples=drawn_from(shown),
        started_at=_unix(pc.min(table["started_at"])),
        finished_at=_unix(pc.max(table["finished_at"])),
    )


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    return [(pair["values"], pair["counts"]) for pair in pc.value_counts(column).to_pylist()]


def _total(column: pa.ChunkedArray) -> Any:
    return pc.sum(column, min_count=0).as_py()


def _unix(moment: pa.TimestampScalar) -> float | None:
    return None if moment.as_py() is None else moment.as_py().timestamp()


def _failures(table: pa.Table) -> dict[str, Failure]:
    failed = table.filter(pc.equal(table["status"], RowStatus.FAILED.value))
    found = {}
    for code, count in _counts(failed["error_code"]):
        first = failed.filter(pc.equal(failed["error_code"], code)).slice(0, EXAMPLES)
        columns = first.select(["row", "sku", "error_message"]).to_pylist()
        examples = (
            Example(row=row["row"], sku=_cut(row["sku"]), message=_cut(row["error_message"]))
            for row in columns
        )
        found[code] = Failure(count=count, examples=tuple(examples))
    return found


def _stages(table: pa.Table) -> dict[str, StageTime]:
    return {
        stage: StageTime(rows=len(column) - column.null_count, seconds=_total(column))
        for stage in ("queue", *STAGES, "other")
        if (column := table[f"t_{stage}"]).null_count < len(column)
    }


def _tiers(table: pa.Table) -> dict[str, TierUse]:
    own = pc.is_null(table["shared_with"])
    spent = pc.fill_null(pc.greater(table["gpu_seconds"], 0), False)  # on seeds not good enough
    at_work = table.filter(pc.and_(pc.is_valid(table["tier"]), pc.or_(own, spent)))
    found = {}
    for tier in pc.unique(at_work["tier"]).to_pylist():
        rows = at_work.filter(pc.equal(at_work["tier"], tier))
        unpriced = rows.filter(pc.is_null(rows["cost"]))
        made = rows.filter(pc.is_null(rows["shared_with"]))
        found[tier] = TierUse(
            videos=_total(pc.equal(made["status"], RowStatus.OK.value)),
            gpu_seconds=_total(rows["gpu_seconds"]),
            cost=_total(rows["cost"]),
            unpriced_seconds=_total(unpriced["gpu_seconds"]),
            peak_vram_bytes=pc.max(rows["peak_vram_bytes"]).as_py() or 0,
        )
    return found


def _shown(ok: pa.Table) -> list[Shown]:
    names = ["run_id", "row", "sku", "title", "video_uri", "poster_uri", "score"]
    return [
        Shown(
            row=row["row"],
            sku=_cut(row["sku"]),
            title=_cut(row["title"]),
            video_uri=row["video_uri"],
            poster_uri=row["poster_uri"],
            score=row["score"],
            lot=_lot(row["run_id"], row["row"]),
        )
        for row in ok.select(names).to_pylist()
    ]


def _lot(run_id: str, row: int) -> int:
    digest = hashlib.blake2b(f"{run_id}:{row}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")  # 48 bits: exact in any JSON reader


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _TEXT else text[: _TEXT - 1] + "…"
