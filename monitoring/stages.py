"""One line and one span for each stage of each job, with the ids that lead back to the request."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from opentelemetry.trace import StatusCode
from structlog.contextvars import bound_contextvars

from monitoring.tracing import begin_span, describe, traceparent

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageCall:
    """For which attempt at which job a stage is called, and whose request that was."""

    job: str
    attempt: int
    tier: str
    request_id: str | None = None  # X-Request-Id of the HTTP request that created the job
    traceparent: str | None = None  # W3C, of the attempt's span; None: not traced

    @property
    def ids(self) -> dict[str, object]:
        return {
            "job": self.job,
            "attempt": self.attempt,
            "tier": self.tier,
            "request_id": self.request_id,
            "trace_id": self.traceparent and self.traceparent.split("-")[1],
        }


class StageRecord:
    """A stage's work on one call, from entering to leaving: a span, then a line of how it ended.

    It leaves the context alone, so an asynchronous generator may yield inside, which can be closed
    in another context than it ran in. `call` is None where no job is behind it: a measurement.
    """

    def __init__(self, stage: str, call: StageCall | None):
        self._stage = stage
        self.ids = {} if call is None else call.ids
        self._fields: dict[str, object] = {"seconds": None, "vram_bytes": None}
        self._span = begin_span(stage, None if call is None else call.traceparent)

    @property
    def traceparent(self) -> str | None:
        """For the spans inside of it."""
        return traceparent(self._span)

    def note(self, **fields: object) -> None:
        """What the line tells beside the ids: `seconds` of work, waiting left out, `vram_bytes` at
        the peak, `shapes`."""
        self._fields.update(fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            self._fields["outcome"] = "done"
        elif isinstance(error, Exception):
            self._fields |= {"outcome": "failed", "error": type(error).__name__}
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR)
        else:  # a cancelled task, or a generator that nobody reads on
            self._fields["outcome"] = "cancelled"
        describe(self._span, self.ids | self._fields)
        self._span.end()
        log.info(self._stage, extra=self.ids | self._fields)


@contextmanager
def stage(name: str, call: StageCall | None) -> Iterator[StageRecord]:
    """A StageRecord whose ids stand on every other line of the block as well."""
    with StageRecord(name, call) as record, bound_contextvars(**record.ids):
        yield record
