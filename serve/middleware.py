"""What every request passes: a cap on its body, an id that is echoed, an answer to any failure."""

import re
import uuid

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import REQUEST, SERVER, ApiError, respond

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestId:
    """Echo X-Request-Id, or make one (Ray Serve's proxy does so itself: `echo` false). An exception
    that nobody expected becomes a 500 here: Starlette's own place for that lies outside of us,
    where the answer would carry no id."""

    def __init__(self, app: ASGIApp, echo: bool):
        self._app, self._echo = app, echo

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
                if self._echo:
                    echoed = (b"x-request-id", request_id)
                    message["headers"] = [*message.get("headers", []), echoed]
            await send(message)

        try:
            return await self._app(scope, receive, send_with_id)
        except Exception as error:
            if started:
                raise
            response = await respond(Request(scope), error)
            return await response(scope, receive, send_with_id)


class BodyLimit:
    """Bounds what bodies take of memory: one above `max_bytes` is refused with 413, bodies beyond
    `max_bytes_at_once` together with 503. An announced length counts from the first moment, as
    Serve gathers a body in this process whether it is read or not; where none is announced, what
    has arrived counts."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_bytes_at_once: int):
        self._app = app
        self._max_bytes, self._max_bytes_at_once = max_bytes, max_bytes_at_once
        self._held = 0  # bytes of the bodies of requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        held = received = 0

        def hold(size: int) -> None:
            nonlocal held
            if size > self._max_bytes:
                raise ApiError(
                    413, REQUEST, "body_too_large", f"a body may have {self._max_bytes} bytes"
                )
            more = max(0, size - held)
            if more and self._held + more > self._max_bytes_at_once:
                raise ApiError(
                    503,
                    SERVER,
                    "overloaded",
                    "too many uploads at once; try again",
                    retry_after_s=1,
                )
            held += more
            self._held += more

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            hold(received)
            return message

        try:
            hold(int(dict(scope["headers"]).get(b"content-length", b"0")))
            await self._app(scope, receive_bounded, send)
        finally:
            self._held -= held
