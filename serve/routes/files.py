"""`/v1/files`: photos that any number of videos use, and manifests, in the shape of OpenAI's."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from serve.edge.idempotency import IdempotencyKey
from serve.edge.memory import share_of
from serve.edge.middleware import is_head
from serve.errors import unknown_parameter
from serve.schemas import CreateFile, File, FileDeleted, FileList, file_body_schema
from serve.services.create_request import form_fields
from serve.services.files import MANIFEST_TYPES, Files
from storage.tenants import Tenant

_CONTENTS: dict[str, Any] = {"image/*": {}} | {name: {} for name in MANIFEST_TYPES.values()}


def file_routes(files: Files, tenant_of: Callable[..., Any]) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/files",
        openapi_extra={"requestBody": file_body_schema()[0]},
        operation_id="create_file",
    )
    async def create_file(
        request: Request,
        response: Response,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        idempotency_key: IdempotencyKey = None,
    ) -> File:
        file, replayed = await files.create(await _read_file(request), tenant, idempotency_key)
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return file

    @router.get("/v1/files", operation_id="list_files")
    async def list_files(
        tenant: Annotated[Tenant, Depends(tenant_of)],
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        return await files.list_files(tenant.name, after, limit, order)

    @router.get("/v1/files/{file_id}", operation_id="get_file")
    async def get_file(file_id: str, tenant: Annotated[Tenant, Depends(tenant_of)]) -> File:
        return File.of(await files.get(tenant.name, file_id))

    @router.get(
        "/v1/files/{file_id}/content",
        response_class=Response,
        responses={200: {"content": _CONTENTS, "description": "the bytes as uploaded"}},
        operation_id="get_file_content",
    )
    async def get_file_content(
        file_id: str, request: Request, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> Response:
        file = await files.get(tenant.name, file_id)
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(file.size_bytes),
        }
        data = None if is_head(request) else await files.read(file, share_of(request))
        return Response(data, 200, headers, file.media_type)

    @router.delete("/v1/files/{file_id}", operation_id="delete_file")
    async def delete_file(
        file_id: str, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> FileDeleted:
        await files.delete(tenant.name, file_id)
        return FileDeleted(id=file_id)

    return router


async def _read_file(request: Request) -> CreateFile:
    """Raises ApiError and pydantic's ValidationError."""
    fields, filename = await form_fields(request, "file", CreateFile.model_fields)
    if "filename" in fields:  # it stands in the part's own header
        raise unknown_parameter("filename")
    return CreateFile.model_validate({**fields, "filename": filename or "photo"})
