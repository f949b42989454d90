"""Shards committed to a real S3 server, and the report that is made of them there."""

import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.report.errors_csv import write_errors
from catalog.report.publish import publish_report
from catalog.report.summary import summarise
from catalog.results.commit import (
    commit_shard,
    finished_shards,
    read_markers,
    read_standing,
    replace_shard,
    standing_marker,
    sweep_parts,
)
from catalog.results.errors import MarkerDamaged, PartDamaged, PartOfAnother
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow
from storage.errors import ObjectNotFound, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.sample_results import (
    BEGAN,
    FINGERPRINT,
    SCHEMA,
    Span,
    failed_row,
    ok_row,
    output_in,
    plan_of,
    rows_of,
)
from video.stills import poster

SPAN = Span(3, 300, 100)
REASON = 'says "no"\nand why'


@pytest.fixture
def output(s3: ObjectStoreConfig) -> RunOutput:
    return output_in(s3)


def keys(output: RunOutput) -> list[str]:
    return [found.key for found in output.objects.iter_objects("")]


def commit(output: RunOutput, span: Span = SPAN) -> ShardMarker:
    return commit_shard(output, FINGERPRINT, span, rows_of(span), SCHEMA)


def stored_rows(output: RunOutput, key: str) -> list[int]:
    rows: list[int] = pq.read_table(pa.BufferReader(output.objects.get(key)))["row"].to_pylist()
    return rows


def test_a_shard_is_one_part_and_one_marker(output: RunOutput) -> None:
    marker = commit(output)
    assert keys(output) == [
        "runs/autumn/_shards/00003.json",
        "runs/autumn/results/part-00003.parquet",
    ]
    assert stored_rows(output, marker.part_key) == list(SPAN.indices)
    assert marker.tally.statuses == {"ok": 90, "failed": 10}
    assert [*finished_shards(output)] == [3]
    assert list(read_markers(output, finished_shards(output).values())) == [marker]


@pytest.mark.parametrize("drawn", [0, 1, 50, 99])
def test_rows_that_raise_leave_nothing(output: RunOutput, drawn: int) -> None:
    def breaking() -> Iterator[ResultRow]:
        yield from list(rows_of(SPAN))[:drawn]
        raise ConnectionError("the service went away")

    with pytest.raises(ConnectionError):
        commit_shard(output, FINGERPRINT, SPAN, breaking(), SCHEMA)
    assert keys(output) == []


def test_too_few_rows_leave_nothing(output: RunOutput) -> None:
    with pytest.raises(PartDamaged):
        commit_shard(output, FINGERPRINT, SPAN, list(rows_of(SPAN))[:-1], SCHEMA)
    assert keys(output) == []


