"""Every format is read as the same rows; what is broken in one costs that row only."""

import csv
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ManifestNotFound, ManifestRefused
from catalog.manifest import BadRow, ProblemCode, Row, open_source
from catalog.manifest.lines import MAX_LINE_BYTES
from tests.manifests import all_rows, no_bucket, said, written

FULL: dict[str, Any] = {
    "sku": "00123",
    "image_uri": "s3://photos/a b.jpg",
    "category": "watch",
    "title": "机械手表, 41 mm",
    "prompt": 'a watch, "slowly" turning\nsoft light',
    "negative_prompt": "blurry",
    "preset": "high",
    "seconds": "2.5",
    "seed": 2**63 - 1,
    "n": 4,
    "camera_motion": "orbit_left",
    "motion_strength": ".25",
    "priority": "batch",
    "metadata_json": '{"season": "SS27"}',
    "colour": "blue",
}
FULL_ROW = Row(
    index=0,
    **{name: FULL[name] for name in FULL if name not in ("metadata_json", "colour")},
    metadata={"season": "SS27"},
    extra={"colour": "blue"},
)


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [(as_csv, "m.csv"), (as_json_lines, "m.jsonl"), (as_parquet, "m.parquet")],
)
def test_every_format_gives_the_same_row(tmp_path: Path, write: Any, name: str) -> None:
    manifest = written(write(tmp_path / name, [FULL]))
    assert all_rows(manifest) == [FULL_ROW]
    assert manifest.columns == tuple(name for name in FULL if name != "colour")
    assert manifest.extra_fields == (pa.field("colour", pa.string()),)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_text_may_be_gzipped(tmp_path: Path, name: str) -> None:
    write = as_csv if name == "m.csv" else as_json_lines
    data = write(tmp_path / name, [FULL]).read_bytes()
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(data))
    assert all_rows(written(packed)) == [FULL_ROW]


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    rows = "".join(f"{i},s3://b/{i * 7919 % 10007}\n" for i in range(20_000))
    path.write_bytes(gzip.compress(f"sku,image_uri\n{rows}".encode())[:-1000])
    with pytest.raises(ManifestRefused, match="damaged gzip"):
        written(path)
    path = tmp_path / "plain.csv.gz"
    path.write_text("sku,image_uri\n")
    with pytest.raises(ManifestRefused, match="damaged gzip"):
        written(path)


def test_csv_takes_mark_crlf_quotes_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(
        b'\xef\xbb\xbfsku,image_uri,title\r\nA,a.jpg,"one ""quoted""\r\nline"\r\n\r\nB,b.jpg,\r\n'
    )
    first, second = all_rows(written(path))
    assert isinstance(first, Row)
    assert first.title == 'one "quoted"\r\nline'
    assert isinstance(second, Row)
    assert second.title is None


def test_broken_csv_rows_are_named_by_line_and_the_others_stand(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(
        b"sku,image_uri\n"
        b"A,a.jpg\n"
        b"B,b.jpg,more\n"
        b"C\n"
        b'"D"x,d.jpg\n'
        b"E\xff,e.jpg\n"
        b"F,f.jpg\n"
        b'G,"g.jpg\n'
        b"H,h.jpg\n"
    )
    manifest = written(path)
    rows = all_rows(manifest)
    assert [row.index for row in rows if isinstance(row, Row)] == [0, 5]
    assert said(rows) == [
        "row 1, line 3: has 3 cells where the header has 2",
        "row 2, line 4: has 1 cells where the header has 2",
        "row 3, line 5: ',' expected after '\"'",
        "row 4, line 6: is not UTF-8",
        "row 6, line 8: unexpected end of data (lines 8 to 9 were read as one row)",
    ]
    assert manifest.problems == {ProblemCode.BROKEN_ROW: 4, ProblemCode.BAD_ENCODING: 1}


def test_broken_json_lines_are_named_and_the_others_stand(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"sku": "A", "image_uri": "a.jpg"}\n'
        b"   \n"
        b'{"sku": "B", \n'
        b"[1]\n"
        b'{"sku": "C\xff", "image_uri": "c.jpg"}\n'
        b'{"sku": 7, "image_uri": "d.jpg", "seed": 5.0, "size": {"cm": [1, 2]}, "new": true}\n'
        b'{"sku": "E", "image_uri": "e.jpg", "title": ["x"], "gone": null}'
    )
    manifest = written(path)
    rows = all_rows(manifest)
    broken = [row for row in rows if isinstance(row, BadRow)]
    assert [(row.index, row.problem.line, row.problem.code) for row in broken] == [
        (1, 3, ProblemCode.BROKEN_ROW),
        (2, 4, ProblemCode.BROKEN_ROW),
        (3, 5, ProblemCode.BAD_ENCODING),
        (5, 7, ProblemCode.BAD_TEXT),
    ]
    assert "not a JSON list" in str(broken[-1])
    number = rows[4]
    assert isinstance(number, Row)
    assert (number.sku, number.seed) == ("7", 5)
    assert number.extra == {"size": '{"cm":[1,2]}', "new": "true"}
    assert [column.name for column in manifest.extra_fields] == ["size", "new"]


