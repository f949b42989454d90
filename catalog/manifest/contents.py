"""What every format is read as: a schema, then chunks of rows, some of them broken already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from catalog.manifest.rows import RowProblem

CHUNK_ROWS, CHUNK_BYTES = 8192, 8 * 2**20
"""Whichever is reached first ends a chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    columns: pa.RecordBatch
    problems: dict[int, RowProblem] = field(default_factory=dict)  # by row of this chunk
    lines: Sequence[int] | None = None  # where each row begins, in a text file

    def line(self, row: int) -> int | None:
        return None if self.lines is None else self.lines[row]


@dataclass(frozen=True, slots=True)
class Contents:
    """`schema` is complete before the first chunk; `extra` (of JSONL only: the unknown members seen
    so far) after the last."""

    schema: pa.Schema
    chunks: Iterator[Chunk]
    extra: dict[str, None] = field(default_factory=dict)  # ordered
