"""How a replica begins to log, to trace and to be seen: before its own start, so that this is heard
of too."""

import inspect
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from monitoring import metrics
from monitoring.logs import LogConfig, log_in_replica
from monitoring.tracing import TracingConfig, start_tracing


class ObservabilityConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: LogConfig = Field(default_factory=LogConfig)
    traces: TracingConfig = Field(default_factory=TracingConfig)


def observed(cls: type[Any], config: ObservabilityConfig) -> type[Any]:
    """The deployment class `cls`, whose replicas tell their release, log and trace as `config`
    says."""

    async def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        replica = serve.get_replica_context()
        log_in_replica(config.logs, replica.deployment, replica.replica_tag)
        start_tracing(config.traces, replica.deployment, replica.replica_tag)
        metrics.BUILD.keep(1, tags={"version": version("shopreel")})
        begun = cls.__init__(self, *args, **kwargs)
        if inspect.isawaitable(begun):  # Serve awaits such an `__init__`, and so do we
            await begun

    namespace = {"__init__": begin, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), namespace)