def test_parquet_keeps_the_types_of_unknown_columns(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    table = pa.table(
        {
            "sku": pa.array(["A", "B"]).dictionary_encode(),
            "image_uri": pa.array(["a.jpg", "b.jpg"], pa.large_string()),
            "seed": pa.array([7.0, None]),  # as pandas writes whole numbers with gaps
            "seconds": pa.array([2, 3]),
            "price": pa.array([9.5, None]),
            "tags": pa.array([["x", "y"], []]),
            "since": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "brand": pa.array(["Q", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    first, second = all_rows(written(tmp_path / "m.parquet"))
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (first.seed, first.seconds, second.seed) == (7, "2", None)
    assert first.extra == {"price": 9.5, "tags": ["x", "y"], "since": moment, "brand": "Q"}


def test_parquet_text_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    def lying(*values: bytes) -> pa.Array:
        return pa.array(values, pa.binary()).view(pa.string())

    table = pa.table({"sku": lying(b"A", b"\xff", b"C"), "image_uri": lying(b"a", b"b", b"c")})
    pq.write_table(table.append_column("brand", lying(b"x", b"y", b"\xfe")), tmp_path / "m.parquet")
    rows = all_rows(written(tmp_path / "m.parquet"))
    assert said(rows) == ["row 1, column sku: is not UTF-8", "row 2, column brand: is not UTF-8"]


def test_a_truncated_or_mistyped_parquet_is_refused(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "m.parquet", [FULL])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestRefused, match="not readable as Parquet"):
        written(path)
    wrong = {"sku": True, "image_uri": "a.jpg", "title": ["x"]}
    path = as_parquet(tmp_path / "wrong.parquet", [wrong])
    with pytest.raises(ManifestRefused) as refused:
        written(path)
    assert refused.value.problems == (
        "column 'sku' is bool, not text or a number",
        "column 'title' is list<element: string>, not text or a number",
    )


def test_a_parquet_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    skus = [str(i) for i in range(50_000)]
    pq.write_table(pa.table({"sku": skus, "image_uri": skus}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(ManifestRefused, match="not readable as Parquet"):
        written(path)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("sku,title", "column 'image_uri' is missing"),
        ("SKU,image_uri", "column 'sku' is missing ('SKU' must be written so)"),
        ("sku;image_uri", "there are ['sku;image_uri']"),
        ("sku,image_uri,sku", "column 'sku' comes twice"),
        ("sku,image_uri,", "column 3 has no name"),
        ("sku,image_uri,destination", "column 'destination' is not built yet"),
        ("sku,image_uri,end_image_uri", "column 'end_image_uri' is not built yet"),
        ("sku,image_uri,_problem", "column '_problem' is taken"),
        ("", "the file is empty"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, header: str, problem: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(header)
    with pytest.raises(ManifestRefused) as refused:
        written(path)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"sku": "A"}]', "begins an array"),
        ('{"sku": "A", "image": "a.jpg"}', "no line has a member 'image_uri'"),
        ('{"sku": "A", "image_uri": "a", "destination": "x"}', "'destination' is not built yet"),
        ('{"sku": "A", "image_uri": "a", "": "x"}', "a member has no name"),
        (json.dumps({str(i): 1 for i in range(1001)}), "more than 1000 unknown members"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(ManifestRefused, match=problem):
        written(path)


def test_utf16_and_endless_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("sku,image_uri\n", encoding="utf-16")
    with pytest.raises(ManifestRefused, match="UTF-16"):
        written(path)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"x" * (MAX_LINE_BYTES + 1))
    with pytest.raises(ManifestRefused, match="longer than"):
        written(path)


@pytest.mark.parametrize("name", ["m.xlsx", "m.parquet.gz", "manifest"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ManifestRefused, match=r"\.parquet"):
        open_source(str(tmp_path / name), no_bucket)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ManifestNotFound):
        open_source(str(tmp_path / "m.csv"), no_bucket)
    with pytest.raises(ManifestRefused, match="only s3://"):
        open_source("https://example.com/m.csv", no_bucket)


def test_a_folder_of_images_is_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "notes.txt", "more/c.webp", "more/b.jpeg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    rows = all_rows(written(folder))
    assert [(row.index, row.sku) for row in rows] == [(0, "a"), (1, "b"), (2, "b"), (3, "c")]
    assert said(rows) == ["row 2, column sku: 'b' is the sku of row 1 already"]
    assert isinstance(rows[0], Row)
    assert rows[0].image_uri == str(folder / "a.PNG")


def test_a_file_name_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xff.jpg")).touch()
    rows = all_rows(written(folder))
    assert isinstance(rows[0], Row)
    assert said(rows) == [f"row 1, column image_uri: '{folder}/b\ufffd.jpg' is not UTF-8"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ManifestRefused, match="holds no image"):
        written(tmp_path / "photos")


def test_an_empty_table_has_no_shards(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("sku,image_uri\n")
    manifest = written(path)
    assert (manifest.rows, manifest.shards) == (0, ())


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(TEXT.filter(str.strip), TEXT, TEXT), min_size=1, unique_by=lambda r: r[0])
)
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_odd_text_comes_back_as_it_was(name: str, texts: list[tuple[str, str, str]]) -> None:
    rows = [
        {"sku": sku, "image_uri": "a.jpg", "title": title, "other": other}
        for sku, title, other in texts
    ]
    write = {"m.csv": as_csv, "m.jsonl": as_json_lines, "m.parquet": as_parquet}[name]
    with TemporaryDirectory() as folder:
        read = all_rows(written(write(Path(folder) / name, rows), shard_rows=3))
    assert [(row.sku, row.title, row.extra["other"]) for row in read] == texts
    assert said(read) == []
