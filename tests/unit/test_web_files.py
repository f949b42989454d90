"""Files that the page hands on: as the API gives them, or a page that says why there is none."""

import asyncio
from collections.abc import Mapping

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from serve.web.api import Api
from serve.web.hosting.handing import hand_on
from serve.web.hosting.headers import PageHeaders
from serve.web.words import words_of

STRICT = "default-src 'none'"
PERSON = {"accept": "text/html,*/*;q=0.8", "accept-language": "zh-CN"}


async def report(request: Request) -> Response:
    headers = {"ETag": '"a"', "Content-Security-Policy": STRICT, "X-Inner": "kept to itself"}
    if request.headers.get("if-none-match") == '"a"':
        return Response(status_code=304, headers=headers)
    return PlainTextResponse(f"for {request.headers['authorization']}", headers=headers)


async def refused(_: Request) -> Response:
    error = {"code": "report_not_ready", "message": "batch <b> is in_progress"}
    return JSONResponse({"error": error}, 409)


def asked(path: str, headers: Mapping[str, str]) -> httpx2.Response:
    """What a browser gets that has the key `k`, through the page from an API of two routes."""
    api = Starlette(routes=[Route("/report", report), Route("/refused", refused)])

    async def relay(request: Request) -> Response:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(api))
        key = {"Authorization": "Bearer k"}
        return await hand_on(
            Api(http, "http://api", key), f"/{request.path_params['name']}", request
        )

    page = PageHeaders(Starlette(routes=[Route("/ui/{name}", relay)]))

    async def get() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(page)) as browser:
            return await browser.get(f"http://reel.example/ui{path}", headers=headers)

    return asyncio.run(get())


def test_a_file_comes_as_the_api_gives_it() -> None:
    answer = asked("/report", PERSON)
    assert (answer.status_code, answer.text) == (200, "for Bearer k")
    assert answer.headers["content-security-policy"] == STRICT  # not the page's own
    assert (answer.headers["etag"], answer.headers["cache-control"]) == ('"a"', "private, no-cache")
    assert "x-inner" not in answer.headers
    assert asked("/report", {"If-None-Match": '"a"'}).status_code == 304


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/refused", 409, "report_not_ready"), ("/nowhere", 404, "unreachable")],
)
def test_a_person_is_told_in_words_why_there_is_none(path: str, status: int, code: str) -> None:
    answer = asked(path, PERSON)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert words_of("zh").errors[code].remedy in answer.text
    assert "<b>" not in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_an_element_is_told_by_status_and_code() -> None:
    answer = asked("/refused", {"accept": "image/*"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "report_not_ready")
