"""WebPage: the deployment that holds the Gradio site."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from serve.web.config import WebConfig
from serve.web.hosting.relay import AnswerStart, RelayedRequest, answer
from video.photo import PhotoLimits


class WebPage:
    async def __init__(self, config: WebConfig, photos: PhotoLimits):  # type: ignore[misc]  # Serve awaits it
        from serve.web.hosting.routes import (
            build_site,  # Gradio: seconds, and memory that others save
        )

        self._site = build_site(config, photos)
        self._life = self._site.router.lifespan_context(self._site)
        await self._life.__aenter__()  # starts Gradio's queue; it ends with the process

    async def answer(self, request: RelayedRequest) -> AsyncIterator[AnswerStart | bytes]:
        async with aclosing(answer(self._site, request)) as pieces:  # at once, if nobody reads on
            async for piece in pieces:
                yield piece
