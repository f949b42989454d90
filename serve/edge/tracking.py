"""What is told of every request: a line and a span, by which its job is found again."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from starlette.types import Scope
from structlog.contextvars import bound_contextvars

from monitoring.logs import digest
from monitoring.tracing import begin_span, traceparent
from storage.jobs import Job

log = logging.getLogger(__name__)

ORIGIN = "origin"
"""Key of a request's Origin in its scope."""

_READS = ("GET", "HEAD", "OPTIONS")
_LONGEST_PATH = 200


@dataclass(frozen=True, slots=True)
class Origin:
    """What a job keeps of the request that created it."""

    request_id: str
    traceparent: str | None = None  # W3C, of the request's span; None: not traced


@dataclass(slots=True)
class Answer:
    status: int | None = None  # None: it went away unanswered


@contextmanager
def tracked(scope: Scope, request_id: str, *, trust_caller: bool) -> Iterator[Answer]:
    """Puts the Origin into `scope`, and the request id on every line that is written on the way.
    `trust_caller`: that the span goes on with its trace, and is kept or not as that is.

    Reads are polls above all: their lines are for debugging, and they have a span only where a
    caller who is trusted traces them.
    """
    method, caller = scope["method"], _traceparent(scope)
    is_read = method in _READS
    span: Span = INVALID_SPAN
    if trust_caller and caller is not None:
        span = begin_span(method, caller, kind=SpanKind.SERVER)
    elif not is_read:
        span = begin_span(method, None, kind=SpanKind.SERVER, link=caller)
    scope[ORIGIN] = Origin(request_id, traceparent(span))
    answer, begun = Answer(), time.perf_counter()
    try:
        with bound_contextvars(request_id=request_id):
            yield answer
    finally:
        told = {
            "method": method,
            "path": scope["path"][:_LONGEST_PATH],
            "route": getattr(scope.get("route"), "path", None),
            "status": answer.status,
            "seconds": round(time.perf_counter() - begun, 4),
            "request_id": request_id,
        }
        log.log(logging.DEBUG if is_read else logging.INFO, "request", extra=told)
        _end(span, told)


def tell_created(job: Job) -> None:
    """The line that leads from a request to its job."""
    request, sampling = job.request, job.request.sampling
    fields = {
        "job": job.id,
        "tenant": request.tenant,
        "status": job.status,
        "priority": request.priority,
        "preset": request.preset,
        "shapes": {"frames": (sampling.num_frames, sampling.height, sampling.width, 3)},
        "steps": sampling.unet_steps,
        "candidates": request.candidates,
        "batch": request.batch_id,
        "prompt_sha256": digest(sampling.prompt),
    }
    log.info("created", extra=fields)


def _traceparent(scope: Scope) -> str | None:
    given = dict(scope["headers"]).get(b"traceparent")
    return None if given is None else given.decode("latin-1")


def _end(span: Span, told: Mapping[str, Any]) -> None:
    """By OpenTelemetry's semantic conventions for HTTP server spans."""
    method, route, status = told["method"], told["route"], told["status"]
    span.set_attribute("http.request.method", method)
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)
    span.set_attribute("shopreel.request_id", told["request_id"])
    span.end()
