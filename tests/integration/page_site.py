"""The page and the API at one address, as Serve's proxy shows them, without a cluster: the API is
the real one over the real stores, but no Dispatcher runs, so that jobs wait."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from cluster.embedded_s3 import EmbeddedS3
from serve.web.config import WebConfig
from serve.web.hosting.routes import build_site
from storage.object_store import S3ObjectStore
from tests.integration.conftest import remove_bucket
from tests.integration.service import Service
from video.photo import PhotoLimits


@dataclass(frozen=True, slots=True)
class PageSite:
    """Asks for keys; every test takes a tenant of its own."""

    service: Service
    url: str

    def secret(self, tenant: str) -> str:
        """A new API key."""
        return self.service.key(tenant)["Authorization"].removeprefix("Bearer ")


@contextmanager
def page_site(s3: EmbeddedS3, folder: Path) -> Iterator[PageSite]:
    bucket = s3.config.model_copy(update={"bucket": f"test-{uuid4().hex[:12]}"})
    S3ObjectStore(bucket).ensure_bucket()
    service = Service(bucket, folder, auth=True)
    site = build_site(WebConfig(), PhotoLimits())

    @asynccontextmanager
    async def both(_: Starlette) -> AsyncIterator[None]:
        async with (
            service.app.router.lifespan_context(service.app),
            site.router.lifespan_context(site),
        ):
            yield

    beginning = Starlette(lifespan=both)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await beginning(scope, receive, send)
        elif scope["path"].startswith("/ui"):
            await site(scope, receive, send)
        else:
            await service.app(scope, receive, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield PageSite(service, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(30)
            remove_bucket(bucket)
