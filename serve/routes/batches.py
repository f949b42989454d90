"""`/v1/batches`: catalogue runs, in the shape of OpenAI's batches."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from catalog.batches.items import ItemStatus
from serve.edge.auth import Authenticator
from serve.edge.idempotency import IdempotencyKey
from serve.schemas import Batch, BatchItemList, BatchList, CreateBatch
from serve.services.batches import Batches
from serve.services.create_request import read_json
from storage.job_contract import Idempotency
from storage.tenants import Tenant

BatchId = Annotated[str, Path(max_length=128)]


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

    return router


def _body_schema() -> dict[str, Any]:
    """OpenAPI's requestBody."""
    schema = CreateBatch.model_json_schema()
    del schema["properties"]["endpoint"]["default"]
    one_input = [{"required": [name]} for name in ("input_file_id", "input_uri")]
    return {
        "required": True,
        "content": {"application/json": {"schema": schema | {"anyOf": one_input}}},
    }
