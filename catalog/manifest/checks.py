"""Chunks of text become typed columns and one problem for each row that cannot be used."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from catalog.manifest.columns import COLUMNS, METADATA, PROBLEM, REQUIRED, Column
from catalog.manifest.contents import Chunk
from catalog.manifest.rows import ProblemCode, RowProblem

_SHOWN_CHARS = 60


def pinned_schema(schema: pa.Schema) -> pa.Schema:
    """Of the pinned file, for contents of this schema."""
    fields = [(c.name, COLUMNS[c.name].type if c.name in COLUMNS else c.type) for c in schema]
    return pa.schema([*fields, (PROBLEM, pa.string())])


def checked(chunk: Chunk) -> tuple[pa.RecordBatch, dict[int, RowProblem]]:
    """The columns typed, without PROBLEM, and the problems by row; a value that its column does not
    take is null in the one and named in the other."""
    problems = dict(chunk.problems)
    columns = [
        _typed(name, values, chunk, problems) if name in COLUMNS else values
        for name, values in zip(chunk.columns.schema.names, chunk.columns.columns, strict=True)
    ]
    names = chunk.columns.schema.names
    return pa.RecordBatch.from_arrays(columns, names=names), problems


def problem_column(problems: dict[int, RowProblem], rows: int) -> pa.Array:
    if not problems:
        return pa.nulls(rows, pa.string())
    found = (problems.get(i) for i in range(rows))
    return pa.array([problem and problem.to_json() for problem in found], pa.string())


def _typed(name: str, texts: pa.Array, chunk: Chunk, problems: dict[int, RowProblem]) -> pa.Array:
    column = COLUMNS[name]
    texts = _without(texts, pc.equal(texts, ""))
    bad = _unlike(column, texts)
    values = _without(texts, bad)
    if column.number is not None:
        numbers = pc.cast(values, column.number)
        low, high = (pa.scalar(bound, column.number) for bound in column.bounds)
        outside = pc.fill_null(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)), False)
        bad, values = pc.or_(bad, outside), _without(values, outside)
    if name == "metadata_json":
        given = values.to_pylist()
        refused = pa.array([text is not None and _refused(text) for text in given], pa.bool_())
        bad, values = pc.or_(bad, refused), _without(values, refused)
    _tell(
        bad,
        name,
        column.code,
        lambda i: f"{_short(texts[i].as_py())} is not {column.says}",
        chunk,
        problems,
    )
    if name in REQUIRED:
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
        _tell(blank, name, REQUIRED[name], lambda i: "is not given", chunk, problems)
        values = _without(values, blank)
    return values if values.type == column.type else pc.cast(values, column.type)


def _without(values: pa.Array, doomed: pa.Array) -> pa.Array:
    return pc.if_else(doomed, pa.scalar(None, values.type), values) if doomed.true_count else values


def _unlike(column: Column, texts: pa.Array) -> pa.Array:
    bad = pc.or_(
        pc.match_substring(texts, "\x00"), pc.greater(pc.utf8_length(texts), column.max_chars)
    )
    if column.pattern is not None:
        bad = pc.or_(bad, pc.invert(pc.match_substring_regex(texts, column.pattern)))
    return pc.fill_null(bad, False)


def _refused(metadata_json: str) -> bool:
    try:
        METADATA.validate_json(metadata_json)
    except ValidationError:
        return True
    return False


def _tell(
    bad: pa.Array,
    name: str,
    code: ProblemCode,
    message: Callable[[int], str],
    chunk: Chunk,
    problems: dict[int, RowProblem],
) -> None:
    if bad.true_count:
        for i in pc.indices_nonzero(bad).to_pylist():
            if i not in problems:
                problems[i] = RowProblem(code, name, message(i), chunk.line(i))


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
