"""What the API can do with batches, without HTTP. It only writes their rows: the Housekeeper starts
and follows their drivers (catalog.batches)."""

import asyncio
import json
import time
from functools import lru_cache, partial

import uuid_utils

from catalog.batches.items import BatchItems, ItemStatus
from catalog.batches.request import BatchRequest, UploadedManifest, output_of, run_options
from catalog.manifest.source import suffix_of
from catalog.run.config import is_under
from deployments.egress.webhooks import check_webhook_url
from monitoring.store_calls import count_store_call
from serve.config import CAMERA, AppConfig
from serve.errors import PERMISSION, REQUEST, ApiError
from serve.schemas import Batch, BatchItem, BatchItemList, BatchList, CreateBatch
from serve.schemas.batches import item_id
from serve.services.store_threads import StoreThreads
from storage import keys
from storage.batches import Batch as StoredBatch
from storage.batches import SqlBatches
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
        self._config, self._model = config, model
        self._batches, self._files, self._store = batches, files, store
        self._objects = config.object_store
        bucket = partial(in_bucket, config.object_store, hear=count_store_call)
        self._bucket = lru_cache(_BUCKETS_KEPT)(bucket)

    async def create(
        self, create: CreateBatch, tenant: Tenant, once: Idempotency | None
    ) -> tuple[Batch, bool]:
        """Raises ApiError 400 and 403, WebhookNotAllowed, FileNotFound, IdempotencyConflict,
        OutputTaken and QuotaExceeded. True: it stood under the idempotency key."""
        if once is not None:
            standing = await asyncio.to_thread(self._batches.find, tenant.name, once)
            if standing is not None:
                return self._wire(standing), True
        batch = await self._new(create, tenant.name)
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
        options = run_options(batch, _request(batch), self._objects.bucket, self._config.catalog)
        output = output_of(options, self._bucket(options.bucket))
        items = BatchItems(output, options, tenant, self._batches)
        page = await self._store.run(items.page, status, after, limit)
        data = [BatchItem.of(item) for item in page.items]
        return BatchItemList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=item_id(page.seen) if page.seen >= 0 else None,
            has_more=page.more,
        )

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """One that has ended stays as it ended. Raises BatchNotFound."""
        return self._wire(await asyncio.to_thread(self._batches.ask_to_cancel, tenant, batch_id))

    async def _new(self, create: CreateBatch, tenant: str) -> StoredBatch:
        config, now = self._config, time.time()
        if create.webhook is not None:
            check_webhook_url(create.webhook, config.egress)
        for name, value, known in (
            ("model", create.model, (self._model, CAMERA)),
            ("preset", create.preset, config.presets),
            ("category", create.category, config.categories),
        ):
            if value is not None and value not in known:
                message = f"no {name} {value!r}; there are {', '.join(known)}"
                raise ApiError(400, REQUEST, "invalid_parameter", message, name)
        batch_id = f"batch_{uuid_utils.uuid7().hex}"
        own = f"s3://{self._objects.bucket}/{keys.batch_folder(tenant, batch_id)}"
        request = BatchRequest(
            file=await self._uploaded(create, tenant),
            input_uri=self._readable(create.input_uri, tenant),
            run=create.of_the_run(),
            dry_run=create.dry_run,
            completion_window=create.completion_window,
            metadata=create.metadata or {},
        )
        batch = StoredBatch(
            id=batch_id,
            tenant=tenant,
            request=json.dumps(request.model_dump(exclude_defaults=True)),
            output_uri=self._writable(create.output_prefix, tenant) or own,
            webhook=create.webhook,
            expires_at=None if create.window is None else now + create.window.total_seconds(),
        )
        run_options(batch, request, self._objects.bucket, config.catalog)  # raises, if it cannot
        return batch

    async def _uploaded(self, create: CreateBatch, tenant: str) -> UploadedManifest | None:
        """Raises FileNotFound and ApiError."""
        if create.input_file_id is None:
            return None
        file = await asyncio.to_thread(self._files.get, tenant, create.input_file_id)
        if file.purpose != "batch":
            message = f"file {file.id} was uploaded for {file.purpose!r}, not for 'batch'"
            raise ApiError(400, REQUEST, "invalid_parameter", message, "input_file_id")
        return UploadedManifest(id=file.id, sha256=file.sha256, suffix=suffix_of(file.filename))

    def _readable(self, uri: str | None, tenant: str) -> str | None:
        allowed = self._config.catalog.inputs_of(tenant)
        if uri is not None and not is_under(uri, allowed):
            raise _not_allowed("input_uri", uri, "read", allowed)
        if uri is not None and not uri.endswith("/"):
            suffix_of(uri)
        return uri

    def _writable(self, uri: str | None, tenant: str) -> str | None:
        if uri is None:
            return None
        uri = uri.rstrip("/")
        allowed = self._config.catalog.outputs_of(tenant)
        if not is_under(uri, allowed):
            raise _not_allowed("output_prefix", uri, "write", allowed)
        return uri

    def _wire(self, batch: StoredBatch) -> Batch:
        request = _request(batch)
        options = run_options(batch, request, self._objects.bucket, self._config.catalog)
        model = options.model or self._config.default_model_name
        return Batch.of(batch, request, options.run_id, model)


def _request(batch: StoredBatch) -> BatchRequest:
    return BatchRequest.model_validate_json(batch.request)


def _not_allowed(param: str, uri: str, verb: str, allowed: tuple[str, ...]) -> ApiError:
    where = f"in {', '.join(allowed)}" if allowed else "nowhere: use /v1/files, or the default"
    message = f"{uri} is not where you may {verb}: {where}"
    return ApiError(403, PERMISSION, f"{param}_not_allowed", message, param)
