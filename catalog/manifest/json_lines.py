"""Manifests as JSON Lines: one object a line."""

from collections.abc import Iterator
from types import NoneType
from typing import Any, BinaryIO

import pyarrow as pa
from pydantic_core import from_json, to_json

from catalog.errors import ManifestRefused
from catalog.manifest.columns import COLUMNS, EXTRA, NOT_BUILT, PROBLEM, REQUIRED
from catalog.manifest.contents import CHUNK_BYTES, CHUNK_ROWS, Chunk, Contents
from catalog.manifest.lines import Lines
from catalog.manifest.rows import ProblemCode, RowProblem

MAX_EXTRA = 1000
"""More unknown members than that are no columns but values used as names."""

_SCHEMA = pa.schema([(name, pa.string()) for name in (*COLUMNS, EXTRA)])


def json_lines_contents(uri: str, file: BinaryIO) -> Contents:
    """All columns are text. Raises ManifestRefused, while reading too."""
    extra: dict[str, None] = {}
    return Contents(_SCHEMA, _chunks(uri, Lines(uri, file), extra), extra)


def _chunks(uri: str, lines: Lines, extra: dict[str, None]) -> Iterator[Chunk]:
    never_given, more = dict(REQUIRED), True
    while more:
        rows: list[dict[str, Any]] = []
        begun: list[int] = []
        problems: dict[int, RowProblem] = {}
        lines.taken_bytes = 0
        while len(rows) < CHUNK_ROWS and lines.taken_bytes < CHUNK_BYTES:
            line = next(lines, None)
            if line is None:
                more = False
                break
            if line.isspace():
                continue
            if lines.number == 1 and line.lstrip().startswith("["):
                raise ManifestRefused(uri, ["line 1 begins an array: write one object a line"])
            problem, row = _parsed(line, lines)
            if problem is not None:
                problems[len(rows)] = problem
            rows.append(row)
            begun.append(lines.number)
        if rows:
            columns = [_column(name, rows, problems, begun) for name in COLUMNS]
            for name, column in zip(COLUMNS, columns, strict=True):
                if column.null_count < len(rows):
                    never_given.pop(name, None)
            columns.append(_extra(uri, rows, extra))
            yield Chunk(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA), problems, begun)
    if lines.number and never_given:
        raise ManifestRefused(uri, [f"no line has a member {name!r}" for name in never_given])


def _parsed(line: str, lines: Lines) -> tuple[RowProblem | None, dict[str, Any]]:
    if lines.undecodable:
        lines.undecodable = False
        return RowProblem(ProblemCode.BAD_ENCODING, None, "is not UTF-8", lines.number), {}
    try:
        row = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        said = f"is not JSON: {error}"
    else:
        if isinstance(row, dict):
            return None, row
        said = f"is a JSON {type(row).__name__}, not an object"
    return RowProblem(ProblemCode.BROKEN_ROW, None, said, lines.number), {}


def _column(
    name: str, rows: list[dict[str, Any]], problems: dict[int, RowProblem], begun: list[int]
) -> pa.Array:
    values = [row.get(name) for row in rows]
    if not {*map(type, values)} <= {str, NoneType}:
        for i, value in enumerate(values):
            if value is not None and type(value) is not str:
                values[i] = _text(name, value)
                if values[i] is None:
                    said = f"{COLUMNS[name].says} was wanted, not a JSON {type(value).__name__}"
                    problems.setdefault(i, RowProblem(COLUMNS[name].code, name, said, begun[i]))
    return pa.array(values, pa.string())


def _text(name: str, value: Any) -> str | None:
    """None: a JSON value of this type is no text."""
    if name == "metadata_json" and type(value) is dict:
        return to_json(value).decode()
    if type(value) is float and value.is_integer():
        return str(int(value))
    return str(value) if type(value) in (int, float) else None


def _extra(uri: str, rows: list[dict[str, Any]], extra: dict[str, None]) -> pa.Array:
    texts: list[str | None] = []
    for row in rows:
        unknown = {
            name: value if type(value) is str else to_json(value).decode()
            for name, value in row.items()
            if name not in COLUMNS and value is not None
        }
        if not unknown.keys() <= extra.keys():
            extra.update(dict.fromkeys(unknown))
            _refuse(uri, extra)
        texts.append(to_json(unknown).decode() if unknown else None)
    return pa.array(texts, pa.string())


def _refuse(uri: str, extra: dict[str, None]) -> None:
    problems = [f"{n!r} is not built yet: leave it out" for n in NOT_BUILT if n in extra]
    problems += [f"{n!r} is taken: name it otherwise" for n in (PROBLEM, EXTRA) if n in extra]
    if any(not name.strip() for name in extra):
        problems.append("a member has no name")
    if len(extra) > MAX_EXTRA:
        problems.append(f"there are more than {MAX_EXTRA} unknown members")
    if problems:
        raise ManifestRefused(uri, problems)
