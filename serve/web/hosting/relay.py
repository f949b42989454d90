"""An ASGI request through a deployment handle: asked here, answered in another replica, piece by
piece, so that streams stay streams."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]
_HANDED_ON = ("http_version", "path", "raw_path", "query_string", "scheme", "server", "client")


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    method: str
    scope: dict[str, object]  # those of _HANDED_ON; `path` is whole, whatever mount it came through
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, method: str, scope: Scope, body: bytes) -> "RelayedRequest":
        kept = {name: scope.get(name) for name in _HANDED_ON}
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        return cls(method, kept, headers, body)


@dataclass(frozen=True, slots=True)
class AnswerStart:
    status: int
    headers: Headers


async def read_body(receive: Receive) -> bytes | None:
    """The whole of it; None where the caller went away before it was here."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def gone(receive: Receive) -> None:
    """Returns when the caller goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(pieces: AsyncIterator[AnswerStart | bytes], send: Send) -> None:
    async for piece in pieces:
        if isinstance(piece, AnswerStart):
            start = {"status": piece.status, "headers": piece.headers}
            await send({"type": "http.response.start", **start})
        else:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer(
    app: ASGIApp, request: RelayedRequest
) -> AsyncGenerator[AnswerStart | bytes, None]:
    """What `app` answers: an AnswerStart, then its body. Closed early, `app` sees its caller go."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=16)
    left, asked = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        asgi = {"version": "3.0", "spec_version": "2.3"}
        scope: dict[str, object] = {"type": "http", "asgi": asgi}
        scope |= {"method": request.method, "headers": request.headers, "root_path": ""}
        try:
            await app({**scope, **request.scope}, receive, messages.put)
        finally:
            if not left.is_set():
                await messages.put(None)

    running = asyncio.create_task(run())
    try:
        while (message := await messages.get()) is not None:
            if message["type"] == "http.response.start":
                yield AnswerStart(message["status"], list(message.get("headers", [])))
            elif message.get("body"):
                yield message["body"]
        await running  # raises what the app has raised
    finally:
        left.set()
        if not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
