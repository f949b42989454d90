"""The HTTP API: routes under /v1, health and the OpenAPI description."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from serve.errors import ANSWERED, REQUEST, ApiError, respond, unknown_parameter
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
from storage.job_store import Idempotency
from storage.jobs import JobStatus

TENANT = "default"
"""Until API keys name tenants, a server that listens on loopback only serves one."""

_POLL_AFTER_MS = 1000
_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope}}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "unchanged since that ETag"}}
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)

IfNoneMatch = Annotated[str | None, Header()]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[ -~]*$",
        description="Makes a repeat safe: the same key with the same body answers with the job that"
        " stands and `Idempotency-Replayed: true`, with another body 409 `idempotency_conflict`.",
    ),
]


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
    for error in ANSWERED:
        app.add_exception_handler(error, respond)
    app.add_exception_handler(HTTPException, _respond_http)

    @app.post(
        "/v1/videos",
        status_code=202,
        openapi_extra={"requestBody": create_body_schema()[0]},
    )
    async def create_video(
        request: Request, response: Response, idempotency_key: IdempotencyKey = None
    ) -> Video:
        create, photo, fingerprint = await _read_create(request)
        once = None if idempotency_key is None else Idempotency(idempotency_key, fingerprint)
        video, replayed = await videos.create(create, photo, TENANT, once)
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
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

    @app.get("/v1/videos/{video_id}", response_model=Video, responses=_UNCHANGED)
    async def get_video(
        video_id: str, response: Response, if_none_match: IfNoneMatch = None
    ) -> Video | Response:
        video = await videos.get(TENANT, video_id)
        digest = hashlib.sha256(video.model_dump_json().encode()).hexdigest()
        headers = {"ETag": f'W/"{digest}"'}
        if not video.status.is_terminal:
            headers["openai-poll-after-ms"] = str(_POLL_AFTER_MS)
        if _is_known(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return video

    @app.get("/v1/videos/{video_id}/content", response_class=Response, responses=_UNCHANGED)
    async def get_content(
        video_id: str,
        variant: Variant = "video",
        redirect: bool = False,
        range_: Annotated[str, Header(alias="Range")] = "",
        if_none_match: IfNoneMatch = None,
        if_range: Annotated[str | None, Header()] = None,
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
        if _is_known(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        same = if_range is None or if_range == headers["ETag"]  # else: send the whole anew
        wanted = _parse_range(range_) if same else None
        if wanted is None:
            return Response(await videos.read(content), 200, headers, content.media_type)
        size = await videos.size_bytes(content)
        part = range(size)[wanted]
        if not part:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        return Response(await videos.read(content, part), 206, headers, content.media_type)

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


async def _read_create(request: Request) -> tuple[CreateVideo, bytes, str]:
    """The parameters, the photo and the fingerprint of a create request, multipart or JSON.

    FastAPI declares one body type per route, hence by hand. Raises ApiError, ValidationError.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        fields = await _form_fields(request)
        form = CreateVideoForm.model_validate(fields)
        return form, form.input_reference, _form_fingerprint(fields)
    if media_type == "application/json":
        text = await request.body()
        body = CreateVideoJson.model_validate(_json(text))
        photo = _from_data_url(body.input_reference.image_url)
        return body, photo, hashlib.sha256(text).hexdigest()
    raise ApiError(
        415,
        REQUEST,
        "unsupported_media_type",
        "send multipart/form-data with a file, or application/json with a data URL",
    )


async def _form_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    async with request.form(max_files=10, max_fields=100) as form:
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


def _form_fingerprint(fields: Mapping[str, str | bytes]) -> str:
    """Of what a form says, not of its bytes: every retry draws another boundary."""
    said = {
        name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
    except ValueError as e:  # binascii.Error is one
        raise ApiError(400, REQUEST, "invalid_parameter", f"not base64: {e}", param) from e


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ApiError(400, REQUEST, "invalid_json", f"not valid JSON: {e}") from e


def _parse_range(header: str) -> slice | None:
    """One byte range. None for several at once, which may be answered with the whole, and for what
    is none, which must be (RFC 9110 §14)."""
    matched = _RANGE.fullmatch(header.replace(" ", ""))
    if matched is None:
        return None
    first, last, suffix = matched.groups()
    if suffix is not None:
        return slice(-int(suffix), None) if int(suffix) else slice(0)
    start, stop = int(first), None if last is None else int(last) + 1
    return slice(start, stop) if stop is None or start < stop else None


def _is_known(etag: str, if_none_match: str | None) -> bool:
    """RFC 9110 §13.1.2, whose comparison is the weak one."""
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in known or etag.removeprefix("W/") in known


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
    response = await respond(request, ApiError(error.status_code, kind, code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response
