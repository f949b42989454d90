"""The application with a Dispatcher that measures every object that is unpacked in its process."""

import sys
from collections.abc import Mapping
from typing import Any

from ray._private.worker import Worker
from ray.serve import Application

import serve.app
from deployments.dispatcher import Dispatcher


class AuditedDispatcher(Dispatcher):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        self._sizes: list[int] = []
        original = Worker.deserialize_objects

        def measured(worker: Worker, serialized: Any, *rest: Any, **more: Any) -> Any:
            for item in serialized:
                data = item[0] if isinstance(item, tuple) else item.data
                self._sizes.append(0 if data is None else len(data))
            return original(worker, serialized, *rest, **more)

        Worker.deserialize_objects = measured
        await super().__init__(*args)

    async def audit(self) -> dict[str, Any]:
        return {
            "objects": len(self._sizes),
            "largest_bytes": max(self._sizes, default=0),
            "heavy_modules": [name for name in ("torch", "diffusers") if name in sys.modules],
        }


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["Dispatcher"] = AuditedDispatcher
    return serve.app.build_app(args)
