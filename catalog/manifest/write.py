"""The pinned file is written: checked rows as Parquet, in row groups of one size."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.errors import PinDamaged
from catalog.manifest.checks import checked, pinned_schema, problem_column
from catalog.manifest.columns import PROBLEM
from catalog.manifest.contents import CHUNK_ROWS
from catalog.manifest.duplicates import FirstRows, SkuHashes
from catalog.manifest.rows import ProblemCode, RowProblem
from catalog.manifest.source import Source

MAX_SHARD_ROWS = 100_000

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Written:
    path: Path
    rows: int
    sha256: str
    size_bytes: int
    problems: Counter[ProblemCode]  # rows that cannot be used
    extra: tuple[str, ...]


def write(source: Source, folder: Path, group_rows: int, progress: Progress) -> Written:
    """Into a file below `folder`. Raises ManifestRefused, PinDamaged and OSError."""
    path, hashes, problems = folder / "checked.parquet", SkuHashes(), Counter[ProblemCode]()
    rows = 0
    with source.contents() as contents:
        schema = pinned_schema(contents.schema)
        with closing(_GroupWriter(path, schema, group_rows)) as groups:
            for chunk in contents.chunks:
                columns, found = checked(chunk)
                hashes.add(columns["sku"].to_pylist())
                problems.update(problem.code for problem in found.values())
                groups.add(columns.append_column(PROBLEM, problem_column(found, len(columns))))
                rows += len(columns)
                progress(rows)
    repeated = hashes.repeated()
    del hashes  # 80 MB of ten million rows
    if len(repeated):
        unique = folder / "unique.parquet"
        with closing(FirstRows(folder / "first.sqlite", repeated)) as first_rows:
            _tell_duplicates(path, unique, first_rows, group_rows, problems)
        path = unique
    return _verified(path, rows, group_rows, problems, tuple(contents.extra))


class _GroupWriter:
    """Of local files only: to close it publishes what is there, after an exception too."""

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int) -> None:
        self._schema, self._group_rows = schema, group_rows
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", write_statistics=False, store_schema=True
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._waiting_rows += len(batch)
        self._write(self._waiting_rows - self._waiting_rows % self._group_rows)

    def close(self) -> None:
        self._write(self._waiting_rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        if rows:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table.slice(0, rows), row_group_size=self._group_rows)
            self._waiting = table.slice(rows).to_batches()
            self._waiting_rows -= rows


def _tell_duplicates(
    path: Path,
    unique: Path,
    first_rows: FirstRows,
    group_rows: int,
    problems: Counter[ProblemCode],
) -> None:
    """`path` again as `unique`, where the second and later rows of a sku have that as problem."""
    table = pq.ParquetFile(path, pre_buffer=False)
    row = 0
    with closing(_GroupWriter(unique, table.schema_arrow, group_rows)) as groups:
        for batch in table.iter_batches(CHUNK_ROWS, use_threads=False):
            skus = batch["sku"].to_pylist()
            told = batch[PROBLEM].to_pylist()
            for i, first_row in first_rows.later_rows(skus, row).items():
                if told[i] is None:
                    problems[ProblemCode.DUPLICATE_SKU] += 1
                    said = f"{skus[i]!r} is the sku of row {first_row} already"
                    problem = RowProblem(ProblemCode.DUPLICATE_SKU, "sku", said, None)
                    told[i] = problem.to_json()
            column = batch.schema.get_field_index(PROBLEM)
            groups.add(batch.set_column(column, PROBLEM, pa.array(told, pa.string())))
            row += len(batch)
        # Its footer, before the other is put together.
        table.close()
        del table


def _verified(
    path: Path, rows: int, group_rows: int, problems: Counter[ProblemCode], extra: tuple[str, ...]
) -> Written:
    """Raises PinDamaged for a file that does not hold what was put into it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = file_digest(file, "sha256").hexdigest()
    found = pq.read_metadata(path)
    groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    if groups != [min(group_rows, rows - first) for first in range(0, rows, group_rows)]:
        raise PinDamaged(str(path), f"it holds {sum(groups)} rows of {rows}")
    return Written(path, rows, digest, path.stat().st_size, problems, extra)
