"""Putting a driver together: manifest pinned, plan adopted, then the run."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalog.manifest.pinned import PinnedManifest
from catalog.manifest.pinning import adopted, pin
from catalog.manifest.source import open_source
from catalog.report.publish import publish_report, published
from catalog.report.summary import RunSummary, summarise
from catalog.results.output import RunOutput
from catalog.run.cancel import cancel_jobs, is_cancelled
from catalog.run.driver import Driver
from catalog.run.errors import RunCancelled
from catalog.run.options import RunOptions
from catalog.run.photos import Photos
from catalog.run.plan import adopted_plan, read_plan
from catalog.run.row import RowRunner
from catalog.run.service import Service
from catalog.run.window import Window
from deployments.egress.client import Egress, EgressConfig
from storage.object_store import ObjectStore, ObjectStoreConfig, S3ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run works with, whichever run it is."""

    base_url: str  # of the video service
    key: str | None
    store: ObjectStoreConfig  # whose server has manifest, photos and results, in any bucket
    egress: EgressConfig
    max_photo_bytes: int
    currency: str | None = None

    def bucket(self, name: str) -> S3ObjectStore:
        return S3ObjectStore(self.store.model_copy(update={"bucket": name}))


async def drive(options: RunOptions, around: Surroundings) -> RunSummary:
    """Begins the run, or continues it; one that is cancelled loses the jobs that it has, and one
    that had come to its end before stays as it is. Raises CatalogError, RunError, ResultsError, and
    StorageError but StoreUnavailable."""
    objects = around.bucket(options.bucket)
    output = RunOutput(objects, options.bucket, options.prefix, options.run_id)
    window = Window(options.in_flight, options.patience_s)
    await window.insist(lambda: asyncio.to_thread(objects.check))
    async with Service(around.base_url, around.key, options.in_flight) as service:
        if await window.insist(lambda: asyncio.to_thread(is_cancelled, output)):
            had_jobs = await cancel_jobs(service, window, output.run_id)
            end = await window.insist(lambda: asyncio.to_thread(_end_of, output))
            if end and not (had_jobs or options.retry_failed):
                return end
            await window.insist(lambda: asyncio.to_thread(_tell_cancelled, output))
            raise RunCancelled
        manifest = await window.insist(
            lambda: asyncio.to_thread(_pinned, options, objects, around.bucket)
        )
        plan = await window.insist(
            lambda: asyncio.to_thread(adopted_plan, output, options, manifest, around.currency)
        )
        egress = Egress(around.egress)
        photos = Photos(around.store, egress, around.max_photo_bytes, options.photo_prefixes)
        rows = RowRunner(options, service, photos, output, window)
        return await Driver(plan, manifest, rows).run()


def _pinned(
    options: RunOptions, objects: ObjectStore, bucket: Callable[[str], ObjectStore]
) -> PinnedManifest:
    """The source is looked at for as long as nothing is pinned, and never again."""
    uri, prefix, shard_rows = options.manifest_uri, options.prefix, options.shard_rows
    if standing := adopted(objects, prefix, uri, shard_rows=shard_rows):
        return standing
    with tempfile.TemporaryDirectory(prefix="shopreel-") as temp:
        return pin(
            open_source(uri, bucket),
            objects,
            prefix,
            shard_rows=shard_rows,
            temp=Path(temp),
            progress=_every_million(),
        )


def _end_of(output: RunOutput) -> RunSummary | None:
    """Of a run whose report calls it completed; None: it is not."""
    plan, said = read_plan(output), published(output)
    return summarise(output, plan) if plan and said and said.completed else None


def _tell_cancelled(output: RunOutput) -> None:
    plan = read_plan(output)
    if plan is not None:
        publish_report(output, plan, time.time(), str(RunCancelled()))


def _every_million() -> Callable[[int], None]:
    told = 0

    def tell(rows: int) -> None:
        nonlocal told
        if rows - told >= 1_000_000:
            told = rows
            log.info("%d rows of the manifest read", rows)

    return tell
