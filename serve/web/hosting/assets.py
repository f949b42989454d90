"""Gradio's scripts and styles, given out where requests come in: they are files of its package, the
same for everybody, and a page asks for a hundred of them at once."""

import asyncio
import gzip
import mimetypes
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.web.hosting.headers import FOR_EVER

_COMPRESSION = 6  # of 9; once a file
_TEXTS = (".css", ".js", ".json", ".svg")


class Assets:
    """Knows its files by name, so that no path leads out of their folder."""

    def __init__(self) -> None:
        self._compressed: dict[str, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        name = request.url.path.rpartition("/")[2]
        file = self._files.get(name)
        if file is None:
            await Response(status_code=404)(scope, receive, send)
            return
        headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
        if file.suffix in _TEXTS:
            headers["Vary"] = "Accept-Encoding"
        if file.suffix in _TEXTS and "gzip" in request.headers.get("accept-encoding", ""):
            if name not in self._compressed:
                self._compressed[name] = await asyncio.to_thread(_compressed, file)
            body = self._compressed[name]
            headers["Content-Encoding"] = "gzip"
        else:
            body = await asyncio.to_thread(file.read_bytes)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        await Response(body, headers=headers, media_type=kind)(scope, receive, send)

    @cached_property
    def _files(self) -> dict[str, Path]:
        spec = find_spec("gradio")  # which imports nothing
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0], "templates", "frontend", "assets")
        return {file.name: file for file in folder.iterdir()}


def _compressed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), _COMPRESSION)
