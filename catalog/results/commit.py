"""Committing a shard's results, once, however many drivers try; and which shards are committed.

Part and marker are both written by conditional PUT under a name of their round (how often the
shard's failed rows were tried again), so whoever loses adopts what stands. The marker of the last
round stands. Markers stay, and a part goes only after a later marker stands: a driver that comes
late can take nothing away. A part without a marker (its driver died in between) is adopted too.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from catalog.results.errors import PartDamaged
from catalog.results.marker import ShardMarker
from catalog.results.output import RunOutput
from catalog.results.part import Shard, marker_of, write_part
from catalog.results.row import ResultRow, ResultSchema
from storage.errors import ObjectNotFound
from storage.object_store import ObjectStore

S = TypeVar("S")
T = TypeVar("T")

_PARQUET = "application/vnd.apache.parquet"
_NUMBERS = re.compile(r"/(?:part-)?(\d+)(?:\.r(\d+))?\.(?:json|parquet)$")
_READERS = 16
"""Threads, and objects held in memory at a time."""


def commit_shard(
    output: RunOutput,
    fingerprint: str,
    shard: Shard,
    rows: Iterable[ResultRow],
    schema: ResultSchema,
    submission: str = "",
) -> ShardMarker:
    """`rows`: the shard's, all of them and in order. Gives the marker that stands, which is another
    driver's where that was quicker.

    Raises ResultsError and StorageError, and what `rows` raises; the shard is uncommitted then, and
    may be committed again. Nothing is written before all rows have been drawn and checked.
    """
    part = write_part(output.run_id, fingerprint, rows, schema, submission)
    return _commit(output, fingerprint, shard, part, 0)


def replace_shard(
    output: RunOutput,
    fingerprint: str,
    shard: Shard,
    standing: ShardMarker,
    rows: Iterable[ResultRow],
    schema: ResultSchema,
    submission: str = "",
) -> ShardMarker:
    """A new part instead of the one that `standing` names, whose failed rows were tried again.

    Raises as `commit_shard` does; `standing` holds until the new marker is written. What a driver
    leaves that dies in between, `sweep_parts` sees to.
    """
    part = write_part(output.run_id, fingerprint, rows, schema, submission)
    marker = _commit(output, fingerprint, shard, part, standing.round + 1)
    output.objects.delete(standing.part_key)
    return marker


def sweep_parts(output: RunOutput, fingerprint: str) -> None:
    """Ends what drivers began that died while they replaced a part: one that is newer than its
    shard's marker gets its own, and older ones go. `results/*.parquet` has every row once then.

    Lists all parts and markers; reads those that are not one of each, of the same round."""
    rounds: dict[int, list[int]] = {}
    for found in output.objects.iter_objects(output.key("results/part-")):
        shard, round_ = _numbers(found.key)
        rounds.setdefault(shard, []).append(round_)
    for shard, marker_key in finished_shards(output).items():
        written = rounds.get(shard, [])
        if written == [_numbers(marker_key)[1]]:
            continue
        (standing,) = read_markers(output, [marker_key])
        newest = max(written, default=0)
        if newest > standing.round:
            with suppress(ObjectNotFound):  # another driver is further, and sees to it
                part = output.objects.get(output.part_key(shard, newest))
                standing = _commit(output, fingerprint, _rows_of(standing), part, newest)
        for round_ in written:
            if round_ < standing.round:
                output.objects.delete(output.part_key(shard, round_))


def finished_shards(output: RunOutput) -> Mapping[int, str]:
    """Shards that have a marker, in order, with the key of the one that stands. By listing: none is
    read."""
    return _standing(output.objects, output.markers_prefix)


def standing_marker(output: RunOutput, shard: int) -> ShardMarker | None:
    """Raises MarkerDamaged."""
    prefix = output.marker_key(shard).removesuffix("json")
    keys = _standing(output.objects, prefix).values()
    return next(read_markers(output, keys), None)


def read_markers(output: RunOutput, keys: Iterable[str]) -> Iterator[ShardMarker]:
    """In the order of `keys`, read ahead a few at a time. Raises MarkerDamaged."""
    keys = list(keys)
    for key, data in zip(keys, _read_ahead(output.objects.get, keys), strict=True):
        yield ShardMarker.read(key, data)


def read_standing(output: RunOutput, marker: ShardMarker) -> tuple[ShardMarker, bytes]:
    """`marker` with its part, or where another driver has replaced that by now, the marker and the
    part that stand instead. Raises ObjectNotFound for a part that is gone and was not replaced."""
    while True:
        try:
            return marker, output.objects.get(marker.part_key)
        except ObjectNotFound:
            standing = standing_marker(output, marker.shard)
            if standing is None or standing.round <= marker.round:
                raise
            marker = standing


def read_standing_parts(
    output: RunOutput, markers: Sequence[ShardMarker]
) -> Iterator[tuple[ShardMarker, bytes]]:
    """`read_standing` of each, in order, read ahead a few at a time."""
    return _read_ahead(partial(read_standing, output), markers)


def _read_ahead(read: Callable[[S], T], of: Sequence[S]) -> Iterator[T]:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        for start in range(0, len(of), _READERS):
            yield from pool.map(read, of[start : start + _READERS])


def _commit(
    output: RunOutput, fingerprint: str, shard: Shard, part: bytes, round_: int
) -> ShardMarker:
    objects, key = output.objects, output.part_key(shard.id, round_)
    marker = marker_of(output, fingerprint, shard, part, round_)
    if not objects.put_if_absent(key, part, _PARQUET):
        try:
            marker = marker_of(output, fingerprint, shard, objects.get(key), round_)
        except ObjectNotFound:
            return _of_a_later_round(output, marker)
    stored = objects.stat(key)
    if stored is None:
        return _of_a_later_round(output, marker)
    if stored.size_bytes != marker.part_bytes:
        raise PartDamaged(key, f"{marker.part_bytes} bytes were written, the store has {stored}")
    marker_key = output.marker_key(shard.id, round_)
    if objects.put_if_absent(marker_key, marker.to_json(), "application/json"):
        return marker
    standing = standing_marker(output, shard.id) or marker
    if standing.round > round_:  # this came late, and the part was gone
        objects.delete(key)
    return standing


def _of_a_later_round(output: RunOutput, marker: ShardMarker) -> ShardMarker:
    """That stands instead of `marker`, whose part was written and is gone. Raises PartDamaged."""
    standing = standing_marker(output, marker.shard)
    if standing is None or standing.round <= marker.round:
        raise PartDamaged(marker.part_key, "it was written, and the store has it no more")
    return standing


@dataclass(frozen=True, slots=True)
class _Rows:
    id: int
    first_row: int
    rows: int


def _rows_of(marker: ShardMarker) -> Shard:
    return _Rows(marker.shard, marker.first_row, marker.tally.rows)


def _standing(objects: ObjectStore, prefix: str) -> dict[int, str]:
    """Shards with the key of their last round's marker."""
    last: dict[int, tuple[int, str]] = {}
    for found in objects.iter_objects(prefix):
        shard, round_ = _numbers(found.key)
        last[shard] = max(last.get(shard, (-1, "")), (round_, found.key))
    return {shard: key for shard, (_, key) in sorted(last.items())}


def _numbers(key: str) -> tuple[int, int]:
    """Shard and round of a part or a marker. Raises PartDamaged for a file that is neither."""
    found = _NUMBERS.search(key)
    if found is None:
        raise PartDamaged(key, "no part or marker has such a name")
    return int(found[1]), int(found[2] or 0)
