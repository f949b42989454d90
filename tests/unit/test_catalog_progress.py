"""What a run's progress counts, and how a person reads it."""

from dataclasses import asdict
from typing import Any

from catalog.results.row import ResultRow, RowStatus
from catalog.results.tally import Tally
from catalog.run.progress import Counts
from serve.commands.catalog_follow import words_on


def row(index: int, status: RowStatus) -> ResultRow:
    facts: dict[RowStatus, dict[str, Any]] = {
        RowStatus.OK: {"video_uri": "s3://b/v.mp4"},
        RowStatus.FAILED: {"error_code": "internal"},
        RowStatus.CANCELLED: {"error_code": "cancelled"},
    }
    return ResultRow(row=index, sku=None, title=None, status=status, echoed={}, **facts[status])


def words(counts: Counts) -> str:
    rest = {"rows_per_s": None, "eta_s": None, "waiting_for": None}
    return words_on(asdict(counts) | rest)


def test_what_was_finished_before_is_skipped_until_it_is_tried_again() -> None:
    counts = Counts.of(5, Tally(statuses={RowStatus.OK: 2, RowStatus.FAILED: 1}))
    assert words(counts) == "3 of 5: 2 videos, 1 failed, 3 skipped, 0 GPU-seconds"
    counts.take_back(row(2, RowStatus.FAILED))
    assert words(counts) == "2 of 5: 2 videos, 2 skipped, 0 GPU-seconds"
    for index, status in ((2, RowStatus.OK), (3, RowStatus.CANCELLED)):
        counts.add(row(index, status))
    assert words(counts) == "4 of 5: 3 videos, 1 cancelled, 2 skipped, 0 GPU-seconds"
