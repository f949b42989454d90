"""Manifests for tests: written, checked and read back without a store."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from catalog.manifest import BadRow, PinnedManifest, Row, open_source
from catalog.manifest.pinned import Pin, group_rows
from catalog.manifest.write import write
from storage.object_store import ObjectStore


def no_bucket(name: str) -> ObjectStore:
    raise AssertionError(f"a local manifest asked for bucket {name}")


def written(path: Path, shard_rows: int = 1000) -> PinnedManifest:
    """What a run would read, from the file that would have been uploaded."""
    folder = path.with_name(f"{path.name}-pinned")
    folder.mkdir()
    source = open_source(str(path), no_bucket)
    made = write(source, folder, group_rows(shard_rows), lambda rows: None)
    pin = Pin(
        uri=source.uri,
        base=source.base,
        fingerprint=source.version(),
        key=made.path.name,
        sha256=made.sha256,
        size_bytes=made.size_bytes,
        rows=made.rows,
        shard_rows=shard_rows,
        group_rows=group_rows(shard_rows),
        problems=made.problems,
        extra=made.extra,
    )
    return PinnedManifest(pin, pq.ParquetFile(made.path))


def all_rows(manifest: PinnedManifest) -> list[Row | BadRow]:
    return [row for shard in manifest.shards for row in manifest.read(shard)]


def said(rows: Iterable[Row | BadRow]) -> list[str]:
    """Of the bad ones."""
    return [str(row) for row in rows if isinstance(row, BadRow)]
