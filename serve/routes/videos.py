"""`/v1/videos`: create, list, find, watch, cancel, delete and rate."""

import hashlib
import re
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

from serve.edge.auth import Authenticator
from serve.edge.idempotency import IdempotencyKey
from serve.edge.middleware import is_head
from serve.edge.rfc9110 import is_known
from serve.edge.tracking import ORIGIN
from serve.schemas import Video, VideoDeleted, VideoFeedback, VideoList, create_body_schema
from serve.services.create_request import read_create, read_json
from serve.services.events import no_events
from serve.services.videos import Videos
from storage.job_contract import Idempotency
from storage.jobs import JobStatus
from storage.tenants import Tenant

_LONGEST_WAIT_S = 60
_SOONEST_POLL_MS, _LATEST_POLL_MS = 1_000, 10_000
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,6})(?:$|[,;\s])", re.IGNORECASE)

IfNoneMatch = Annotated[str | None, Header()]
Prefer = Annotated[
    str | None,
    Header(
        description=f"`wait=N` holds the answer back until the video has ended, {_LONGEST_WAIT_S} s"
        " at most, or until the server restarts. Going away cancels nothing."
    ),
]
_EVENTS = (
    "a `status` event (VideoStatus of serve.services.events, as JSON) per change, the last one at"
    " the end; while it is queued, also when its place or ETA has changed, with the same id. Ends"
    " early when the API key is revoked, and when the server restarts: `Last-Event-ID` resumes it"
)
_CREATED = "accepted; ended already (waited for, or the same video was made before)"


def video_routes(videos: Videos, tenant_of: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/videos",
        status_code=202,
        responses={200: {"model": Video, "description": _CREATED}},
        openapi_extra={"requestBody": create_body_schema()[0]},
        operation_id="create_video",
    )
    async def create_video(
        request: Request,
        response: Response,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> Video:
        create = await read_create(request)
        once = None
        if idempotency_key is not None:
            once = Idempotency(idempotency_key, create.fingerprint)
        origin = request.scope[ORIGIN]
        video, replayed = await videos.create(create.parameters, create.photo, tenant, once, origin)
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
        if wait_s := _wait_s(prefer):
            video, waited = await videos.wait(tenant.name, video, wait_s)
            if waited:
                response.headers["Preference-Applied"] = f"wait={wait_s}"
        response.status_code = 200 if video.status.is_terminal else 202
        response.headers["Location"] = f"/v1/videos/{video.id}"
        response.headers["openai-poll-after-ms"] = _poll_after_ms(video)
        return video

    @router.get("/v1/videos", operation_id="list_videos")
    async def list_videos(
        tenant: Annotated[Tenant, Depends(tenant_of)],
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        status: JobStatus | None = None,
        sku: str | None = None,
        category: str | None = None,
        batch_id: str | None = None,
    ) -> VideoList:
        return await videos.list_videos(
            tenant.name,
            after,
            limit,
            order,
            status=status,
            sku=sku,
            category=category,
            batch_id=batch_id,
        )

    @router.get(
        "/v1/videos/{video_id}",
        response_model=Video,
        responses={304: {"description": "unchanged since that ETag"}},
        operation_id="get_video",
    )
    async def get_video(
        video_id: str,
        response: Response,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        if_none_match: IfNoneMatch = None,
    ) -> Video | Response:
        video = await videos.get(tenant.name, video_id)
        digest = hashlib.sha256(video.model_dump_json().encode()).hexdigest()
        headers = {"ETag": f'W/"{digest}"'}
        if not video.status.is_terminal:
            headers["openai-poll-after-ms"] = _poll_after_ms(video)
        if is_known(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return video

    @router.get(
        "/v1/videos/{video_id}/events",
        response_class=EventSourceResponse,
        responses={200: {"description": _EVENTS, "content": {"text/event-stream": {}}}},
        operation_id="watch_video",
    )
    async def watch_video(
        video_id: str,
        request: Request,
        tenant: Annotated[Tenant, Depends(tenant_of)],
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> EventSourceResponse:
        if is_head(request):
            await videos.job(tenant.name, video_id)
            return no_events()
        still = partial(tenant_of.still_knows, request)
        return await videos.events(tenant.name, video_id, last_event_id, still)

    @router.post("/v1/videos/{video_id}/cancel", operation_id="cancel_video")
    async def cancel_video(video_id: str, tenant: Annotated[Tenant, Depends(tenant_of)]) -> Video:
        return await videos.cancel(tenant.name, video_id)

    @router.delete("/v1/videos/{video_id}", operation_id="delete_video")
    async def delete_video(
        video_id: str, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> VideoDeleted:
        await videos.delete(tenant.name, video_id)
        return VideoDeleted(id=video_id)

    @router.post(
        "/v1/videos/{video_id}/feedback",
        openapi_extra={"requestBody": _json_body(VideoFeedback)},
        operation_id="rate_video",
    )
    async def rate_video(
        video_id: str, request: Request, tenant: Annotated[Tenant, Depends(tenant_of)]
    ) -> Video:
        # By hand: FastAPI would read and parse the body before it asks for the key.
        feedback = VideoFeedback.model_validate(await read_json(request))
        return await videos.rate(tenant.name, video_id, feedback)

    return router


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's requestBody."""
    schema = model.model_json_schema()
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _wait_s(prefer: str | None) -> int:
    """Seconds of `Prefer: wait=N` (RFC 7240 §4.3); 0 where there is none."""
    matched = _WAIT.search(prefer or "")
    return min(int(matched.group(1)), _LONGEST_WAIT_S) if matched else 0


def _poll_after_ms(video: Video) -> str:
    """When to ask again: a tenth of what is left, as the answer changes little before."""
    left_ms = 100 * (video.eta_seconds or 0.0)
    return str(round(min(max(left_ms, _SOONEST_POLL_MS), _LATEST_POLL_MS)))
