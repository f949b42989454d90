"""The application whose replicas have their emissions counted."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.serve import Application

import serve.app
from benchmarks.observability.switch import meter
from monitoring import metrics
from monitoring.instruments import Counter, Gauge, Histogram
from monitoring.replicas import ObservabilityConfig, observed


def build_app(args: Mapping[str, Any]) -> Application:
    vars(serve.app)["observed"] = _metered
    return serve.app.build_app(args)


def _metered(cls: type[Any], config: ObservabilityConfig) -> type[Any]:
    product = observed(cls, config)

    async def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        meter_emissions()
        await product.__init__(self, *args, **kwargs)

    namespace = {"__init__": begin, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return type(cls.__name__, (product,), namespace)


def meter_emissions() -> None:
    """Ours of this process, from now on; Serve's own metrics are not touched."""
    metered = meter()
    for owner, name in ((Counter, "inc"), (Gauge, "set"), (Histogram, "observe")):
        setattr(owner, name, metered(getattr(owner, name)))


def emission_us(calls: int) -> dict[str, float]:
    """In a worker that does nothing else: microseconds of CPU of one call of each kind."""
    works: dict[str, Callable[[], None]] = {
        "counter": lambda: metrics.DENOISE_STEPS.inc(1, tags={"tier": "bench"}),
        "gauge": lambda: metrics.IN_FLIGHT.set(1, tags={"tier": "bench"}),
        "histogram": lambda: metrics.STAGE_SECONDS.observe(0.2, tags={"stage": "storing"}),
    }
    costs = {}
    for name, work in works.items():
        work()
        begun = time.thread_time_ns()
        for _ in range(calls):
            work()
        costs[name] = round((time.thread_time_ns() - begun) / calls / 1e3, 2)
    return costs
