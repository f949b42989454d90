"""`GET /v1/videos/{id}/content`: the files of a finished video, whole, in ranges, or elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from serve.edge.giving import FileRequest
from serve.edge.memory import share_of
from serve.services.contents import Contents, Variant
from storage.tenants import Tenant

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the file",
        "content": {"video/mp4": _BYTES, "image/webp": _BYTES, "application/json": {}},
    },
    206: {
        "description": "the part asked for by `Range`",
        "content": {"video/mp4": _BYTES, "image/webp": _BYTES, "application/json": {}},
    },
    302: {"description": "`redirect=1`: a URL of the object store that needs no key, for 15 min"},
    304: {"description": "unchanged since that ETag"},
    416: {"description": "the range begins past the end"},
}


def content_routes(contents: Contents, tenant_of: Callable[..., Any]) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/videos/{video_id}/content",
        response_class=Response,
        responses=_ANSWERS,
        operation_id="download_content",
    )
    async def get_content(
        video_id: str,
        request: Request,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        asked: Annotated[FileRequest, Depends()],
        variant: Variant = "video",
        candidate: Annotated[
            int | None, Query(ge=0, description="one of several clips; left out: the selected one")
        ] = None,
        redirect: bool = False,
    ) -> Response:
        content = await contents.find(tenant.name, video_id, variant, candidate)
        if redirect:
            url = contents.presigned(content)
            return RedirectResponse(url, 302, {"Cache-Control": "no-store"})  # it expires
        return await asked.answered(
            content.etag,
            content.media_type,
            {"Content-Disposition": f'attachment; filename="{content.filename}"'},
            partial(contents.size_bytes, content),
            partial(contents.read, content, share=share_of(request)),
        )

    return router
