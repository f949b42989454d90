"""What a run makes of the service's answers: whose fault it is, and whether to ask again."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from catalog.run import service as module
from catalog.run.errors import NotAllowed, Refused, TryLater
from catalog.run.service import Service


def error(status: int, code: str, **headers: str) -> Response:
    envelope = {"message": "no", "type": "server_error", "param": None, "code": code}
    return JSONResponse({"error": envelope}, status, headers)


@contextmanager
def answering(*answers: Response) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, the last one for ever, and the paths asked for."""
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.url.path)
        return answers[min(len(asked), len(answers)) - 1]

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}", asked
    finally:
        server.should_exit = True
        thread.join()


def asked_of(url: str, call: str, *args: Any) -> Any:
    async def asking() -> Any:
        async with Service(url, None, 2) as service:
            return await getattr(service, call)(*args)

    return asyncio.run(asking())


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAULT_WAITS_S", (0.01, 0.01))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_too_much_is_a_reason_to_wait_as_long_as_the_service_says(status: int) -> None:
    busy = error(status, "quota_exceeded", **{"Retry-After": "7"})
    with answering(busy) as (url, asked), pytest.raises(TryLater) as raised:
        asked_of(url, "get", "video_1")
    assert raised.value.after_s == 7
    assert len(asked) == 1


def test_an_answer_that_is_not_the_apis_means_that_it_starts_anew() -> None:
    strange = PlainTextResponse("Path '/v1' not found.", 404)
    with answering(strange) as (url, _), pytest.raises(TryLater):
        asked_of(url, "get", "video_1")


def test_how_long_the_service_is_away_is_told_of_all_who_ask_and_ends_with_an_answer() -> None:
    async def asking(url: str) -> list[float]:
        away = []
        async with Service(url, None, 2) as service:
            for video_id in ("proxy", "another", "busy", "proxy"):
                await asyncio.sleep(0.1)
                with pytest.raises(TryLater) as raised:
                    await service.get(video_id)
                away.append(raised.value.away_s)
        return away

    strange = PlainTextResponse("no such route", 404)
    with answering(strange, strange, error(429, "queue_full"), strange) as (url, _):
        first, second, busy, again = asyncio.run(asking(url))
    assert first == pytest.approx(0, abs=0.05)
    assert second >= 0.1
    assert busy == 0
    assert again == pytest.approx(0, abs=0.05)


def test_nobody_there_is_a_reason_to_wait() -> None:
    with answering(error(503, "x")) as (url, _):
        pass
    with pytest.raises(TryLater, match="does not answer"):
        asked_of(url, "get", "video_1")


def test_a_fault_that_goes_away_costs_nothing() -> None:
    with answering(error(500, "internal"), JSONResponse({"id": "video_1"})) as (url, asked):
        assert asked_of(url, "get", "video_1").video == {"id": "video_1"}
    assert len(asked) == 2


def test_a_fault_that_stays_fails_the_row_and_not_the_run() -> None:
    with answering(error(500, "internal")) as (url, asked), pytest.raises(Refused) as raised:
        asked_of(url, "get", "video_1")
    assert raised.value.code == "internal"
    assert len(asked) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_taken_ends_the_run(status: int) -> None:
    with answering(error(status, "invalid_api_key")) as (url, _), pytest.raises(NotAllowed):
        asked_of(url, "get", "video_1")


def test_a_store_that_refuses_a_file_fails_the_row_and_holds_nobody_back() -> None:
    there = RedirectResponse("/bucket/video.mp4")
    denied = Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
    with answering(there, denied) as (url, _), pytest.raises(Refused, match="AccessDenied") as said:
        asked_of(url, "content", "video_1", "video")
    assert said.value.code == "content_unreadable"


def test_a_store_that_is_busy_is_asked_again() -> None:
    there = RedirectResponse("/bucket/video.mp4")
    busy = Response("<Error><Code>SlowDown</Code></Error>", 503, media_type="application/xml")
    with answering(there, busy) as (url, _), pytest.raises(TryLater):
        asked_of(url, "content", "video_1", "video")


def test_a_file_that_is_gone_from_the_store_fails_the_row() -> None:
    there = RedirectResponse("/bucket/video.mp4")
    gone = Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
    with answering(there, gone) as (url, asked), pytest.raises(Refused) as raised:
        asked_of(url, "content", "video_1", "video")
    assert raised.value.code == "content_missing"
    assert asked == ["/v1/videos/video_1/content", "/bucket/video.mp4"]
