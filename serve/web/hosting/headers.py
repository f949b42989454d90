"""Headers of every answer below /ui: a browser asks no other host for anything, whatever the page's
parts want, and keeps what never changes. A file that comes with a stricter policy keeps it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's start and its templates
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "object-src 'none'",
    )
)
FOR_EVER = "public, max-age=31536000, immutable"


class PageHeaders:
    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", _POLICY)
                headers["Referrer-Policy"] = "same-origin"
                if "/assets/" in scope["path"] and message["status"] == 200:
                    headers["Cache-Control"] = FOR_EVER  # their names hold their hash
            await send(message)

        await self._app(scope, receive, send_with_headers)
