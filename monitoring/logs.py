"""Log lines as JSON objects, one a line; coloured for people where they go to a terminal."""

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog
from pydantic import BaseModel, ConfigDict, Field
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

_OURS = (
    "catalog",
    "cluster",
    "deployments",
    "diffusion",
    "monitoring",
    "serve",
    "storage",
    "video",
)
"""Of other packages we hear from warnings on: some write whole URLs down below that."""

_LEFT_BEHIND = {
    *("message", "asctime", "_ray_timestamp_ns"),
    *("log_to_stderr", "serve_access_log", "skip_context_filter"),
}
"""On records: what other formatters, Ray and Serve need of them."""

_JSON: Sequence[Processor] = (
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
)


class LogConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="INFO: a line per stage of each job, and per request but for reads"
    )


def log_to_stderr() -> None:
    """This process's lines, as a command of the terminal writes them: for people where stderr is
    one, as JSON where it is a file or a pipe."""
    pretty = structlog.dev.ConsoleRenderer(
        # Not rich's, which shows local variables, secrets among them.
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
    )
    _write_to(_Stderr(), "INFO", [pretty] if sys.stderr.isatty() else _JSON, {})


def log_in_replica(config: LogConfig, deployment: str, replica: str) -> None:
    """This process's lines into the file that Serve keeps for the replica, with Serve's own."""
    names = {"deployment": deployment, "replica": replica}
    _write_to(_serve_file() or _Stderr(), config.level, _JSON, names)


def digest(text: str) -> str:
    """What stands for a prompt in a line: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Stderr(logging.StreamHandler[TextIO]):
    """Whatever stderr is at the moment: a spinner on the terminal puts its own in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _serve_file() -> logging.Handler | None:
    """Serve's documented logger has a file for each replica, behind a buffer."""
    for handler in logging.getLogger("ray.serve").handlers:
        target = getattr(handler, "target", handler)
        if isinstance(target, logging.FileHandler):
            return target
    return None


def _write_to(
    handler: logging.Handler, level: str, render: Sequence[Processor], names: Mapping[str, str]
) -> None:
    """Every line bears `names`."""

    def named(_: object, __: str, event: EventDict) -> EventDict:
        return {**event, **names}

    # One chain: nobody here logs through structlog itself.
    chain: Sequence[Processor] = (
        _with_ids,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        named,
        _tidied,
        ProcessorFormatter.remove_processors_meta,
        *render,
    )
    handler.setFormatter(ProcessorFormatter(processors=chain))
    logging.getLogger().addHandler(handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)


def _with_ids(logger: Any, method: str, event: EventDict) -> EventDict:
    """Those of the context, on our lines alone: Serve's tasks outlive the call they began in."""
    if event["_record"].name.partition(".")[0] not in _OURS:
        return event
    return structlog.contextvars.merge_contextvars(logger, method, event)


def _tidied(_: object, __: str, event: EventDict) -> EventDict:
    """Stamped with when it happened, not when the buffer in front of a file was written."""
    at = datetime.fromtimestamp(event["_record"].created, UTC)
    kept = {name: value for name, value in event.items() if name not in _LEFT_BEHIND}
    return {**kept, "timestamp": at.isoformat(timespec="milliseconds")}
