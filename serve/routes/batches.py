"""`/v1/batches`: catalogue runs, in the shape of OpenAI's batches; their reports."""

import hashlib
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from catalog.batches.items import ItemStatus
from catalog.report.publish import ERRORS, FILES, REPORT
from serve.edge.auth import Authenticator
from serve.edge.giving import FileRequest
from serve.edge.idempotency import IdempotencyKey
from serve.edge.memory import share_of
from serve.schemas import Batch, BatchItemList, BatchList, CreateBatch
from serve.schemas.batches import INPUTS
from serve.services.batches import Batches
from serve.services.create_request import read_json
from serve.services.run_file import RunFile
from storage.job_contract import Idempotency
from storage.tenants import Tenant

BatchId = Annotated[str, Path(max_length=128)]
Asked = Annotated[FileRequest, Depends()]

_NO_SCRIPT = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Its links go on with the reader's key, which other origins' would not.
        "sandbox allow-same-origin allow-downloads",
    )
)
"""A run's folder may be one that its tenant writes to, so what lies there is anybody's HTML."""
_VIDEO_TYPES = {"mp4": "video/mp4", "webp": "image/webp"}


def batch_routes(batches: Batches, tenant_of: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/batches",
        status_code=202,
        openapi_extra={"requestBody": _body_schema()},
        operation_id="create_batch",
    )
    async def create_batch(
        request: Request,
        response: Response,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        idempotency_key: IdempotencyKey = None,
    ) -> Batch:
        create = CreateBatch.model_validate(await read_json(request))
        once = None
        if idempotency_key is not None:
            said = hashlib.sha256(await request.body()).hexdigest()
            once = Idempotency(idempotency_key, said)
        batch, replayed = await batches.create(create, tenant, once)
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
        response.headers["Location"] = f"/v1/batches/{batch.id}"
        return batch

    @router.get("/v1/batches", operation_id="list_batches")
    async def list_batches(
        tenant: Annotated[Tenant, Depends(tenant_of)],
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> BatchList:
        return await batches.list_batches(tenant.name, after, limit)

    @router.get("/v1/batches/{batch_id}", operation_id="get_batch")
    async def get_batch(batch_id: BatchId, tenant: Annotated[Tenant, Depends(tenant_of)]) -> Batch:
        return await batches.get(tenant.name, batch_id)

    @router.get("/v1/batches/{batch_id}/items", operation_id="list_batch_items")
    async def list_batch_items(
        batch_id: BatchId,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        status: ItemStatus | None = None,
        after: Annotated[str | None, Query(pattern="^row_[0-9]{1,12}$")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> BatchItemList:
        row = -1 if after is None else int(after.removeprefix("row_"))
        return await batches.items(tenant.name, batch_id, status, row, limit)

    @router.post("/v1/batches/{batch_id}/cancel", operation_id="cancel_batch")
    async def cancel_batch(
        batch_id: BatchId, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> Batch:
        return await batches.cancel(tenant.name, batch_id)

    @router.get(
        "/v1/batches/{batch_id}/report",
        response_class=Response,
        responses=_answers("report.html, one file with all that it shows", "text/html"),
        operation_id="get_batch_report",
    )
    async def get_batch_report(
        batch_id: BatchId,
        request: Request,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        asked: Asked,
    ) -> Response:
        file = await batches.report(tenant.name, batch_id, REPORT)
        more = {"Content-Security-Policy": _NO_SCRIPT}
        return await _given(file, FILES[REPORT], more, request, asked)

    @router.get(
        "/v1/batches/{batch_id}/errors.csv",
        response_class=Response,
        responses=_answers("every row without a video, with its message", "text/csv"),
        operation_id="get_batch_errors",
    )
    async def get_batch_errors(
        batch_id: BatchId,
        request: Request,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        asked: Asked,
    ) -> Response:
        file = await batches.report(tenant.name, batch_id, ERRORS)
        more = {"Content-Disposition": f'attachment; filename="{batch_id}-{ERRORS}"'}
        return await _given(file, FILES[ERRORS], more, request, asked)

    @router.get(
        "/v1/batches/{batch_id}/videos/{shard}/{name}",
        response_class=Response,
        responses=_answers("what the report links to: a video of the run", *_VIDEO_TYPES.values()),
        operation_id="get_batch_video",
    )
    async def get_batch_video(
        batch_id: BatchId,
        shard: Annotated[str, Path(pattern="^[0-9]{5,8}$")],
        name: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,80}\.(mp4|webp)$")],
        request: Request,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        asked: Asked,
    ) -> Response:
        file = await batches.video(tenant.name, batch_id, shard, name)
        media_type = _VIDEO_TYPES[name.rpartition(".")[2]]
        return await _given(file, media_type, {}, request, asked)

    return router


async def _given(
    file: RunFile, media_type: str, more: dict[str, str], request: Request, asked: FileRequest
) -> Response:
    read = partial(file.read, share=share_of(request))
    return await asked.answered(file.info.etag, media_type, more, file.size_bytes, read)


def _answers(what: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {name: {"schema": schema} for name in media_types}
    return {
        200: {"description": what, "content": content},
        206: {"description": "the part asked for by `Range`", "content": content},
        304: {"description": "unchanged since that ETag"},
        416: {"description": "the range begins past the end"},
    }


def _body_schema() -> dict[str, Any]:
    """OpenAPI's requestBody."""
    schema = CreateBatch.model_json_schema()
    del schema["properties"]["endpoint"]["default"]
    one_input = [{"required": [name]} for name in INPUTS]
    return {
        "required": True,
        "content": {"application/json": {"schema": schema | {"anyOf": one_input}}},
    }
