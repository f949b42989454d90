"""A video's states as Server-Sent Events. The stream reads the job table only, so a caller who goes
away touches no work, and one who comes back misses nothing that still holds."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from serve.schemas import Video
from serve.schemas.video import VideoError
from serve.watch import Watch
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobStatus

log = logging.getLogger(__name__)

_PING_S = 15
_RETRY_MS = 2_000
_SEND_TIMEOUT_S = 60.0
"""A caller who reads nothing for so long is gone."""

Describe = Callable[[Job], Awaitable[Video]]


class VideoStatus(BaseModel):
    """The data of a `status` event; the `id` of the event is the job's rev."""

    id: str
    status: JobStatus
    stage: str | None
    step: int
    steps: int
    progress: int
    queue_position: int | None
    eta_seconds: float | None
    error: VideoError | None


class _Stream(EventSourceResponse):
    """Says when it is over, however it ends."""

    def __init__(self, *args: Any, over: Callable[[], None], **more: Any):
        super().__init__(*args, **more)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def event_stream(
    job: Job,
    watch: Watch,
    describe: Describe,
    last_event_id: str | None,
    over: Callable[[], None] = lambda: None,
) -> EventSourceResponse:
    """`job` as it is, and every state that follows until it has ended or is deleted; without the
    first where the caller has seen it (`last_event_id`), unless that is the end. `over` is called
    when the caller is served or gone."""
    return _Stream(
        _events(job, watch, describe, last_event_id),
        over=over,
        ping=_PING_S,
        send_timeout=_SEND_TIMEOUT_S,
        headers={"Cache-Control": "no-store"},
    )


async def _events(
    job: Job, watch: Watch, describe: Describe, last_event_id: str | None
) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=_RETRY_MS)
    ended = job.status.is_terminal
    if ended or str(job.rev) != last_event_id:
        yield await _event(job, describe)
    if ended:
        return
    async with aclosing(watch.follow(job.id, job.rev)) as states:
        async for state in states:
            yield await _event(state, describe)


async def _event(job: Job, describe: Describe) -> ServerSentEvent:
    try:
        video = await describe(job)
    except StoreUnavailable:  # its place and ETA are not known now; its state is
        log.warning("the job table does not answer", exc_info=True)
        video = Video.of(job)
    status = VideoStatus.model_validate(video, from_attributes=True)
    return ServerSentEvent(status.model_dump_json(), event="status", id=str(job.rev))
