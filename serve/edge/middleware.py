"""What every request passes: a cap on its body, an id that is echoed, an answer to any failure,
HEAD where there is GET."""

import re
import uuid

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.edge.memory import SHARE, MemoryBudget
from serve.edge.tracking import tracked
from serve.errors import REQUEST, ApiError, respond

_HEAD = "is_head"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestId:
    """Echo X-Request-Id, or make one (Ray Serve's proxy does so itself: `echo` false). An exception
    that nobody expected becomes a 500 here: Starlette's own place for that lies outside of us,
    where the answer would carry no id. `trust_callers`: whether their traces are gone on with."""

    def __init__(self, app: ASGIApp, echo: bool, trust_callers: bool):
        self._app, self._echo, self._trust_callers = app, echo, trust_callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope["request_id"] = request_id.decode()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer.status = message["status"]
                if self._echo:
                    echoed = (b"x-request-id", request_id)
                    message["headers"] = [*message.get("headers", []), echoed]
            await send(message)

        with tracked(scope, scope["request_id"], trust_caller=self._trust_callers) as answer:
            try:
                return await self._app(scope, receive, send_with_id)
            except Exception as error:
                if started:
                    raise
                response = await respond(Request(scope), error)
                return await response(scope, receive, send_with_id)


class HeadAsGet:
    """HEAD on every route that has GET: the same headers, no content (RFC 9110 §9.3.2). A route
    whose content is dear, or has no end, asks `is_head` and makes none."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def send_no_content(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        return await self._app({**scope, "method": "GET", _HEAD: True}, receive, send_no_content)


def is_head(request: Request) -> bool:
    return _HEAD in request.scope


class BodyLimit:
    """Bounds what bodies take of memory: one above `max_bytes` is refused with 413, bodies beyond
    the `budget` together with 503. An announced length counts from the first moment, as Serve
    gathers a body in this process whether it is read or not; where none is announced, what has
    arrived counts."""

    def __init__(self, app: ASGIApp, max_bytes: int, budget: MemoryBudget):
        self._app, self._max_bytes, self._budget = app, max_bytes, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        received = held = 0

        def hold(size: int) -> None:
            nonlocal held
            if size > self._max_bytes:
                message = f"a body may have {self._max_bytes} bytes"
                raise ApiError(413, REQUEST, "body_too_large", message)
            if size > held:
                share.take(size - held)
                held = size

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            hold(received)
            return message

        with self._budget.share() as share:
            scope[SHARE] = share
            hold(int(dict(scope["headers"]).get(b"content-length", b"0")))
            return await self._app(scope, receive_bounded, send)
