"""Manifests as Parquet. Unknown columns keep their types."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.errors import ManifestRefused
from catalog.manifest.columns import COLUMNS, header_problems
from catalog.manifest.contents import CHUNK_BYTES, CHUNK_ROWS, Chunk, Contents
from catalog.manifest.rows import ProblemCode, RowProblem

_READ_BYTES = 2**20
"""Of each column at a time: a row group may be as large as the file."""


def parquet_contents(uri: str, file: BinaryIO) -> Contents:
    """Known columns become text, of which checks make types. Raises ManifestRefused, while reading
    too."""
    try:
        table = pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
        schema: pa.Schema = table.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise ManifestRefused(uri, [f"not readable as Parquet: {error}"]) from error
    problems = header_problems(schema.names) + [
        f"column {column.name!r} is {column.type}, not text or a number"
        for column in schema
        if column.name in COLUMNS and not _has_text(column.type)
    ]
    if problems:
        raise ManifestRefused(uri, problems)
    as_read = pa.schema(
        [(c.name, pa.string() if c.name in COLUMNS else _kept(c.type)) for c in schema]
    )
    return Contents(as_read, _chunks(uri, table, as_read))


def _has_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _has_text(type_.value_type)
    return any(
        is_text(type_)
        for is_text in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_integer,
            pa.types.is_floating,  # pandas makes floats of whole numbers with gaps
            pa.types.is_decimal,
            pa.types.is_null,
        )
    )


def _kept(type_: pa.DataType) -> pa.DataType:
    """Of an unknown column: what Python can hold, which is microseconds."""
    if pa.types.is_dictionary(type_):
        return _kept(type_.value_type)
    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        return pa.timestamp("us", type_.tz)
    if pa.types.is_duration(type_) and type_.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(type_) and type_.unit == "ns":
        return pa.time64("us")
    return type_


def _chunks(uri: str, table: pq.ParquetFile, schema: pa.Schema) -> Iterator[Chunk]:
    groups = (table.metadata.row_group(i) for i in range(table.num_row_groups))
    total_bytes = sum(group.total_byte_size for group in groups)
    row_bytes = max(1, total_bytes // max(1, table.metadata.num_rows))
    batches = table.iter_batches(
        batch_size=max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes)), use_threads=False
    )
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            chunk = _chunk(batch, schema)
        except (pa.ArrowException, OSError) as error:
            raise ManifestRefused(uri, [f"not readable as Parquet: {error}"]) from error
        yield chunk


def _chunk(batch: pa.RecordBatch, schema: pa.Schema) -> Chunk:
    problems: dict[int, RowProblem] = {}
    columns = []
    for column, values in zip(schema, batch.columns, strict=True):
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        valid = _valid(column.name, values, problems)
        columns.append(valid if valid.type == column.type else _cast(valid, column.type))
    return Chunk(pa.RecordBatch.from_arrays(columns, schema=schema), problems)


def _cast(values: pa.Array, type_: pa.DataType) -> pa.Array:
    return pc.cast(values, type_, safe=False)  # unsafe: nanoseconds may be cut off


def _valid(column: str, values: pa.Array, problems: dict[int, RowProblem]) -> pa.Array:
    """Parquet readers take its texts at their word. Raises ArrowInvalid for what cannot be mended:
    bytes that are not UTF-8 inside a list or struct."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise
    else:
        return values
    mended: list[str | None] = []
    for i, data in enumerate(values.cast(pa.large_binary()).to_pylist()):
        try:
            mended.append(None if data is None else data.decode())
        except UnicodeDecodeError:
            mended.append(None)
            problems.setdefault(
                i, RowProblem(ProblemCode.BAD_ENCODING, column, "is not UTF-8", None)
            )
    return pa.array(mended, values.type)
