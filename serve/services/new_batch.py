"""What a batch is made of when it is asked for: its manifest, its folder, what its run is to do."""

import asyncio
import time

import uuid_utils

from catalog.batches.request import BatchRequest, UploadedManifest, run_options
from catalog.manifest.source import suffix_of
from catalog.run.config import is_under
from deployments.egress.webhooks import check_webhook_url
from serve.config import CAMERA, AppConfig
from serve.errors import CONFLICT, PERMISSION, REQUEST, ApiError
from serve.schemas import CreateBatch
from storage import keys
from storage.batches import Batch, BatchStatus, Counts, SqlBatches
from storage.files import SqlFiles


class NewBatches:
    """`model`: the name of the weights."""

    def __init__(self, config: AppConfig, model: str, batches: SqlBatches, files: SqlFiles):
        assert config.object_store is not None
        self._config, self._model = config, model
        self._batches, self._files = batches, files
        self._own = f"s3://{config.object_store.bucket}"

    async def of(self, create: CreateBatch, tenant: str) -> Batch:
        """Not stored yet. Raises ApiError 400, 403 and 409, WebhookNotAllowed, FileNotFound,
        BatchNotFound and ManifestRefused."""
        if create.retry_of is None:
            batch = await self._first(create, tenant)
        else:
            before = await asyncio.to_thread(self._batches.get, tenant, create.retry_of)
            batch = _again(create, before)
        self._check(batch)
        return batch

    async def _first(self, create: CreateBatch, tenant: str) -> Batch:
        for name, value, known in (
            ("model", create.model, (self._model, CAMERA)),
            ("preset", create.preset, self._config.presets),
            ("category", create.category, self._config.categories),
        ):
            if value is not None and value not in known:
                message = f"no {name} {value!r}; there are {', '.join(known)}"
                raise ApiError(400, REQUEST, "invalid_parameter", message, name)
        request = BatchRequest(
            file=await self._uploaded(create, tenant),
            input_uri=create.input_uri,
            run=create.of_the_run(),
            dry_run=create.dry_run,
            completion_window=create.completion_window,
            metadata=create.metadata or {},
        )
        batch_id, prefix = _new_id(), create.output_prefix
        own = f"{self._own}/{keys.batch_folder(tenant, batch_id)}"
        return Batch(
            id=batch_id,
            tenant=tenant,
            request=request.model_dump_json(exclude_defaults=True),
            output_uri=own if prefix is None else prefix.rstrip("/"),
            webhook=create.webhook,
            expires_at=_expires_at(create),
        )

    async def _uploaded(self, create: CreateBatch, tenant: str) -> UploadedManifest | None:
        """Raises FileNotFound and ApiError."""
        if create.input_file_id is None:
            return None
        file = await asyncio.to_thread(self._files.get, tenant, create.input_file_id)
        if file.purpose != "batch":
            message = f"file {file.id} was uploaded for {file.purpose!r}, not for 'batch'"
            raise ApiError(400, REQUEST, "invalid_parameter", message, "input_file_id")
        return UploadedManifest(id=file.id, sha256=file.sha256, suffix=suffix_of(file.filename))

    def _check(self, batch: Batch) -> None:
        """That its tenant may have it, by the folders and hosts that are allowed now."""
        request = BatchRequest.model_validate_json(batch.request)
        catalog, uri = self._config.catalog, request.input_uri
        if batch.webhook is not None:
            check_webhook_url(batch.webhook, self._config.egress)
        readable, writable = catalog.inputs_of(batch.tenant), catalog.outputs_of(batch.tenant)
        if uri is not None and not is_under(uri, readable):
            raise _not_allowed("input_uri", uri, "read", readable)
        if uri is not None and not uri.endswith("/"):
            suffix_of(uri)
        own = f"{self._own}/{request.folder(batch)}"
        if batch.output_uri != own and not is_under(batch.output_uri, writable):
            raise _not_allowed("output_prefix", batch.output_uri, "write", writable)
        run_options(batch, request, self._own.removeprefix("s3://"), catalog)


def _again(create: CreateBatch, before: Batch) -> Batch:
    """Goes on with the run of an earlier batch, with its folder and manifest. Raises ApiError 409
    where nothing is left to be made."""
    request = BatchRequest.model_validate_json(before.request)
    if request.dry_run:
        raise _nothing_to_retry(before, "a dry run: a batch of its own makes the videos")
    if before.status is BatchStatus.COMPLETED and not before.counts.failed:
        raise _nothing_to_retry(before, "completed, and none of its rows has failed")
    window = create.completion_window or request.completion_window
    request = request.model_copy(
        update={
            "origin": request.origin or before.id,
            "run": {**request.run, **create.of_the_run(), "retry_failed": True},
            "completion_window": window,
            "metadata": request.metadata if create.metadata is None else create.metadata,
        }
    )
    return Batch(
        id=_new_id(),
        tenant=before.tenant,
        request=request.model_dump_json(exclude_defaults=True),
        output_uri=before.output_uri,
        webhook=create.webhook or before.webhook,
        expires_at=_expires_at(create.model_copy(update={"completion_window": window})),
        counts=Counts(before.counts.total, before.counts.completed),
    )


def _new_id() -> str:
    return f"batch_{uuid_utils.uuid7().hex}"


def _expires_at(create: CreateBatch) -> float | None:
    """Unix seconds."""
    return None if create.window is None else time.time() + create.window.total_seconds()


def _not_allowed(param: str, uri: str, verb: str, allowed: tuple[str, ...]) -> ApiError:
    where = f"in {', '.join(allowed)}" if allowed else "nowhere: use /v1/files, or the default"
    message = f"{uri} is not where you may {verb}: {where}"
    return ApiError(403, PERMISSION, f"{param}_not_allowed", message, param)


def _nothing_to_retry(batch: Batch, why: str) -> ApiError:
    message = f"batch {batch.id} is {why}"
    return ApiError(409, CONFLICT, "nothing_to_retry", message, "retry_of")
