"""Ten million rows of a manifest in S3: pinned, and the pinned file opened again to go on.

Goals: at least 100,000 rows a second, at most 400 MB of memory. Each pinning is a process of its
own; it shares the cores with the S3 server.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.processes import peak_mb
from catalog.manifest import PinnedManifest, open_source, pin
from cluster.embedded_s3 import EmbeddedS3
from storage.object_store import ObjectStoreConfig, S3ObjectStore

ROWS, SHARD_ROWS, BATCH = 10_000_000, 1000, 50_000
TWICE_EVERY = 1000
GOAL_ROWS_PER_S, GOAL_PEAK_MB = 100_000, 400


def measure() -> dict[str, Any]:
    cases: dict[str, tuple[Callable[[Path, int], None], str, int]] = {
        "Parquet": (_parquet, "m.parquet", ROWS),
        "Parquet, one sku in a thousand twice": (_parquet, "d.parquet", ROWS - ROWS // TWICE_EVERY),
        "CSV": (_csv, "m.csv", ROWS),
        "JSON Lines": (_json_lines, "m.jsonl", ROWS),
    }
    figures: dict[str, Any] = {"rows": ROWS, "shard_rows": SHARD_ROWS}
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp)
        with EmbeddedS3(folder / "s3") as server:
            # It stores what is measured on the disk that is measured: let it be slow.
            config = server.config.model_copy(update={"read_timeout_s": 300.0})
            objects = S3ObjectStore(config)
            objects.ensure_bucket()
            for name, (write, key, skus) in cases.items():
                write(folder / key, skus)
                objects.put_file(key, folder / key, "application/octet-stream")
                (folder / key).unlink()
                figures[name] = _alone(_pin, config, key, folder)
                figures[name]["resume"] = _alone(_resume, config, key, folder)
                objects.delete(key)
                objects.delete_prefix(f"run-{key}/")
    measured = [figures[name] for name in cases]
    figures["goals"] = {
        "rows_per_s": GOAL_ROWS_PER_S,
        "peak_mb": GOAL_PEAK_MB,
        "reached": all(
            case["rows_per_s"] >= GOAL_ROWS_PER_S and case["peak_mb"] <= GOAL_PEAK_MB
            for case in measured
        ),
    }
    return figures


def _alone(
    work: Callable[[ObjectStoreConfig, str, Path], dict[str, Any]],
    config: ObjectStoreConfig,
    key: str,
    folder: Path,
) -> dict[str, Any]:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, config, key, folder).result()


def _pin(config: ObjectStoreConfig, key: str, folder: Path) -> dict[str, Any]:
    objects = S3ObjectStore(config)
    source = open_source(f"s3://{config.bucket}/{key}", lambda _: objects)
    begun, cpu = time.perf_counter(), time.process_time()
    pinned = pin(source, objects, f"run-{key}", shard_rows=SHARD_ROWS, temp=folder)
    seconds = time.perf_counter() - begun
    assert pinned.rows == ROWS
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rows_per_s": round(ROWS / seconds),
        "peak_mb": peak_mb(),
        "pinned_mb": round(pinned.pin.size_bytes / 1e6, 1),
        "bad_rows": sum(pinned.problems.values()),
    }


def _resume(config: ObjectStoreConfig, key: str, folder: Path) -> dict[str, Any]:
    """As after a kill when 99 % of the shards have their marker."""
    begun = time.perf_counter()
    pinned = PinnedManifest.open(S3ObjectStore(config), f"run-{key}")
    assert pinned is not None
    opened = time.perf_counter()
    left = pinned.shards[len(pinned.shards) * 99 // 100 :]
    assert next(pinned.read(left[0])).index == ROWS * 99 // 100
    first = time.perf_counter()
    for shard in left[1:11]:
        assert sum(1 for _ in pinned.read(shard)) == SHARD_ROWS
    return {
        "open_s": round(opened - begun, 3),
        "first_row_s": round(first - begun, 3),
        "ms_per_shard": round(1000 * (time.perf_counter() - first) / 10, 1),
        "peak_mb": peak_mb(),
    }


def _columns(skus: int) -> Iterator[dict[str, list[Any]]]:
    for first in range(0, ROWS, BATCH):
        rows = range(first, first + BATCH)
        yield {
            "sku": [f"SKU-{i % skus:09d}" for i in rows],
            "image_uri": [f"s3://photos/SKU-{i % skus:09d}/front.jpg" for i in rows],
            "title": [f"Stainless steel watch number {i}" for i in rows],
            "category": ["watch" if i % 3 else "food" for i in rows],
            "seed": list(rows),
            "price": [i / 100 for i in rows],
        }


def _parquet(path: Path, skus: int) -> None:
    batches = (pa.RecordBatch.from_pydict(columns) for columns in _columns(skus))
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _csv(path: Path, skus: int) -> None:
    batches = (pa.RecordBatch.from_pydict(columns) for columns in _columns(skus))
    first = next(batches)
    with pyarrow.csv.CSVWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _json_lines(path: Path, skus: int) -> None:
    with path.open("w") as file:
        for columns in _columns(skus):
            for row in zip(*columns.values(), strict=True):
                file.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
