"""The page's place in the API's process: hands requests below /ui to the one WebPage replica."""

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from serve.edge.middleware import is_head
from serve.errors import SERVER, ApiError
from serve.web.hosting.assets import Assets
from serve.web.hosting.relay import RelayedRequest, gone, read_body, send_answer
from serve.web.words import LANGUAGES

PREFIX = "/ui"


def open_door(app: FastAPI, page: DeploymentHandle) -> None:
    """Whoever opens the server's address in a browser comes to the page."""
    assets = Assets()
    app.router.routes += [
        Route("/", _to_page),
        Route(PREFIX, _to_page),
        *(Mount(f"{PREFIX}/{language}/assets", assets) for language in LANGUAGES),
        Mount(PREFIX, Door(page)),
    ]


async def _to_page(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{PREFIX}/{query}")


class Door:
    def __init__(self, page: DeploymentHandle):
        self._page = page.options(method_name="answer", stream=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        if body is None:
            return
        method = "HEAD" if is_head(Request(scope)) else scope["method"]
        answer: Any = self._page.remote(RelayedRequest.of(method, scope, body))
        begun = False

        async def send_on(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        sending = asyncio.ensure_future(send_answer(answer, send_on))
        leaving = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except (RayError, RayServeException) as e:
            if begun:
                raise
            message = "the web page starts again; reload it in some seconds"
            raise ApiError(503, SERVER, "page_unavailable", message, retry_after_s=2) from e
        finally:
            if not sending.done():
                answer.cancel()
            sending.cancel()
            leaving.cancel()
