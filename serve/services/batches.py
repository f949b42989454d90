"""What the API can do with batches, without HTTP. It only writes their rows: the Housekeeper starts
and follows their drivers (catalog.batches)."""

import asyncio
from functools import lru_cache, partial

from catalog.batches.items import BatchItems, ItemStatus
from catalog.batches.request import BatchRequest, output_of, run_options
from catalog.results.output import RunOutput
from catalog.run.options import RunOptions
from monitoring.store_calls import count_store_call
from serve.config import AppConfig
from serve.errors import CONFLICT, NOT_FOUND, ApiError
from serve.schemas import Batch, BatchItem, BatchItemList, BatchList, CreateBatch
from serve.schemas.batches import item_id
from serve.services.new_batch import NewBatches
from serve.services.run_file import RunFile
from serve.services.store_threads import StoreThreads
from storage.batches import Batch as StoredBatch
from storage.batches import SqlBatches
from storage.errors import ObjectNotFound
from storage.files import SqlFiles
from storage.job_contract import Idempotency
from storage.object_store import in_bucket
from storage.tenants import Tenant

_BUCKETS_KEPT = 16
"""Open, with their connections."""


class Batches:
    def __init__(
        self,
        config: AppConfig,
        model: str,
        batches: SqlBatches,
        files: SqlFiles,
        store: StoreThreads,
    ):
        assert config.object_store is not None
        self._config, self._batches, self._store = config, batches, store
        self._new = NewBatches(config, model, batches, files)
        self._objects = config.object_store
        bucket = partial(in_bucket, config.object_store, hear=count_store_call)
        self._bucket = lru_cache(_BUCKETS_KEPT)(bucket)

    async def create(
        self, create: CreateBatch, tenant: Tenant, once: Idempotency | None
    ) -> tuple[Batch, bool]:
        """Raises what NewBatches.of raises, IdempotencyConflict, OutputTaken and QuotaExceeded.
        True: it stood under the idempotency key."""
        if once is not None:
            standing = await asyncio.to_thread(self._batches.find, tenant.name, once)
            if standing is not None:
                return self._wire(standing), True
        batch = await self._new.of(create, tenant.name)
        made, replayed = await asyncio.to_thread(
            self._batches.create,
            batch,
            once,
            self._config.catalog.max_batches_per_tenant,
            self._config.auth.enabled,
        )
        return self._wire(made), replayed

    async def get(self, tenant: str, batch_id: str) -> Batch:
        """Raises BatchNotFound."""
        return self._wire(await asyncio.to_thread(self._batches.get, tenant, batch_id))

    async def list_batches(self, tenant: str, after: str | None, limit: int) -> BatchList:
        """Raises BatchNotFound for an unknown `after`."""
        list_ = partial(self._batches.list_batches, tenant, limit=limit + 1, after=after)
        found = await asyncio.to_thread(list_)
        page = [self._wire(batch) for batch in found[:limit]]
        return BatchList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(found) > limit,
        )

    async def items(
        self, tenant: str, batch_id: str, status: ItemStatus | None, after: int, limit: int
    ) -> BatchItemList:
        """Raises BatchNotFound, CatalogError, ResultsError and StorageError."""
        batch = await asyncio.to_thread(self._batches.get, tenant, batch_id)
        options = self._options(batch)
        items = BatchItems(self._output(options), options, tenant, self._batches)
        page = await self._store.run(items.page, status, after, limit)
        data = [BatchItem.of(item) for item in page.items]
        return BatchItemList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=item_id(page.seen) if page.seen >= 0 else None,
            has_more=page.more,
        )

    async def report(self, tenant: str, batch_id: str, name: str) -> RunFile:
        """One of catalog.report.publish.FILES. Raises BatchNotFound, and ApiError 409 where its run
        has written none yet, 404 where it never will."""
        batch = await asyncio.to_thread(self._batches.get, tenant, batch_id)
        file = await RunFile.find(self._output(self._options(batch)), name, self._store)
        if file is not None:
            return file
        if _request(batch).dry_run:
            message = f"batch {batch_id} is a dry run, whose errors stand in the batch itself"
            raise ApiError(404, NOT_FOUND, "report_not_found", message)
        if batch.status.is_terminal:
            message = f"batch {batch_id} has ended without a report: {batch.status}"
            raise ApiError(404, NOT_FOUND, "report_not_found", message)
        message = f"batch {batch_id} is {batch.status}; its report is written when its run ends"
        raise ApiError(409, CONFLICT, "report_not_ready", message)

    async def video(self, tenant: str, batch_id: str, shard: str, name: str) -> RunFile:
        """A video or its poster, as the run's folder has it. Raises BatchNotFound and
        ObjectNotFound."""
        batch = await asyncio.to_thread(self._batches.get, tenant, batch_id)
        output, name = self._output(self._options(batch)), f"videos/{shard}/{name}"
        file = await RunFile.find(output, name, self._store)
        if file is None:
            raise ObjectNotFound(output.key(name))
        return file

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """One that has ended stays as it ended. Raises BatchNotFound."""
        return self._wire(await asyncio.to_thread(self._batches.ask_to_cancel, tenant, batch_id))

    def _options(self, batch: StoredBatch) -> RunOptions:
        return run_options(batch, _request(batch), self._objects.bucket, self._config.catalog)

    def _output(self, options: RunOptions) -> RunOutput:
        return output_of(options, self._bucket(options.bucket))

    def _wire(self, batch: StoredBatch) -> Batch:
        default = self._config.default_model_name
        return Batch.of(batch, _request(batch), self._options(batch), default)


def _request(batch: StoredBatch) -> BatchRequest:
    return BatchRequest.model_validate_json(batch.request)
