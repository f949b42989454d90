"""A video's states as Server-Sent Events. The stream reads the job table only, so a caller who goes
away touches no work, and one who comes back misses nothing that still holds."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from serve.schemas import Video
from serve.schemas.video import VideoError
from serve.services.watch import Watch
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobStatus

log = logging.getLogger(__name__)

_PING_S = 15
_RETRY_MS = 2_000
_SEND_TIMEOUT_S = 60.0
"""A caller who reads nothing for so long is gone."""

_HEADERS = {"Cache-Control": "no-store"}

Describe = Callable[[Job], Awaitable[Video]]
MayListen = Callable[[], Awaitable[bool]]
"""Whether the caller's key still holds."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Of what no change of the job's row tells."""

    refresh_s: float = 5.0  # a queued job's place and ETA: a query each time
    check_s: float = 10.0  # the key, at the first refresh after so long


PACE = Pace()


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
    may_listen: MayListen,
    over: Callable[[], None] = lambda: None,
    pace: Pace = PACE,
) -> EventSourceResponse:
    """`job` as it is, and every state that follows until it has ended or is deleted; without the
    first where the caller has seen it (`last_event_id`), unless that is the end. While it is
    queued, its place and its ETA again when they have changed, under the id that stands. Ends too
    when the caller may not listen any more. `over` is called when the caller is served or gone."""
    return _Stream(
        _events(job, watch, describe, last_event_id, may_listen, pace),
        over=over,
        ping=_PING_S,
        send_timeout=_SEND_TIMEOUT_S,
        headers=_HEADERS,
    )


def no_events() -> EventSourceResponse:
    """The headers of a stream."""

    async def nothing() -> AsyncIterator[ServerSentEvent]:
        none: tuple[ServerSentEvent, ...] = ()
        for event in none:
            yield event

    return EventSourceResponse(nothing(), headers=_HEADERS)


async def _events(
    job: Job,
    watch: Watch,
    describe: Describe,
    last_event_id: str | None,
    may_listen: MayListen,
    pace: Pace,
) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=_RETRY_MS)
    told = None
    if job.status.is_terminal or str(job.rev) != last_event_id:
        told = await _status(job, describe)
        yield _event(job, told)
    if job.status.is_terminal:
        return
    seen, checked = job.rev, time.monotonic()
    async with aclosing(watch.follow(job.id, job.rev, pace.refresh_s)) as states:
        async for state in states:
            if time.monotonic() - checked >= pace.check_s:
                if not await may_listen():
                    return
                checked = time.monotonic()
            if state.rev == seen and state.status is not JobStatus.QUEUED:
                continue
            status = await _status(state, describe)
            if state.rev != seen or status != told:
                yield _event(state, status)
            seen, told = state.rev, status


async def _status(job: Job, describe: Describe) -> VideoStatus:
    try:
        video = await describe(job)
    except StoreUnavailable:  # its place and ETA are not known now; its state is
        log.warning("the job table does not answer", exc_info=True)
        video = Video.of(job)
    return VideoStatus.model_validate(video, from_attributes=True)


def _event(job: Job, status: VideoStatus) -> ServerSentEvent:
    return ServerSentEvent(status.model_dump_json(), event="status", id=str(job.rev))
