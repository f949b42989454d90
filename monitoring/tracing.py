"""OpenTelemetry traces, sent over HTTP to a collector; off unless the configuration names one.

A trace goes from process to process as a W3C `traceparent`, which calls and job rows carry.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr

_EXPORT_EVERY_MS = 1000
"""What a process that is killed has not sent yet is lost."""

_W3C = TraceContextTextMapPropagator()
_HEADER = "traceparent"
_OFF = trace.NoOpTracer()
_tracer: trace.Tracer = _OFF
_provider: TracerProvider | None = None


class TracingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: HttpUrl | None = Field(
        None, description="OTLP over HTTP, say http://collector:4318/v1/traces; left out: no traces"
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="sent with every export, for collectors that ask for keys"
    )
    ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="kept, of traces that begin here; of a trusted caller's: its own",
    )
    trust_callers: bool = Field(
        False,
        description="go on with the traces of callers, as they have sampled them: where all of them"
        " are yours. Else each request begins a trace of its own, which is linked to its caller's",
    )
    timeout_s: float = Field(5.0, gt=0, description="for one export; spans that wait are bounded")


def start_tracing(config: TracingConfig, service: str, instance: str) -> None:
    """Send the spans of this process from now on, as those of `service`; nothing without an
    endpoint."""
    if config.endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    exporter = OTLPSpanExporter(str(config.endpoint), headers=headers, timeout=config.timeout_s)
    trace_to(exporter, service, instance, config.ratio)


def trace_to(
    exporter: SpanExporter, service: str, instance: str, ratio: float = 1.0
) -> TracerProvider:
    """The same to any exporter. The provider is our own: the global one is Serve's, where its
    tracing is on."""
    global _tracer, _provider
    resource = Resource(
        {
            "service.namespace": "shopreel",
            "service.name": service,
            "service.instance.id": instance,
        }
    )
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio), resource=resource)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
    )
    _tracer, _provider = provider.get_tracer("shopreel"), provider
    return provider


def send_spans(patience_s: float) -> None:
    """Now, those that have ended: for a process that leaves no time to send them. A collector that
    does not take them in `patience_s` does not get them."""
    if _provider is None:
        return
    # A thread, as `force_flush` heeds no timeout (opentelemetry-sdk 1.45).
    sending = Thread(target=_provider.force_flush, name="last-spans", daemon=True)
    sending.start()
    sending.join(patience_s)


def begin_span(
    name: str,
    parent: str | None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    begun_at: float | None = None,
    link: str | None = None,
) -> Span:
    """A span under `parent`, a traceparent; without one it begins a trace. Whoever begins it ends
    it. `begun_at` is in Unix seconds, now if left out; `link`, a traceparent, decides nothing."""
    if _tracer is _OFF:
        return trace.INVALID_SPAN
    begun_at_ns = None if begun_at is None else int(begun_at * 1e9)
    linked = trace.get_current_span(_remote(link)).get_span_context()
    links = [trace.Link(linked)] if linked.is_valid else None
    return _tracer.start_span(name, _remote(parent), kind, links=links, start_time=begun_at_ns)


def _remote(traceparent: str | None) -> Context:
    return _W3C.extract({} if traceparent is None else {_HEADER: traceparent})


def record_span(name: str, parent: str | None, begun_at: float) -> None:
    """What has lasted from `begun_at`, in Unix seconds, until now."""
    begin_span(name, parent, begun_at=begun_at).end()


@contextmanager
def span(name: str, parent: str | None) -> Iterator[None]:
    """The block as a span; what it raises is recorded."""
    with trace.use_span(begin_span(name, parent), end_on_exit=True):
        yield


def traceparent(span: Span) -> str | None:
    """What the children of `span` are told, in this process or another; None: not traced."""
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span))
    return carrier[_HEADER]


def describe(span: Span, fields: Mapping[str, object]) -> None:
    """`fields` as its attributes, those that are None left out."""
    if span.is_recording():
        span.set_attributes(dict(_attributes("shopreel", fields)))


def _attributes(prefix: str, fields: Mapping[str, object]) -> Iterator[tuple[str, AttributeValue]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _attributes(f"{prefix}.{name}", value)
        elif isinstance(value, str | bool | int | float):
            yield f"{prefix}.{name}", value
        elif value is not None:
            yield f"{prefix}.{name}", str(value)
