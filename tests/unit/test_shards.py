"""Result rows as a part, and what a marker keeps of it."""

from dataclasses import fields
from datetime import UTC, datetime
from functools import reduce
from operator import add

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.results.errors import MarkerDamaged, PartDamaged, PartOfAnother
from catalog.results.histogram import Histogram
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.part import marker_of, read_part
from catalog.results.row import ResultRow, ResultSchema, RowStatus
from catalog.results.tally import EXAMPLES, SAMPLES, WORST, Tally
from storage.object_store import ObjectStoreConfig
from tests.sample_results import (
    BEGAN,
    FINGERPRINT,
    SCHEMA,
    Span,
    failed_row,
    ok_row,
    output_in,
    part_of,
    rows_of,
    table_of,
    tally,
)
from video.quality import Quality


@pytest.fixture
def output() -> RunOutput:
    """Names keys; nothing here speaks to a store."""
    return output_in(
        ObjectStoreConfig(endpoint="localhost:1", bucket="shop", access_key="a", secret_key="b")
    )


def test_a_part_has_every_column_of_a_row_and_echoes_the_manifests() -> None:
    video = table_of(ok_row(7, downgrades=("decode_chunk",))).to_pylist()[0]
    assert video["run_id"] == "crun_1"
    assert video["row"] == 7
    assert video["status"] == "ok"
    assert video["bytes"] == 1000
    assert video["t_queue"] == 10.0
    assert video["t_denoising"] == 3.0
    assert video["t_interpolation"] is None
    assert video["downgrades"] == ["decode_chunk"]
    assert video["started_at"] == datetime.fromtimestamp(BEGAN + 7, UTC)
    assert video["brand"] == "Nord"


def test_an_echoed_column_gives_way_where_its_name_is_taken() -> None:
    assert table_of(ok_row(0)).to_pylist()[0]["in_status"] == "live"
    text = pa.string()
    both = ResultSchema([pa.field("status", text), pa.field("in_status", text)])
    assert both.arrow.names[-2:] == ["in_in_status", "in_status"]


def test_a_column_that_was_not_declared_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        part_of(ok_row(0, echoed={"colour": "red"}))


def test_seconds_of_a_stage_that_is_not_known_are_kept_apart() -> None:
    times = {"denoising": 3.0, "upscaling": 2.0, "grading": 1.0}
    assert tally(ok_row(0, timings=times)).stages["other"].seconds == 3.0


@pytest.mark.parametrize(
    "contradiction",
    [
        {"video_uri": None},
        {"error_code": "internal"},
        {"score": 1.01},
        {"score": float("nan")},
        {"status": RowStatus.FAILED, "error_code": "internal"},
        {"status": RowStatus.FAILED, "video_uri": None},
    ],
)
def test_a_row_that_contradicts_itself_is_refused(contradiction: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="row 3"):
        ok_row(3, **contradiction)


def test_a_marker_counts_what_its_part_holds(output: RunOutput) -> None:
    rows = [
        ok_row(20, score=0.2, attempts=2, downgrades=("decode_chunk",)),
        ok_row(21, shared_with="video_20", gpu_seconds=0.0, timings={}, queue_s=None),
        failed_row(22),
        failed_row(23, "worker_lost", tier="t4", gpu_seconds=5.0),
        ResultRow(row=24, status=RowStatus.CANCELLED, sku="x"),
        ok_row(25, tier="t4", gpu_seconds=7.0, cost=None, score=None),
    ]
    data = part_of(*rows)
    marker = marker_of(output, FINGERPRINT, Span(4, 20, 6), data)
    assert marker.part_key == "runs/autumn/results/part-00004.parquet"
    assert marker.part_bytes == len(data)
    counted = marker.tally
    assert counted.statuses == {"ok": 3, "failed": 2, "cancelled": 1}
    assert {code: failure.count for code, failure in counted.failures.items()} == {
        "image_too_small": 1,
        "worker_lost": 1,
    }
    assert counted.shared == 1
    assert counted.retried == 1
    assert counted.downgrades == {"decode_chunk": 1}
    assert (counted.video_bytes, counted.video_seconds) == (3000, 6.0)
    assert counted.stages["denoising"].rows == 2
    assert counted.tiers["a100"].model_dump() == {
        "videos": 1,  # the shared one took none of its time
        "gpu_seconds": 3.0,
        "cost": 0.01,
        "unpriced_seconds": 0.0,
        "peak_vram_bytes": 12_000_000_000,
    }
    assert counted.tiers["t4"].gpu_seconds == 12.0
    assert counted.tiers["t4"].unpriced_seconds == 12.0
    assert counted.scores.total == 2
    assert [video.row for video in counted.worst] == [20, 21]
    assert (counted.started_at, counted.finished_at) == (BEGAN + 20, BEGAN + 29)
    assert ShardMarker.read("k", marker.to_json()) == marker


def test_gpu_time_of_seeds_that_were_passed_over_counts_where_the_video_is_anothers() -> None:
    tried = ok_row(0, shared_with="video_x", gpu_seconds=3.0, cost=0.01)
    assert tally(tried).tiers["a100"].model_dump() == {
        "videos": 0,
        "gpu_seconds": 3.0,
        "cost": 0.01,
        "unpriced_seconds": 0.0,
        "peak_vram_bytes": 12_000_000_000,
    }
    assert not tally(ok_row(0, shared_with="video_x", gpu_seconds=0.0, cost=0.0)).tiers


def test_a_row_of_a_part_without_the_newest_columns_is_restored() -> None:
    row = ok_row(0, tracked=0.5)
    record = table_of(row).to_pylist()[0]
    assert SCHEMA.restored(record) == row
    del record["tracked"]
    assert SCHEMA.restored(record).tracked is None


