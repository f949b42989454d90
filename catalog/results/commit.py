"""Committing a shard's results, once, however many drivers try; and which shards are committed.

Part and marker are both written by conditional PUT, so whoever loses adopts what stands. A part
without a marker (its driver died in between) is adopted too: `results/*.parquet` never holds a row
twice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from catalog.results.errors import PartDamaged
from catalog.results.marker import ShardMarker
from catalog.results.output import MARKERS, RunOutput
from catalog.results.part import Shard, marker_of, write_part
from catalog.results.row import ResultRow, ResultSchema
from storage.object_store import ObjectStore

_PARQUET = "application/vnd.apache.parquet"
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
    objects, key = output.objects, output.part_key(shard.id)
    part = write_part(output.run_id, fingerprint, rows, schema)
    marker = marker_of(output, fingerprint, shard, part)
    if not objects.put_if_absent(key, part, _PARQUET):
        marker = marker_of(output, fingerprint, shard, objects.get(key))
    stored = objects.stat(key)
    if stored is None or stored.size_bytes != marker.part_bytes:
        raise PartDamaged(key, f"{marker.part_bytes} bytes were written, the store has {stored}")
    marker, marker_key = _under(submission, marker), output.marker_key(shard.id)
    if objects.put_if_absent(marker_key, marker.to_json(), "application/json"):
        return marker
    return ShardMarker.read(marker_key, objects.get(marker_key))


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
    leaves that dies in between, `sweep_parts` removes.
    """
    objects, round_ = output.objects, standing.round + 1
    key = output.part_key(shard.id, round_)
    part = write_part(output.run_id, fingerprint, rows, schema)
    if not objects.put_if_absent(key, part, _PARQUET):
        part = objects.get(key)
    marker = _under(submission, marker_of(output, fingerprint, shard, part, round_))
    objects.put(output.marker_key(shard.id), marker.to_json(), "application/json")
    objects.delete(standing.part_key)
    return marker


def sweep_parts(output: RunOutput) -> None:
    """Removes parts of finished shards that their markers do not name: left by drivers that died
    while they replaced one. `results/*.parquet` has every row once then.

    Lists all parts; reads the markers of those shards that have several."""
    listed = output.objects.iter_objects(output.key("results/part-"))
    keys = [found.key for found in listed]
    several = _several(map(_shard_of, keys))
    replaced = {key for key in keys if _shard_of(key) in several}
    named = {marker.part_key for marker in read_markers(output, {_shard_of(k) for k in replaced})}
    for key in replaced - named:
        output.objects.delete(key)


def _under(submission: str, marker: ShardMarker) -> ShardMarker:
    return marker.model_copy(update={"submission": submission})


def _several(shards: Iterable[int]) -> set[int]:
    return {shard for shard, count in Counter(shards).items() if count > 1}


def _shard_of(part_key: str) -> int:
    return int(part_key.rpartition("/part-")[2].split(".")[0])


def finished_shards(output: RunOutput) -> frozenset[int]:
    """Ids of the shards that have a marker, by listing: no marker is read."""
    listed = output.objects.iter_objects(output.key(f"{MARKERS}/"))
    names = (PurePosixPath(found.key) for found in listed)
    return frozenset(int(name.stem) for name in names if name.suffix == ".json")


def read_markers(output: RunOutput, shards: Iterable[int]) -> Iterator[ShardMarker]:
    """In the order of `shards`, read ahead a few at a time. Raises MarkerDamaged."""
    keys = [output.marker_key(shard) for shard in shards]
    for key, data in read_all(output.objects, keys):
        yield ShardMarker.read(key, data)


def read_all(objects: ObjectStore, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Keys with their objects, in order, a few at a time. Raises ObjectNotFound."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        for start in range(0, len(keys), _READERS):
            some = keys[start : start + _READERS]
            yield from zip(some, pool.map(objects.get, some), strict=True)
