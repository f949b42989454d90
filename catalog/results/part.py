"""A part: the rows of one shard as a Parquet file in memory, and the check of one that was read."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog.results.counting import tally_of
from catalog.results.errors import PartDamaged, PartOfAnother
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow, ResultSchema

_BATCH_ROWS = 1000
_FINGERPRINT = b"shopreel.manifest"
_SUBMISSION = b"shopreel.submission"


class Shard(Protocol):
    """Rows [first_row, first_row + rows) of a manifest."""

    @property
    def id(self) -> int: ...
    @property
    def first_row(self) -> int: ...
    @property
    def rows(self) -> int: ...


def write_part(
    run_id: str,
    fingerprint: str,
    rows: Iterable[ResultRow],
    schema: ResultSchema,
    submission: str = "",
) -> bytes:
    """`fingerprint` is the manifest's, `submission` the asking's. What `rows` raises goes through,
    and nothing is kept."""
    # In memory: a ParquetWriter whose rows raise still closes its file, short but valid, and a
    # file system or an S3 stream under it would have published that.
    made_for = {_FINGERPRINT: fingerprint.encode(), _SUBMISSION: submission.encode()}
    arrow = schema.arrow.with_metadata(made_for)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, arrow, compression="zstd") as writer:
        for batch in _batches(rows):
            records = [schema.record(run_id, row) for row in batch]
            writer.write_batch(pa.RecordBatch.from_pylist(records, arrow))
    return bytes(sink.getvalue())


def read_part(key: str, data: bytes) -> pa.Table:
    """Raises PartDamaged."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise PartDamaged(key, str(error)) from error


def marker_of(
    output: RunOutput, fingerprint: str, shard: Shard, data: bytes, round_: int = 0
) -> ShardMarker:
    """The marker that belongs to a part, from nothing but its bytes.

    Raises PartDamaged unless it holds the shard's rows, each once and in order, and PartOfAnother
    where they are another run's or were made from another manifest.
    """
    key = output.part_key(shard.id, round_)
    table = read_part(key, data)
    wanted = pa.array(range(shard.first_row, shard.first_row + shard.rows), pa.int64())
    if not table["row"].combine_chunks().equals(wanted):
        raise PartDamaged(key, f"it should hold {shard.rows} rows from {shard.first_row} on")
    for other in set(pc.unique(table["run_id"]).to_pylist()) - {output.run_id}:
        raise PartOfAnother(key, f"run {other}")
    made_for = table.schema.metadata or {}
    written_for = made_for.get(_FINGERPRINT, b"").decode()
    if written_for != fingerprint:
        raise PartOfAnother(key, f"manifest {written_for}")
    return ShardMarker(
        run_id=output.run_id,
        shard=shard.id,
        round=round_,
        submission=made_for.get(_SUBMISSION, b"").decode(),
        first_row=shard.first_row,
        part_key=key,
        part_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tally=tally_of(table),
    )


def _batches(rows: Iterable[ResultRow]) -> Iterator[list[ResultRow]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH_ROWS)):
        yield batch
