"""The pinned file is written: checked rows as Parquet, one row group a shard."""

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


def write(source: Source, folder: Path, shard_rows: int, progress: Progress) -> Written:
    """Into a file below `folder`. Raises ManifestRefused, PinDamaged and OSError."""
    path, hashes, problems = folder / "checked.parquet", SkuHashes(), Counter[ProblemCode]()
    rows = 0
    with source.contents() as contents:
        schema = pinned_schema(contents.schema)
        with closing(_ShardWriter(path, schema, shard_rows)) as shards:
            for chunk in contents.chunks:
                columns, found = checked(chunk)
                hashes.add(columns["sku"].to_pylist())
                problems.update(problem.code for problem in found.values())
                shards.add(columns.append_column(PROBLEM, problem_column(found, len(columns))))
                rows += len(columns)
                progress(rows)
    repeated = hashes.repeated()
    del hashes  # 80 MB of ten million rows
    if len(repeated):
        unique = folder / "unique.parquet"
        with closing(FirstRows(folder / "first.sqlite", repeated)) as first_rows:
            _tell_duplicates(path, unique, first_rows, shard_rows, problems)
        path = unique
    return _verified(path, rows, shard_rows, problems, tuple(contents.extra))


class _ShardWriter:
    """Of local files only: to close it publishes what is there, after an exception too."""

    def __init__(self, path: Path, schema: pa.Schema, shard_rows: int) -> None:
        self._schema, self._shard_rows = schema, shard_rows
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", write_statistics=False, store_schema=True
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._waiting_rows += len(batch)
        self._write(self._waiting_rows - self._waiting_rows % self._shard_rows)

    def close(self) -> None:
        self._write(self._waiting_rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        if rows:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table.slice(0, rows), row_group_size=self._shard_rows)
            self._waiting = table.slice(rows).to_batches()
            self._waiting_rows -= rows


def _tell_duplicates(
    path: Path,
    unique: Path,
    first_rows: FirstRows,
    shard_rows: int,
    problems: Counter[ProblemCode],
) -> None:
    """`path` again as `unique`, where the second and later rows of a sku have that as problem."""
    table = pq.ParquetFile(path, pre_buffer=False)
    row = 0
    with closing(_ShardWriter(unique, table.schema_arrow, shard_rows)) as shards:
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
            shards.add(batch.set_column(column, PROBLEM, pa.array(told, pa.string())))
            row += len(batch)
        # Its footer, before the other is put together: 100 MB each where there are 10,000 shards.
        table.close()
        del table


def _verified(
    path: Path, rows: int, shard_rows: int, problems: Counter[ProblemCode], extra: tuple[str, ...]
) -> Written:
    """Raises PinDamaged for a file that does not hold what was put into it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = file_digest(file, "sha256").hexdigest()
    found = pq.read_metadata(path)
    groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    if groups != [min(shard_rows, rows - first) for first in range(0, rows, shard_rows)]:
        raise PinDamaged(str(path), f"it holds {sum(groups)} rows of {rows}")
    return Written(path, rows, digest, path.stat().st_size, problems, extra)
