"""The application with a Dispatcher that measures every object that is unpacked in its process."""

import pickle
import sys
from collections.abc import Mapping
from typing import Any

from ray import cloudpickle
from ray._private.worker import Worker
from ray.serve import Application

import serve.app
from deployments.dispatcher import Dispatcher


class AuditedDispatcher(Dispatcher):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        self._bytes: dict[str, int] = {}  # type of what arrived -> largest, arrays included
        self._arrays = 0  # arrays and other buffers seen inside
        original = Worker.deserialize_objects

        def measured(worker: Worker, *rest: Any, **more: Any) -> Any:
            values = original(worker, *rest, **more)
            for value in values:
                self._measure(value)
            return values

        Worker.deserialize_objects = measured
        await super().__init__(*args)

    def _measure(self, value: object) -> None:
        if isinstance(value, Exception):
            return
        buffers: list[pickle.PickleBuffer] = []
        size = len(cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append))
        self._arrays += len(buffers)
        size += sum(len(buffer.raw()) for buffer in buffers)
        name = type(value).__name__
        self._bytes[name] = max(size, self._bytes.get(name, 0))

    async def audit(self) -> dict[str, Any]:
        return {
            "bytes": self._bytes,
            "arrays": self._arrays,
            "heavy_modules": [name for name in ("torch", "diffusers") if name in sys.modules],
        }


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Dispatcher"] = AuditedDispatcher
    return serve.app.build_app(args)
