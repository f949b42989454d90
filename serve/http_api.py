"""The HTTP API: routes under /v1, health and the OpenAPI description."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from serve.errors import REQUEST, ApiError, respond, unknown_parameter
from serve.middleware import BodyLimit, RequestId
from serve.schemas import (
    CreateVideo,
    CreateVideoForm,
    CreateVideoJson,
    ErrorEnvelope,
    Health,
    Readiness,
    Video,
    VideoList,
    create_body_schema,
)
from serve.videos import Variant, Videos
from storage.jobs import JobStatus

TENANT = "default"
"""Until API keys name tenants, a server that listens on loopback only serves one."""

_POLL_AFTER_MS = 1000
_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope}}


def create_app(videos: Videos) -> FastAPI:
    """The ASGI application over `videos`."""
    app = _App(
        title="Shopreel",
        version="1",
        docs_url=None,  # Swagger UI loads scripts from an outside host
        redoc_url=None,
        dependencies=[Depends(_refuse_unknown_query)],
        responses=_ERRORS,
    )
    app.add_middleware(BodyLimit, max_bytes=videos.config.limits.max_body_bytes)
    app.add_middleware(RequestId)
    for error in (Exception, RequestValidationError, ValidationError, ApiError):
        app.add_exception_handler(error, respond)
    app.add_exception_handler(HTTPException, _respond_http)

    @app.post(
        "/v1/videos",
        status_code=202,
        openapi_extra={"requestBody": create_body_schema()[0]},
    )
    async def create_video(request: Request, response: Response) -> Video:
        create, photo = await _read_create(request)
        video = await videos.create(create, photo, TENANT)
        response.headers["Location"] = f"/v1/videos/{video.id}"
        response.headers["openai-poll-after-ms"] = str(_POLL_AFTER_MS)
        return video

    @app.get("/v1/videos")
    async def list_videos(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        status: JobStatus | None = None,
        sku: str | None = None,
    ) -> VideoList:
        return await videos.list_videos(TENANT, after, limit, order, status, sku)

    @app.get("/v1/videos/{video_id}")
    async def get_video(video_id: str, response: Response) -> Video:
        video = await videos.get(TENANT, video_id)
        if not video.status.is_terminal:
            response.headers["openai-poll-after-ms"] = str(_POLL_AFTER_MS)
        return video

    @app.get("/v1/videos/{video_id}/content", response_class=Response)
    async def get_content(
        video_id: str,
        variant: Variant = "video",
        redirect: bool = False,
        range_: Annotated[str | None, Header(alias="Range")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        content = await videos.content(TENANT, video_id, variant)
        if redirect:
            return RedirectResponse(videos.presigned(content), 302)
        headers = {
            "ETag": f'"{content.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{content.filename}"',
            "X-Content-Type-Options": "nosniff",
        }
        if if_none_match is not None and f'"{content.etag}"' in if_none_match:
            return Response(status_code=304, headers=headers)
        data = await videos.read(content)
        return _ranged(data, range_, content.media_type, headers)

    @app.get("/healthz")
    async def healthz() -> Health:
        return Health()

    @app.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        broken = await videos.broken()
        response.status_code = 503 if broken else 200
        return Readiness(status="not_ready" if broken else "ready", broken=broken)

    return app


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's description, with the schemas of the body that we read ourselves."""
        schema = super().openapi()
        schema["components"]["schemas"].update(create_body_schema()[1])
        return schema


async def _read_create(request: Request) -> tuple[CreateVideo, bytes]:
    """The parameters and the photo of a create request, multipart or JSON.

    FastAPI declares one body type per route, hence by hand. Raises ApiError, ValidationError.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        form = CreateVideoForm.model_validate(await _form_fields(request))
        return form, form.input_reference
    if media_type == "application/json":
        body = CreateVideoJson.model_validate(_json(await request.body()))
        return body, _from_data_url(body.input_reference.image_url)
    raise ApiError(
        415,
        REQUEST,
        "unsupported_media_type",
        "send multipart/form-data with a file, or application/json with a data URL",
    )


async def _form_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    async with request.form(max_files=1, max_fields=100) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise ApiError(400, REQUEST, "invalid_parameter", f"{name!r} is given twice", name)
            is_file = isinstance(value, UploadFile)
            if is_file != (name == "input_reference"):
                if name not in CreateVideoForm.model_fields:
                    raise unknown_parameter(name)
                expected = "a text field" if is_file else "a file part"
                raise ApiError(400, REQUEST, "invalid_parameter", f"{name} is {expected}", name)
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
    return fields


def _from_data_url(url: str) -> bytes:
    matched = re.match(r"data:image/[a-z+.-]+;base64,", url)
    param = "input_reference.image_url"
    if matched is None:
        raise ApiError(
            400,
            REQUEST,
            "fetch_blocked",
            "this server fetches nothing: send the photo as a base64 data URL or as a file",
            param,
        )
    try:
        return base64.b64decode(url[matched.end() :], validate=True)
    except binascii.Error as e:
        raise ApiError(400, REQUEST, "invalid_parameter", f"not base64: {e}", param) from e


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ApiError(400, REQUEST, "invalid_json", f"not valid JSON: {e}") from e


def _ranged(data: bytes, header: str | None, media_type: str, headers: dict[str, str]) -> Response:
    """One byte range (RFC 9110 §14); several at once are answered with the whole, as it allows."""
    matched = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if matched is None or not any(matched.groups()):
        return Response(data, 200, headers, media_type)
    first, last = matched.groups()
    size = len(data)
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Response(data[start:stop], 206, headers, media_type)


async def _refuse_unknown_query(request: Request) -> None:
    known = {param.alias for param in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name)


async def _respond_http(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals (no such route, wrong method, bad form) in our envelope."""
    assert isinstance(error, HTTPException)
    kind = "not_found_error" if error.status_code == 404 else REQUEST
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return await respond(request, ApiError(error.status_code, kind, code, str(error.detail)))
