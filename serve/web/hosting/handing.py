"""Files of videos and runs, handed on from the API to elements and links, which can send no key."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from serve.web.api import Api, Refused
from serve.web.catalogue import reports
from serve.web.words import preferred, words_of

_ASKED = ("range", "if-none-match", "if-range")
_ANSWERED = (
    "content-type",
    "content-length",
    "content-range",
    "accept-ranges",
    "etag",
    "content-disposition",
    "content-security-policy",
    "x-content-type-options",
)


async def hand_on(api: Api, path: str, request: Request) -> Response:
    """As the API gives it; a person who has followed a link is told in words why there is none."""
    asked = {name: request.headers[name] for name in _ASKED if name in request.headers}
    by_link, ends = "text/html" in request.headers.get("accept", ""), AsyncExitStack()
    try:
        answer = await api.file(ends, path, request.query_params, asked)
    except Refused as e:
        if by_link:
            return _in_words(e, 503, request)
        return JSONResponse({"error": {"code": e.code}}, 503)
    if by_link and answer.is_error:
        async with ends:
            return _in_words(await api.refusal(answer), answer.status_code, request)

    async def body() -> AsyncIterator[bytes]:
        async with ends:
            async for part in answer.aiter_raw():
                yield part

    kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
    kept["Cache-Control"] = "private, no-cache"
    return StreamingResponse(body(), answer.status_code, kept)


def _in_words(refused: Refused, status: int, request: Request) -> Response:
    words = words_of(preferred(request.headers.get("accept-language")))
    return HTMLResponse(reports.no_file(words, refused), status, {"Vary": "Accept-Language"})
