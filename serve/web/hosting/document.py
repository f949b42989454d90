"""Gradio's document as it leaves the server: in the page's language from its first byte on, and to
be read before a script has run."""

import gzip
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.web import markup
from serve.web.words import Words

_CHARSET = '<meta charset="utf-8" />'
_COMPRESSION = 5  # of 9: half the time of the best, a few per cent larger


class Document:
    def __init__(self, app: ASGIApp, pages: Mapping[str, Words]):
        """`pages`: paths of Gradio's documents, and the words of each."""
        self._app, self._pages = app, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        words = self._pages.get(scope["path"]) if scope["type"] == "http" else None
        if words is None or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app({**scope, "headers": plain}, receive, keep)
        body = b"".join(parts)
        headers = MutableHeaders(scope=start)
        if start["status"] == 200:
            body = written(body.decode(), words).encode()
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in Headers(scope=scope).get("accept-encoding", ""):
                body = gzip.compress(body, _COMPRESSION)
                headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})


def written(document: str, words: Words) -> str:
    """Left out: what Gradio tells of itself, with other hosts' pictures, where a link is shared."""
    document = re.sub(r"<meta\s+(property|name)=\"(og|twitter):[^>]*>\s*", "", document)
    document = re.sub(r"<link rel=\"manifest\"[^>]*>", "", document)
    document = re.sub(
        r"<html\s+lang=\"en\"", f'<html lang="{words("page.language")}"', document, count=1
    )
    document = document.replace(_CHARSET, f"{_CHARSET}{markup.beginning(words)}", 1)
    return document.replace("<gradio-app", f"{markup.first_paint(words)}<gradio-app", 1)
