"""Every value is checked by its column; a row that cannot be used says which, and why."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.manifest import BadRow, ProblemCode, Row, RowProblem, Shard, check, open_source
from catalog.manifest import duplicates as duplicates_of
from catalog.manifest.contents import CHUNK_ROWS
from catalog.manifest.duplicates import FirstRows, SkuHashes
from catalog.manifest.write import write
from tests.manifests import all_rows, no_bucket, written

GOOD: dict[str, Any] = {"sku": "A", "image_uri": "s3://photos/a.jpg"}


def one_row(folder: Path, **values: Any) -> Row | BadRow:
    path = folder / "m.jsonl"
    filler = {"sku": "filler", "image_uri": "f.jpg"}
    path.write_text(f"{json.dumps(filler)}\n{json.dumps(GOOD | values)}\n", encoding="utf-8")
    return all_rows(written(path))[1]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("sku", None, ProblemCode.MISSING_SKU),
        ("sku", "", ProblemCode.MISSING_SKU),
        ("sku", "\u3000 ", ProblemCode.MISSING_SKU),
        ("sku", "x" * 201, ProblemCode.BAD_TEXT),
        ("sku", "a\0b", ProblemCode.BAD_TEXT),
        ("image_uri", None, ProblemCode.MISSING_IMAGE),
        ("image_uri", " ", ProblemCode.MISSING_IMAGE),
        ("image_uri", "http://shop.example/a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "s3://photos", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "s3:///a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "file://host/a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "data:image/png;base64,AA", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "x" * 2049, ProblemCode.BAD_IMAGE_URI),
        ("title", "x" * 501, ProblemCode.BAD_TEXT),
        ("prompt", True, ProblemCode.BAD_TEXT),
        ("seconds", "two", ProblemCode.BAD_SECONDS),
        ("seconds", 0, ProblemCode.BAD_SECONDS),
        ("seconds", -1, ProblemCode.BAD_SECONDS),
        ("seconds", 1000, ProblemCode.BAD_SECONDS),
        ("seconds", "2.5\n", ProblemCode.BAD_SECONDS),
        ("seed", "abc", ProblemCode.BAD_SEED),
        ("seed", -1, ProblemCode.BAD_SEED),
        ("seed", 1.5, ProblemCode.BAD_SEED),
        ("seed", 2**63, ProblemCode.BAD_SEED),
        ("seed", 10**19, ProblemCode.BAD_SEED),
        ("seed", "٣", ProblemCode.BAD_SEED),
        ("n", 0, ProblemCode.BAD_N),
        ("n", 101, ProblemCode.BAD_N),
        ("camera_motion", "fly", ProblemCode.BAD_CAMERA_MOTION),
        ("motion_strength", 0, ProblemCode.BAD_MOTION_STRENGTH),
        ("motion_strength", "1.5", ProblemCode.BAD_MOTION_STRENGTH),
        ("motion_strength", ".", ProblemCode.BAD_MOTION_STRENGTH),
        ("priority", "urgent", ProblemCode.BAD_PRIORITY),
        ("priority", "interactive", ProblemCode.BAD_PRIORITY),
        ("image_uri", "s3://my photos/a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "s3://[x/a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("image_uri", "s3://ab/a.jpg", ProblemCode.BAD_IMAGE_URI),
        ("metadata_json", "{", ProblemCode.BAD_METADATA),
        ("metadata_json", '{"a": 1}', ProblemCode.BAD_METADATA),
        ("metadata_json", json.dumps({str(i): "" for i in range(17)}), ProblemCode.BAD_METADATA),
    ],
)
def test_a_value_that_its_column_does_not_take(
    tmp_path: Path, column: str, value: Any, code: ProblemCode
) -> None:
    row = one_row(tmp_path, **{column: value})
    assert isinstance(row, BadRow)
    assert (row.problem.code, row.problem.column, row.problem.line) == (code, column, 2)
    assert row.sku == (None if column == "sku" else "A")


@pytest.mark.parametrize(
    ("column", "value", "read"),
    [
        ("seconds", 2, "2"),
        ("seconds", "0.5", "0.5"),
        ("seed", 0, 0),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("seed", "007", 7),
        ("seed", "", None),
        ("n", "16", 16),
        ("priority", "batch", "batch"),
        ("title", "x" * 500, "x" * 500),
        ("title", "机" * 500, "机" * 500),
    ],
)
def test_a_value_that_its_column_takes(
    tmp_path: Path, column: str, value: Any, read: object
) -> None:
    row = one_row(tmp_path, **{column: value})
    assert isinstance(row, Row)
    assert getattr(row, column) == read


def test_metadata_may_be_an_object_in_json(tmp_path: Path) -> None:
    row = one_row(tmp_path, metadata_json={"season": "夏"})
    assert isinstance(row, Row)
    assert row.metadata == {"season": "夏"}


def test_a_problem_says_row_line_column_and_value(tmp_path: Path) -> None:
    row = one_row(tmp_path, seed="abc" * 30, seconds="two")
    assert isinstance(row, BadRow)
    assert str(row) == "row 1, line 2, column seconds: 'two' is not " + (
        "a number of seconds from 0.001 to 999.999"
    )
    assert str(RowProblem(ProblemCode.BROKEN_ROW, None, "is no row", None)) == "is no row"


def test_a_long_value_is_shown_shortened(tmp_path: Path) -> None:
    row = one_row(tmp_path, seed="abc" * 30)
    assert isinstance(row, BadRow)
    assert row.problem.message == f"'{'abc' * 20}…' is not a whole number from 0 to 2^63-1"


@pytest.mark.parametrize(
    ("image_uri", "resolved"),
    [
        ("s3://photos/a%20b.jpg", "s3://photos/a%20b.jpg"),
        ("s3://photos/a?b #1.jpg", "s3://photos/a?b #1.jpg"),
        ("https://shop.example/a.jpg", "https://shop.example/a.jpg"),
        ("/data/a 10:30.jpg", "/data/a 10:30.jpg"),
        ("file:///data/a%20b.jpg", "/data/a b.jpg"),
        ("photos/a.jpg", "{folder}/photos/a.jpg"),
    ],
)
def test_images_are_found_beside_the_manifest(
    tmp_path: Path, image_uri: str, resolved: str
) -> None:
    row = one_row(tmp_path, image_uri=image_uri)
    assert isinstance(row, Row)
    assert row.image_uri == resolved.format(folder=tmp_path)


def test_shards_hold_all_rows_in_order(tmp_path: Path) -> None:
    rows = 32_773
    names = [f"sku-{i}" for i in range(rows)]
    pq.write_table(pa.table({"sku": names, "image_uri": names}), tmp_path / "m.parquet")
    manifest = written(tmp_path / "m.parquet", shard_rows=10_000)
    assert manifest.shards == (
        Shard(0, 0, 10_000),
        Shard(1, 10_000, 10_000),
        Shard(2, 20_000, 10_000),
        Shard(3, 30_000, rows - 30_000),
    )
    assert [row.sku for row in all_rows(manifest)] == names
    assert [row.index for row in manifest.read(manifest.shards[3])] == list(range(30_000, rows))


def test_the_second_and_later_rows_of_a_sku_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    far = "".join(f"x{i},a.jpg,\n" for i in range(CHUNK_ROWS))
    path.write_text(
        f"sku,image_uri,seed\nA,a.jpg,bad\nB,b.jpg,\nA,c.jpg,\n{far}B,d.jpg,\nB,e.jpg,x\n"
    )
    manifest = written(path)
    problems = {row.index: row.problem for row in all_rows(manifest) if isinstance(row, BadRow)}
    last = CHUNK_ROWS + 4
    assert {index: problem.code for index, problem in problems.items()} == {
        0: ProblemCode.BAD_SEED,
        2: ProblemCode.DUPLICATE_SKU,
        last - 1: ProblemCode.DUPLICATE_SKU,
        last: ProblemCode.BAD_SEED,
    }
    assert problems[2].message == "'A' is the sku of row 0 already"
    assert manifest.problems == {ProblemCode.BAD_SEED: 2, ProblemCode.DUPLICATE_SKU: 2}


def test_equal_hashes_alone_are_no_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates_of, "hash", lambda sku: len(sku or ""), raising=False)
    hashes = SkuHashes()
    hashes.add(["aa", "bb", None, "c", "aa"])
    repeated = hashes.repeated()
    assert repeated.tolist() == [2]
    first_rows = FirstRows(tmp_path / "first.sqlite", repeated)
    assert first_rows.later_rows(["aa", "bb", None], 0) == {}
    assert first_rows.later_rows(["c", "aa"], 3) == {1: 0}
    first_rows.close()


def test_no_hash_is_repeated_among_none() -> None:
    assert SkuHashes().repeated().dtype == np.int64
    assert len(SkuHashes().repeated()) == 0


def test_progress_is_told_by_rows_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("sku,image_uri\n" + "".join(f"{i},a\n" for i in range(CHUNK_ROWS + 1)))
    told: list[int] = []
    write(open_source(str(path), no_bucket), tmp_path, 1000, told.append)
    assert told == [CHUNK_ROWS, CHUNK_ROWS + 1]


def test_checking_tells_the_first_bad_rows_and_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("sku,image_uri,n\n" + "".join(f"{i},a,{i % 2}\n" for i in range(50_000)))
    temp = tmp_path / "temp"
    temp.mkdir()
    found = check(open_source(str(path), no_bucket), temp)
    assert (found.rows, found.problems) == (50_000, {ProblemCode.BAD_N: 25_000})
    assert [row.index for row in found.first_bad_rows] == list(range(0, 40, 2))
    assert list(temp.iterdir()) == []
