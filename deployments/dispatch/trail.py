"""The ids and the span of one attempt, from its lease until its end stands in the job table."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import use_span
from structlog.contextvars import bound_contextvars

from monitoring.stages import StageCall
from monitoring.tracing import begin_span, describe, record_span, traceparent
from storage.jobs import Job


@contextmanager
def followed(job: Job) -> Iterator[StageCall]:
    """What the attempt's stages are told of it. Every line of the block bears its ids, and the time
    until the first lease has a span of its own."""
    request = job.request
    if job.attempt == 1 and request.traceparent:
        record_span("queue", request.traceparent, job.created_at)
    span = begin_span("attempt", request.traceparent)
    call = StageCall(job.id, job.attempt, job.tier or "", request.request_id, traceparent(span))
    describe(span, call.ids)
    with use_span(span, end_on_exit=True), bound_contextvars(**call.ids):
        yield call
