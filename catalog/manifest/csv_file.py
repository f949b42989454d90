"""Manifests as CSV. The standard library's reader: pyarrow's loses the place of a ragged row and
gives up a whole block for one bad byte."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from catalog.errors import ManifestRefused
from catalog.manifest.columns import header_problems
from catalog.manifest.contents import CHUNK_BYTES, CHUNK_ROWS, Chunk, Contents
from catalog.manifest.lines import Lines
from catalog.manifest.rows import ProblemCode, RowProblem


def csv_contents(uri: str, file: BinaryIO) -> Contents:
    """All columns are text; an empty cell is one that is not given. Raises ManifestRefused."""
    lines = Lines(uri, file)
    try:
        names = next(csv.reader(lines, strict=True), None)
    except csv.Error as error:
        raise ManifestRefused(uri, [f"line {lines.number}: {error}"]) from None
    if names is None:
        raise ManifestRefused(uri, ["the file is empty: its first line should name the columns"])
    problems = ["line 1 is not UTF-8"] if lines.undecodable else header_problems(names)
    if problems:
        raise ManifestRefused(uri, problems)
    schema = pa.schema([(name, pa.string()) for name in names])
    return Contents(schema, _chunks(lines, schema))


def _chunks(lines: Lines, schema: pa.Schema) -> Iterator[Chunk]:
    reader = csv.reader(lines, strict=True)
    width, more = len(schema), True
    while more:
        rows: list[list[str]] = []
        begun: list[int] = []
        problems: dict[int, RowProblem] = {}
        lines.taken_bytes = 0
        while len(rows) < CHUNK_ROWS and lines.taken_bytes < CHUNK_BYTES:
            line = lines.number + 1
            problem = None
            try:
                row = next(reader, None)
            except csv.Error as error:
                row, problem = [], _broken(str(error), line, lines.number)
            if row is None:
                more = False
                break
            if lines.undecodable:
                lines.undecodable = False
                problem = RowProblem(ProblemCode.BAD_ENCODING, None, "is not UTF-8", line)
            elif problem is None and not row:
                continue  # a blank line
            elif problem is None and len(row) != width:
                said = f"has {len(row)} cells where the header has {width}"
                problem = _broken(said, line, lines.number)
            if problem is not None:
                problems[len(rows)] = problem
                row = [""] * width
            rows.append(row)
            begun.append(line)
        if rows:
            columns = [
                pa.array([cell or None for cell in column], pa.string())
                for column in zip(*rows, strict=True)
            ]
            yield Chunk(pa.RecordBatch.from_arrays(columns, schema=schema), problems, begun)


def _broken(said: str, first: int, last: int) -> RowProblem:
    # An unclosed quote swallows lines: name them, for their rows are in no result.
    lines = "" if first == last else f" (lines {first} to {last} were read as one row)"
    return RowProblem(ProblemCode.BROKEN_ROW, None, said + lines, first)