def test_a_driver_killed_while_rows_are_drawn_leaves_nothing(
    output: RunOutput, s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from catalog.results.commit import commit_shard
        from storage.object_store import ObjectStoreConfig, S3ObjectStore
        from tests.sample_results import FINGERPRINT, SCHEMA, Span, output_in, rows_of

        span = Span(0, 0, 5000)
        def rows():
            for row in rows_of(span):
                if row.row == 4500:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield row
        output = output_in(ObjectStoreConfig.model_validate_json(sys.stdin.read()))
        commit_shard(output, FINGERPRINT, span, rows(), SCHEMA)
        """)
    )
    given = s3.model_dump(mode="json") | {"secret_key": s3.secret_key.get_secret_value()}
    killed = subprocess.run(
        [sys.executable, "-c", script.read_text()],
        input=json.dumps(given),
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert keys(output) == []


def test_a_driver_that_comes_late_adopts_what_stands(output: RunOutput) -> None:
    first = commit(output)
    later = [replace(row, attempts=5) for row in rows_of(SPAN)]
    assert commit_shard(output, FINGERPRINT, SPAN, later, SCHEMA) == first
    assert len(keys(output)) == 2


def test_a_part_without_a_marker_is_adopted(output: RunOutput) -> None:
    first = commit(output)
    output.objects.delete(output.marker_key(3))  # its driver died between the two
    later = [replace(row, attempts=5) for row in rows_of(SPAN)]
    assert commit_shard(output, FINGERPRINT, SPAN, later, SCHEMA) == first
    assert [*finished_shards(output)] == [3]


def test_of_many_drivers_at_once_one_commits(output: RunOutput) -> None:
    drivers = 8
    start = Barrier(drivers)

    def drive(number: int) -> ShardMarker:
        rows = [replace(row, attempts=number) for row in rows_of(SPAN)]
        start.wait()
        return commit_shard(output, FINGERPRINT, SPAN, rows, SCHEMA)

    with ThreadPoolExecutor(drivers) as pool:
        markers = list(pool.map(drive, range(drivers)))
    assert len(keys(output)) == 2
    standing = standing_marker(output, 3)
    assert standing is not None
    assert markers == [standing] * drivers
    part = output.objects.get(standing.part_key)
    assert hashlib.sha256(part).hexdigest() == standing.sha256


def again(output: RunOutput, standing: ShardMarker, attempts: int) -> ShardMarker:
    """The shard's rows tried once more, by a driver that found `standing`."""
    rows = [replace(row, attempts=attempts) for row in rows_of(SPAN)]
    return replace_shard(output, FINGERPRINT, SPAN, standing, rows, SCHEMA, f"asking {attempts}")


def whole(output: RunOutput) -> list[int]:
    """Rows of all parts, as whoever reads the folder finds them."""
    parts = [key for key in keys(output) if "/results/" in key]
    return [row for key in parts for row in stored_rows(output, key)]


def test_a_round_takes_the_place_of_the_one_before_it(output: RunOutput) -> None:
    first = commit(output)
    second = again(output, first, 2)
    third = again(output, second, 3)
    assert standing_marker(output, 3) == third
    assert (third.round, third.submission) == (2, "asking 3")
    assert list(read_markers(output, finished_shards(output).values())) == [third]
    assert whole(output) == list(SPAN.indices)


def test_drivers_that_come_late_take_nothing_away(output: RunOutput) -> None:
    first = commit(output)
    second = again(output, first, 2)
    third = again(output, second, 3)
    assert again(output, first, 9) == third  # the parts of their rounds had gone,
    assert commit(output) == third  # and are gone again
    assert standing_marker(output, 3) == third
    assert whole(output) == list(SPAN.indices)


def test_of_many_drivers_that_try_a_shard_again_one_commits(output: RunOutput) -> None:
    first = commit(output)
    drivers = 8
    start = Barrier(drivers)

    def drive(number: int) -> ShardMarker:
        start.wait()
        return again(output, first, number)

    with ThreadPoolExecutor(drivers) as pool:
        markers = list(pool.map(drive, range(drivers)))
    standing = standing_marker(output, 3)
    assert standing is not None
    assert markers == [standing] * drivers
    assert hashlib.sha256(output.objects.get(standing.part_key)).hexdigest() == standing.sha256
    assert whole(output) == list(SPAN.indices)


@pytest.mark.parametrize("left", ["no marker", "the old part"])
def test_a_sweep_ends_what_a_driver_began_that_died_while_it_replaced_a_part(
    output: RunOutput, left: str
) -> None:
    first = commit(output)
    old = output.objects.get(first.part_key)
    second = again(output, first, 2)
    output.objects.put(first.part_key, old, "application/vnd.apache.parquet")
    if left == "no marker":
        output.objects.delete(output.marker_key(3, 1))
    sweep_parts(output, FINGERPRINT)
    assert standing_marker(output, 3) == second
    assert whole(output) == list(SPAN.indices)


def test_a_sweep_beside_a_driver_at_work_loses_no_shard(
    output: RunOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(output)
    write = S3ObjectStore.put_if_absent

    def swept_before_its_marker(store: S3ObjectStore, key: str, data: bytes, kind: str) -> bool:
        if key == output.marker_key(3, 1):
            monkeypatch.undo()
            sweep_parts(output, FINGERPRINT)  # as another driver's start does
        return write(store, key, data, kind)

    monkeypatch.setattr(S3ObjectStore, "put_if_absent", swept_before_its_marker)
    second = again(output, first, 2)
    assert standing_marker(output, 3) == second
    assert whole(output) == list(SPAN.indices)


def test_errors_are_told_of_the_part_that_stands_whatever_the_summary_saw(
    output: RunOutput, tmp_path: Path
) -> None:
    """Another driver replaces parts in between."""
    spans = [Span(0, 0, 10), Span(1, 10, 10)]
    first, second = (commit(output, span) for span in spans)
    before = summarise(output, plan_of(20, 2))
    assert before.faulty
    mended = [ok_row(row) for row in spans[0].indices]
    replace_shard(output, FINGERPRINT, spans[0], first, mended, SCHEMA, "again")
    still = [replace(row, attempts=7) for row in rows_of(spans[1])]
    replace_shard(output, FINGERPRINT, spans[1], second, still, SCHEMA, "again")
    assert write_errors(output, before, tmp_path / "errors.csv") == 1
    with (tmp_path / "errors.csv").open(encoding="utf-8-sig", newline="") as file:
        header, line = csv.reader(file)
    assert (header[0], line[header.index("row")]) == ("row", "19")
    assert line[header.index("attempts")] == "7"


def test_a_part_that_is_gone_and_was_not_replaced_is_missed(output: RunOutput) -> None:
    marker = commit(output)
    output.objects.delete(marker.part_key)
    with pytest.raises(ObjectNotFound, match="part-00003"):
        read_standing(output, marker)


def test_anothers_part_is_not_adopted(output: RunOutput, s3: ObjectStoreConfig) -> None:
    commit(output)
    output.objects.delete(output.marker_key(3))
    with pytest.raises(PartOfAnother, match="crun_1"):
        commit(output_in(s3, "crun_2"))
    with pytest.raises(PartOfAnother, match="feed"):
        commit_shard(output, "sha256:other", SPAN, rows_of(SPAN), SCHEMA)
    assert not finished_shards(output)


def test_a_damaged_part_is_not_adopted(output: RunOutput) -> None:
    key = output.part_key(3)
    output.objects.put(key, b"PAR1 no more", "application/vnd.apache.parquet")
    with pytest.raises(PartDamaged, match="part-00003"):
        commit(output)
    assert not finished_shards(output)


def test_a_store_that_is_away_can_be_committed_to_later(s3: ObjectStoreConfig) -> None:
    away = s3.model_copy(update={"endpoint": "127.0.0.1:9", "retries": 0})
    with pytest.raises(StoreUnavailable):
        commit(output_in(away))
    commit(output_in(s3))
    assert [*finished_shards(output_in(s3))] == [3]


def test_shards_are_found_past_a_page_of_the_listing(output: RunOutput) -> None:
    body = commit(output, Span(0, 0, 10)).to_json()
    with ThreadPoolExecutor(16) as pool:
        list(
            pool.map(
                lambda shard: output.objects.put(output.marker_key(shard), body, "text/plain"),
                range(1500),
            )
        )
    finished = finished_shards(output)
    assert [*finished] == [*range(1500)]
    markers = read_markers(output, finished.values())
    assert sum(marker.tally.rows for marker in markers) == 15_000


def test_a_report_is_published_beside_the_results(output: RunOutput) -> None:
    frame = np.full((64, 64, 3), 120, np.uint8)
    output.objects.put(output.key("videos/0.webp"), poster(frame), "image/webp")
    output.objects.put(output.key("videos/1.webp"), b"no picture", "image/webp")
    uri = f"{output.uri}/videos"
    rows = [
        ok_row(0, video_uri=f"{uri}/0.mp4", poster_uri=f"{uri}/0.webp"),
        ok_row(1, video_uri=f"{uri}/1.mp4", poster_uri=f"{uri}/1.webp"),
        ok_row(2, video_uri=f"{uri}/2.mp4", poster_uri=f"{uri}/2.webp"),
        failed_row(3, sku="=cmd|' /C calc'!A0", title="陶器, 花瓶", error_message=REASON),
    ]
    commit_shard(output, FINGERPRINT, Span(0, 0, 4), rows, SCHEMA)
    commit_shard(output, FINGERPRINT, Span(1, 4, 1), [ok_row(4)], SCHEMA)
    commit_shard(output, FINGERPRINT, Span(2, 5, 1), [failed_row(5, "worker_lost")], SCHEMA)

    summary = publish_report(output, plan_of(10, 4), BEGAN + 60)

    assert (summary.status, summary.percent) == ("in_progress", 60)
    page = output.objects.get(output.key("report.html")).decode()
    assert page.count("data:image/webp;base64,") == 2  # once a sample, once among the lowest
    assert 'href="./videos/2.mp4"' in page
    run = json.loads(output.objects.get(output.key("run.json")))
    assert run["failures"] == {"image_too_small": 1, "worker_lost": 1}

    data = output.objects.get(output.key("errors.csv"))
    assert data.startswith(b"\xef\xbb\xbf")
    first, second = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert first["sku"] == "'=cmd|' /C calc'!A0"
    assert first["title"] == "陶器, 花瓶"
    assert first["error_message"] == REASON
    assert first["brand"] == "Nord"
    assert first["in_status"] == "live"
    assert (second["row"], second["error_code"]) == ("5", "worker_lost")
    assert second["what_to_do"]


def test_a_report_can_be_written_again_as_the_run_goes_on(output: RunOutput) -> None:
    plan = plan_of(20, 2)
    before = publish_report(output, plan, BEGAN)
    assert (before.percent, before.tally.rows) == (0, 0)
    for span in (Span(0, 0, 10), Span(1, 10, 10)):
        commit(output, span)
    after = publish_report(output, plan, BEGAN + 1)
    assert after.complete
    run = json.loads(output.objects.get(output.key("run.json")))
    assert run["rows"]["failed"] == 2
    table = csv.reader(
        io.StringIO(output.objects.get(output.key("errors.csv")).decode("utf-8-sig"), newline="")
    )
    assert [line[0] for line in table] == ["row", "9", "19"]


def test_a_marker_that_is_not_the_runs_is_reported(
    output: RunOutput, s3: ObjectStoreConfig
) -> None:
    commit(output, Span(0, 0, 10))
    with pytest.raises(PartOfAnother):
        publish_report(output_in(s3, "crun_2"), plan_of(10, 1), BEGAN)
    output.objects.put(output.marker_key(0), b"{}", "application/json")
    with pytest.raises(MarkerDamaged, match="00000"):
        publish_report(output, plan_of(10, 1), BEGAN)