def test_every_measure_of_a_video_is_a_column() -> None:
    assert {field.name for field in fields(Quality)} <= {*SCHEMA.arrow.names}


def test_a_marker_stays_small_however_large_its_shard(output: RunOutput) -> None:
    rows = [
        ok_row(row, title="長" * 10_000) if row % 2 else failed_row(row, error_message="x" * 10_000)
        for row in range(3000)
    ]
    marker = marker_of(output, FINGERPRINT, Span(0, 0, 3000), part_of(*rows))
    assert len(marker.tally.samples) == SAMPLES
    assert len(marker.tally.worst) == WORST
    assert len(marker.tally.failures["image_too_small"].examples) == EXAMPLES
    assert len(marker.to_json()) < 60_000


@pytest.mark.parametrize("span", [Span(0, 0, 19), Span(0, 0, 21), Span(0, 1, 20)])
def test_a_part_must_hold_the_rows_of_its_shard(output: RunOutput, span: Span) -> None:
    data = part_of(*rows_of(Span(0, 0, 20)))
    with pytest.raises(PartDamaged, match="part-00000"):
        marker_of(output, FINGERPRINT, span, data)


def test_rows_twice_or_out_of_order_are_refused(output: RunOutput) -> None:
    for indices in ([0, 0, 1], [1, 0, 2]):
        with pytest.raises(PartDamaged):
            marker_of(output, FINGERPRINT, Span(0, 0, 3), part_of(*map(ok_row, indices)))


def test_a_part_made_from_another_manifest_is_refused(output: RunOutput) -> None:
    with pytest.raises(PartOfAnother, match="feed"):
        marker_of(output, "sha256:other", Span(0, 0, 1), part_of(ok_row(0)))


def test_a_part_that_was_cut_short_is_refused() -> None:
    with pytest.raises(PartDamaged, match="the-key"):
        read_part("the-key", part_of(ok_row(0))[:-20])


@pytest.mark.parametrize("data", [b"", b"{", b'{"shard": 1}', b"\xff"])
def test_what_is_no_marker_is_refused(data: bytes) -> None:
    with pytest.raises(MarkerDamaged, match="_shards/1"):
        ShardMarker.read("_shards/1", data)


def test_a_marker_of_a_newer_version_is_read(output: RunOutput) -> None:
    marker = marker_of(output, FINGERPRINT, Span(0, 0, 1), part_of(ok_row(0)))
    newer = marker.to_json().replace(b'"tally":{', b'"colour":"red","tally":{"depth":1,')
    assert ShardMarker.read("k", newer) == marker


_ROWS = st.lists(
    st.builds(
        lambda kind, score, seconds: (kind, score, seconds),
        st.sampled_from(["ok", "ok", "shared", "failed", "lost", "cancelled"]),
        st.none() | st.integers(0, 64).map(lambda n: n / 64),
        st.integers(0, 100).map(float),  # whole: sums of floats depend on their order
    ),
    min_size=1,
    max_size=60,
)


def _row(index: int, kind: str, score: float | None, seconds: float) -> ResultRow:
    if kind in ("ok", "shared"):
        shared = "video_x" if kind == "shared" else None
        times = {"denoising": seconds}
        return ok_row(
            index,
            score=score,
            timings=times,
            gpu_seconds=seconds,
            shared_with=shared,
            cost=seconds,
            queue_s=seconds,
        )
    if kind == "cancelled":
        return ResultRow(row=index, status=RowStatus.CANCELLED)
    return failed_row(index, kind, tier="t4", gpu_seconds=seconds)


@given(_ROWS, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_tallies_of_shards_add_up_to_that_of_the_whole(
    kinds: list[tuple[str, float | None, float]], per_shard: int
) -> None:
    rows = [_row(index, *kind) for index, kind in enumerate(kinds)]
    shards = [rows[start : start + per_shard] for start in range(0, len(rows), per_shard)]
    tallies = [tally(*shard) for shard in shards]
    whole = tally(*rows)
    assert reduce(add, tallies, Tally()) == whole
    assert reduce(add, reversed(tallies), Tally()) == whole


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_right_to_the_width_of_a_bin(scores: list[float], share: float) -> None:
    quantile = Histogram.of(scores).quantile(share)
    assert quantile is not None
    below = sum(score < quantile - 0.02 for score in scores)
    not_above = sum(score <= quantile + 0.02 for score in scores)
    assert below <= share * len(scores) + 1e-9
    assert not_above >= share * len(scores) - 1e-9


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("s3://shop/runs/autumn/videos/a b#1.mp4", "./videos/a%20b%231.mp4"),
        ("s3://shop/runs/autumn/javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("s3://shop/runs/autumn/../other/a.mp4", None),
        ("s3://shop/runs/autumn-2/a.mp4", None),
        ("javascript:alert(1)", None),
        ("https://elsewhere.example/a.mp4", None),
    ],
)
def test_links_lead_into_the_runs_folder_only(
    output: RunOutput, uri: str, link: str | None
) -> None:
    assert output.link(uri) == link


@pytest.mark.parametrize("prefix", ["", "/", "a/", "/a"])
def test_an_output_needs_a_folder_of_its_own(output: RunOutput, prefix: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        RunOutput(output.objects, "shop", prefix, "crun_1")


def test_the_schema_is_the_same_for_every_part() -> None:
    one, other = table_of(ok_row(0)), table_of(failed_row(1))
    assert one.schema.equals(other.schema)
    assert one.schema.equals(SCHEMA.arrow)
