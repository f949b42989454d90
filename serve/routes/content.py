"""`GET /v1/videos/{id}/content`: the files of a finished video, whole, in ranges, or elsewhere."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import RedirectResponse

from serve.edge.memory import share_of
from serve.edge.middleware import is_head
from serve.edge.rfc9110 import is_known, parse_range
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
        variant: Variant = "video",
        candidate: Annotated[
            int | None, Query(ge=0, description="one of several clips; left out: the selected one")
        ] = None,
        redirect: bool = False,
        range_: Annotated[str, Header(alias="Range")] = "",
        if_none_match: Annotated[str | None, Header()] = None,
        if_range: Annotated[str | None, Header()] = None,
    ) -> Response:
        content = await contents.find(tenant.name, video_id, variant, candidate)
        if redirect:
            url = contents.presigned(content)
            return RedirectResponse(url, 302, {"Cache-Control": "no-store"})  # it expires
        headers = {
            "ETag": f'"{content.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{content.filename}"',
            "X-Content-Type-Options": "nosniff",
        }
        if is_known(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        same = if_range is None or if_range == headers["ETag"]  # else: send the whole anew
        wanted = parse_range(range_) if same else None
        size = await contents.size_bytes(content)
        part = range(size) if wanted is None else range(size)[wanted]
        if wanted is not None and not part:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        status = 200 if wanted is None else 206
        if is_head(request):
            headers["Content-Length"] = str(len(part))
            return Response(None, status, headers, content.media_type)
        data = await contents.read(content, part, share_of(request))
        return Response(data, status, headers, content.media_type)

    return router
