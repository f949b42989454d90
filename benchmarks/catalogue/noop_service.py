"""A video service that has made every video before it is asked: what is left is the driver."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.load.servers import free_port

_START_S = 30.0
_VIDEO = {
    "id": "video_noop",
    "status": "completed",
    "error": None,
    "attempt": 1,
    "downgrades": [],
    "tier": "noop",
    "model": "noop",
    "seed": 0,
    "size": "64x64",
    "output_num_frames": 8,
    "output_fps": 8.0,
    "seconds": "1",
    "timings": {"denoising": 1.0},
    "usage": {"gpu_seconds": 1.0, "cost": None, "peak_vram_bytes": None},
    "candidates": [{"seed": 0, "score": 0.5}],
}


class NoopService:
    """Notes who asked, by idempotency key, and when."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.asked: list[tuple[float, str]] = []  # monotonic seconds, idempotency key
        self._heard = threading.Event()
        routes = [
            Route("/v1/videos", self._create, methods=["POST"]),
            Route("/v1/videos/{video}/content", self._content),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=port, log_level="warning")
        self.server = uvicorn.Server(config)

    def forget(self) -> None:
        self.asked.clear()
        self._heard.clear()

    def first_request(self, patience_s: float) -> tuple[float, str]:
        """When it came (monotonic seconds), and its key. Raises TimeoutError."""
        if not self._heard.wait(patience_s):
            raise TimeoutError(f"no request in {patience_s:.0f} s")
        return self.asked[0]

    async def _create(self, request: Request) -> Response:
        self.asked.append((time.monotonic(), request.headers["idempotency-key"]))
        self._heard.set()
        with suppress(ClientDisconnect):  # a driver was killed
            await request.body()
        return JSONResponse(_VIDEO, 202)

    async def _content(self, _: Request) -> Response:
        return Response(b"a clip", media_type="video/mp4")


@contextmanager
def noop_service() -> Iterator[NoopService]:
    service = NoopService()
    thread = threading.Thread(target=service.server.run, name="noop-service")
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not service.server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the no-op service did not start")
            time.sleep(0.05)
        yield service
    finally:
        service.server.should_exit = True
        thread.join()
