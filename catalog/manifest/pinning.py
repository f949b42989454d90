"""Pinning: a manifest is read once, checked, and kept where no later change reaches it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from catalog.errors import ManifestChanged
from catalog.manifest.pinned import FORMAT, Pin, PinnedManifest, group_rows, pin_key
from catalog.manifest.rows import BadRow, ProblemCode
from catalog.manifest.source import Source, canonical
from catalog.manifest.write import MAX_SHARD_ROWS, Written, write
from storage.errors import StoreUnavailable
from storage.object_store import ObjectStore

SHOWN_BAD_ROWS = 20

_CHECK_ROWS = 10_000
"""A shard's, of a manifest that is only checked."""


def pin(
    source: Source,
    objects: ObjectStore,
    prefix: str,
    *,
    shard_rows: int,
    temp: Path,
    progress: Callable[[int], None] = lambda rows: None,
) -> PinnedManifest:
    """The manifest of the run whose output folder is `prefix`: pinned now, or adopted from an
    earlier call, here or elsewhere, with the same source, whatever became of that since.

    Needs the disk of one or, with duplicate skus, two copies below `temp`; leaves nothing there.
    `progress` hears the number of rows read so far. Raises ManifestRefused, ManifestNotFound,
    ManifestChanged, PinDamaged, what the store raises, OSError when the disk is full, and
    ValueError for a shard that is not 1 to MAX_SHARD_ROWS rows.
    """
    if not 1 <= shard_rows <= MAX_SHARD_ROWS:
        raise ValueError(f"a shard has 1 to {MAX_SHARD_ROWS} rows, not {shard_rows}")
    if standing := adopted(objects, prefix, source.uri, shard_rows=shard_rows):
        return standing
    version = source.version()
    with TemporaryDirectory(dir=temp, prefix="pin-") as folder:
        written = write(source, Path(folder), group_rows(shard_rows), progress)
        if source.version() != version:
            raise ManifestChanged(source.uri, "it changed while it was read: start again")
        fingerprint = _fingerprint(source.uri, version)
        _publish(objects, prefix, source, fingerprint, shard_rows, written)
    standing = adopted(objects, prefix, source.uri, shard_rows=shard_rows)
    if standing is None:
        raise StoreUnavailable(f"{pin_key(prefix)} was written and is not there")
    return standing


def adopted(
    objects: ObjectStore, prefix: str, uri: str, *, shard_rows: int
) -> PinnedManifest | None:
    """The manifest that the run was pinned to; None: nothing is pinned yet. The source is not
    asked: it may have changed, or be gone.

    Raises ManifestChanged for another source than `uri`, or other shards; PinDamaged, and what the
    store raises.
    """
    standing = PinnedManifest.open(objects, prefix)
    if standing is not None:
        _check(standing.pin, canonical(uri), shard_rows)
    return standing


def is_outdated(pinned: Pin, source: Source) -> bool:
    """Whether the source holds something else by now. Raises ManifestNotFound, and what its store
    raises."""
    return _fingerprint(source.uri, source.version()) != pinned.fingerprint


@dataclass(frozen=True, slots=True)
class Checked:
    rows: int
    problems: Mapping[ProblemCode, int]  # rows that cannot be used
    first_bad_rows: tuple[BadRow, ...]  # at most SHOWN_BAD_ROWS


def check(
    source: Source, temp: Path, progress: Callable[[int], None] = lambda rows: None
) -> Checked:
    """What `pin` would find; nothing is kept. Raises ManifestRefused, ManifestNotFound, what the
    source's store raises, and OSError when the disk is full."""
    with TemporaryDirectory(dir=temp, prefix="pin-") as folder:
        written = write(source, Path(folder), group_rows(_CHECK_ROWS), progress)
        described = _described(source, "", _CHECK_ROWS, written, str(written.path))
        with pq.ParquetFile(written.path) as table:
            bad_rows = PinnedManifest(described, table).bad_rows()
            first = tuple(islice(bad_rows, min(SHOWN_BAD_ROWS, written.problems.total())))
    return Checked(written.rows, written.problems, first)


def _fingerprint(uri: str, version: str) -> str:
    return sha256(json.dumps([FORMAT, uri, version]).encode()).hexdigest()


def _described(
    source: Source, fingerprint: str, shard_rows: int, written: Written, key: str
) -> Pin:
    return Pin(
        uri=source.uri,
        base=source.base,
        fingerprint=fingerprint,
        key=key,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        rows=written.rows,
        shard_rows=shard_rows,
        group_rows=group_rows(shard_rows),
        problems=written.problems,
        extra=written.extra,
    )


def _publish(
    objects: ObjectStore,
    prefix: str,
    source: Source,
    fingerprint: str,
    shard_rows: int,
    written: Written,
) -> None:
    # Named by its bytes: of two drivers neither can overwrite what the other's manifest.json names.
    key = f"{prefix}/manifest-{written.sha256[:16]}.parquet"
    objects.put_file(key, written.path, "application/vnd.apache.parquet")
    stored = objects.stat(key)
    if stored is None or stored.size_bytes != written.size_bytes:
        raise StoreUnavailable(f"{key} was not stored whole: {stored}")
    described = _described(source, fingerprint, shard_rows, written, key)
    data = described.model_dump_json(indent=1).encode()
    if not objects.put_if_absent(pin_key(prefix), data, "application/json"):
        winner = PinnedManifest.open(objects, prefix)
        if winner is not None and winner.pin.key != key:
            objects.delete(key)


def _check(pinned: Pin, uri: str, shard_rows: int) -> None:
    if pinned.uri != uri:
        raise ManifestChanged(uri, f"this run is pinned to {pinned.uri}: give it another output")
    if pinned.format != FORMAT:
        raise ManifestChanged(uri, "another release pinned this run: give it another output")
    if pinned.shard_rows != shard_rows:
        reason = f"this run is pinned in shards of {pinned.shard_rows} rows, not {shard_rows}"
        raise ManifestChanged(uri, reason)
