"""Putting a driver together: manifest pinned, plan adopted, then the run."""

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalog.manifest.pinning import pin
from catalog.manifest.source import open_source
from catalog.report.summary import RunSummary
from catalog.results.output import RunOutput
from catalog.run.driver import Driver
from catalog.run.options import RunOptions
from catalog.run.photos import Photos
from catalog.run.plan import adopted_plan
from catalog.run.row import RowRunner
from catalog.run.service import Service
from catalog.run.window import Window
from deployments.egress.client import Egress, EgressConfig
from storage.object_store import ObjectStoreConfig, S3ObjectStore

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
    """Begins the run, or continues it. Raises CatalogError, RunError, ResultsError and
    StorageError."""
    objects = around.bucket(options.bucket)
    output = RunOutput(objects, options.bucket, options.prefix, options.run_id)
    window = Window(options.in_flight, options.patience_s)
    await window.insist(lambda: asyncio.to_thread(objects.check))
    source = open_source(options.manifest_uri, around.bucket)
    with tempfile.TemporaryDirectory(prefix="shopreel-") as temp:
        manifest = await asyncio.to_thread(
            pin,
            source,
            objects,
            options.prefix,
            shard_rows=options.shard_rows,
            temp=Path(temp),
            progress=_every_million(),
        )
    plan = await asyncio.to_thread(adopted_plan, output, options, manifest, around.currency)
    photos = Photos(
        around.store, Egress(around.egress), around.max_photo_bytes, options.photo_prefixes
    )
    async with Service(around.base_url, around.key, options.in_flight) as service:
        rows = RowRunner(options, service, photos, output, window)
        return await Driver(plan, manifest, rows).run()


def _every_million() -> Callable[[int], None]:
    told = 0

    def tell(rows: int) -> None:
        nonlocal told
        if rows - told >= 1_000_000:
            told = rows
            log.info("%d rows of the manifest read", rows)

    return tell
