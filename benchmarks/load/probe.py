"""The API with a probe inside: `GET /_probe` tells what its process did since the last time.

Beside the probe's route and the clock around what the routes call, all is the product's.
"""

import asyncio
import inspect
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from ray.serve import Application

import serve.app
from benchmarks.stopwatch import Clock
from serve.api import Api

_TICK_S = 0.01
_TABLE_CALLS = ("find", "create", "get", "queue_position", "list_jobs")


class Probe:
    """`lag_ms`: how much later than asked for the event loop came back to a task that sleeps."""

    def __init__(self, api: Api) -> None:
        self._clock = Clock()
        self._lag_ms: list[float] = []
        self._ticking: asyncio.Task[None] | None = None
        self._since = (0.0, 0.0, 0.0)
        self._time("table", api.videos._jobs, *_TABLE_CALLS)
        self._time("S3", api.videos._objects, "put", "get")
        self._time("decoder", api.videos._photos, "inspect")
        self._time("all of", api.videos, "create", "get", "list_videos")

    def _time(self, label: str, owner: object, *names: str) -> None:
        for name in names:
            call = getattr(owner, name)
            timed = self._awaited if inspect.iscoroutinefunction(call) else self._clock.timed
            vars(owner)[name] = timed(f"{label}: {name}", call)

    def _awaited(self, label: str, call: Any) -> Any:
        async def run(*args: Any, **kwargs: Any) -> Any:
            with self._clock.running(label):
                return await call(*args, **kwargs)

        return run

    async def read(self) -> dict[str, Any]:
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        now = (time.perf_counter(), time.process_time(), time.thread_time())
        wall_s, process_s, loop_s = (b - a for a, b in zip(self._since, now, strict=True))
        said = {
            "lag_ms": self._lag_ms,
            "process_cores": process_s / wall_s,
            "loop_cores": loop_s / wall_s,
            "calls": {label: asdict(spent) for label, spent in self._clock.spent.items()},
        }
        self._since, self._lag_ms = now, []
        self._clock.spent.clear()
        return said

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._lag_ms.append(1e3 * (time.perf_counter() - due))


def with_probe(app: FastAPI, api: Api) -> FastAPI:
    app.add_api_route("/_probe", Probe(api).read, include_in_schema=False)
    return app


class ProbedVideoAPI(serve.app.VideoAPI):
    def __serve_build_asgi_app__(self) -> FastAPI:
        return with_probe(super().__serve_build_asgi_app__(), self._api)


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["VideoAPI"] = ProbedVideoAPI
    return serve.app.build_app(args)
