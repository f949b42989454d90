"""A run over ten million rows: its driver's start, planning and resuming, without any generation.

Goal: with 99 % of the shards committed, at most 60 s from a driver's start to its first request.
The driver is the product's own, in a process that is killed each time; the service behind it
answers at once. The start of a Ray job comes on top.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.catalogue.markers import commit_shards
from benchmarks.catalogue.noop_service import NoopService, noop_service
from benchmarks.machine import spread
from benchmarks.processes import peak_mb
from catalog.results.output import RunOutput
from catalog.run.drive import Surroundings, drive
from catalog.run.options import RunOptions
from catalog.run.plan import read_plan
from catalog.run.row_jobs import row_of_key
from cluster.embedded_s3 import EmbeddedS3
from deployments.egress.client import EgressConfig
from serve.commands import EXAMPLES
from storage.object_store import ObjectStoreConfig, S3ObjectStore

ROWS, SHARD_ROWS, BATCH = 10_000_000, 1000, 500_000
DONE = ROWS // SHARD_ROWS * 99 // 100  # shards
GOAL_S = 60.0
RESUMES, GOES_ON_S = 3, 10.0
_PATIENCE_S = 600.0


def measure() -> dict[str, Any]:
    with (
        TemporaryDirectory(prefix="reel-") as temp,
        EmbeddedS3(Path(temp) / "s3") as server,
        noop_service() as service,
    ):
        store = server.config.model_copy(update={"read_timeout_s": 300.0})
        options = _options(store, Path(temp))
        planning = _planning(options, store, service)
        output = RunOutput(S3ObjectStore(store), store.bucket, options.prefix, options.run_id)
        plan = read_plan(output)
        assert plan is not None
        begun = time.perf_counter()
        commit_shards(output, plan, DONE, SHARD_ROWS)
        wrote_s = time.perf_counter() - begun
        resumes = [_resume(options, store, service) for _ in range(RESUMES)]
    first_request_s = [resume["first_request_s"] for resume in resumes]
    return {
        "rows": ROWS,
        "shard_rows": SHARD_ROWS,
        "planning": planning,
        "markers": DONE,
        "markers and parts per s, written here": round(2 * DONE / wrote_s),
        "resumed": {name: spread([r[name] for r in resumes]) for name in resumes[0]},
        "goal_s": GOAL_S,
        "goal_reached": max(first_request_s) <= GOAL_S,
    }


def _options(store: ObjectStoreConfig, folder: Path) -> RunOptions:
    """Its manifest and the one photo of all rows are in the store."""
    objects = S3ObjectStore(store)
    objects.put("photo.webp", (EXAMPLES / "home-vase.webp").read_bytes(), "image/webp")
    path = folder / "products.parquet"
    photo, writer = f"s3://{store.bucket}/photo.webp", None
    for first in range(0, ROWS, BATCH):
        number = pc.utf8_lpad(pc.cast(pa.array(range(first, first + BATCH)), pa.string()), 9, "0")
        columns = {
            "sku": pc.binary_join_element_wise("SKU", number, "-"),
            "image_uri": pa.repeat(photo, BATCH),
            "title": pc.binary_join_element_wise("Stainless steel watch", number, " "),
            "shelf": number,
        }
        batch = pa.RecordBatch.from_pydict(columns)
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_batch(batch)
    assert writer is not None
    writer.close()
    objects.put_file("products.parquet", path, "application/octet-stream")
    path.unlink()
    return RunOptions(
        manifest_uri=f"s3://{store.bucket}/products.parquet",
        output_uri=f"s3://{store.bucket}/catalog/plan",
        shard_rows=SHARD_ROWS,
    )


@contextmanager
def _driving(options: RunOptions, store: ObjectStoreConfig, url: str) -> Iterator[int]:
    """The driver's pid, until it is killed."""
    process = get_context("spawn").Process(target=_drive, args=(options, store, url))
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


def _drive(options: RunOptions, store: ObjectStoreConfig, url: str) -> None:
    asyncio.run(drive(options, Surroundings(url, None, store, EgressConfig(), 25 << 20)))


def _planning(
    options: RunOptions, store: ObjectStoreConfig, service: NoopService
) -> dict[str, Any]:
    begun = time.monotonic()
    with _driving(options, store, service.url) as pid:
        at, _ = service.first_request(_PATIENCE_S)
        return {
            "first_request_s": round(at - begun, 1),
            "rows_per_s": round(ROWS / (at - begun)),
            "peak_mb": peak_mb(pid),
        }


def _resume(options: RunOptions, store: ObjectStoreConfig, service: NoopService) -> dict[str, Any]:
    service.forget()
    begun = time.monotonic()
    with _driving(options, store, service.url) as pid:
        at, key = service.first_request(_PATIENCE_S)
        if row_of_key(key) < DONE * SHARD_ROWS:
            raise RuntimeError(f"row {row_of_key(key)} is of a finished shard")
        until_then_mb = peak_mb(pid)
        time.sleep(GOES_ON_S)
        rows = {row_of_key(key) for _, key in service.asked}
        return {
            "first_request_s": at - begun,
            "peak_mb_until_then": until_then_mb,
            "no-op rows_per_s after it": len(rows) / (time.monotonic() - at),
            "peak_mb": peak_mb(pid),
        }
