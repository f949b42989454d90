"""Traces: connected from the request to the end of the job, and nothing where they are off."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from deployments.dispatch.trail import followed
from monitoring import tracing
from monitoring.stages import StageCall, stage
from monitoring.tracing import (
    TracingConfig,
    begin_span,
    send_spans,
    span,
    start_tracing,
    trace_to,
    traceparent,
)
from serve.edge.middleware import RequestId
from serve.edge.tracking import ORIGIN, Origin
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobRequest, JobStatus
from tests.sample_jobs import make_request

CALLER = f"00-{'ab' * 16}-{'cd' * 8}-01"


class Collector:
    """Where this process's spans go."""

    def __init__(self, ratio: float = 1.0):
        self._exporter = InMemorySpanExporter()
        self._provider: TracerProvider = trace_to(self._exporter, "VideoAPI", "r1", ratio)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        self._provider.force_flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def close(self) -> None:
        self._provider.shutdown()


@pytest.fixture(autouse=True)
def _off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_tracer", tracing._tracer)
    monkeypatch.setattr(tracing, "_provider", tracing._provider)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def client(origins: list[Origin], trust_callers: bool = True) -> TestClient:
    """Of an application behind our middleware, which notes down the origins that it sees."""

    async def create(request: Request) -> Response:
        origins.append(request.scope[ORIGIN])
        if request.url.path.endswith("broken"):
            raise ValueError("broken")
        return Response(status_code=202)

    routes = [Route("/v1/videos/{video_id}", create, methods=["GET", "POST"])]
    app = RequestId(Starlette(routes=routes), echo=True, trust_callers=trust_callers)
    return TestClient(app, raise_server_exceptions=False)


def leased(request: JobRequest, origin: Origin, attempt: int = 1) -> Job:
    request = replace(request, request_id=origin.request_id, traceparent=origin.traceparent)
    return Job(
        request=JobRequest.from_json(request.to_json()),  # as it comes out of the table
        status=JobStatus.IN_PROGRESS,
        created_at=time.time() - 5,
        tier="cpu",
        attempt=attempt,
    )


def test_a_job_is_one_trace_from_its_request_to_its_end(collector: Collector) -> None:
    origins: list[Origin] = []
    headers = {"x-request-id": "req-1", "traceparent": CALLER}
    client(origins).post("/v1/videos/7", headers=headers)
    job = leased(make_request("video_7"), origins[0])

    async def attempt() -> None:
        with followed(job) as call:
            with stage("decoding", call) as record:
                record.note(seconds=0.5, vram_bytes=None, shapes={"frames": (8, 64, 64, 3)})
            with stage("storing", call) as record, span("commit", record.traceparent):
                pass

    asyncio.run(attempt())
    spans = collector.spans
    parents = {
        "POST /v1/videos/{video_id}": int(CALLER.split("-")[2], 16),
        "queue": id_of(spans["POST /v1/videos/{video_id}"]),
        "attempt": id_of(spans["POST /v1/videos/{video_id}"]),
        "decoding": id_of(spans["attempt"]),
        "storing": id_of(spans["attempt"]),
        "commit": id_of(spans["storing"]),
    }
    assert {name: parent_of(span) for name, span in spans.items()} == parents
    assert {span.context.trace_id for span in spans.values()} == {int("ab" * 16, 16)}
    queue = spans["queue"]
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert 5 <= (queue.end_time - queue.start_time) / 1e9 < 10
    told = spans["decoding"].attributes
    assert told is not None
    assert told["shopreel.job"] == "video_7"
    assert told["shopreel.request_id"] == "req-1"
    assert told["shopreel.seconds"] == 0.5
    assert told["shopreel.shapes.frames"] == "(8, 64, 64, 3)"
    assert "shopreel.vram_bytes" not in told


def test_a_later_attempt_stands_beside_the_first(collector: Collector) -> None:
    with followed(leased(make_request("video_7"), Origin("req-1", CALLER), attempt=2)):
        pass
    assert set(collector.spans) == {"attempt"}
    assert parent_of(collector.spans["attempt"]) == int(CALLER.split("-")[2], 16)


def test_a_failed_stage_and_a_failed_request_are_errors(collector: Collector) -> None:
    call = StageCall("video_7", 1, "cpu", traceparent=CALLER)
    with pytest.raises(StoreUnavailable), stage("storing", call):
        raise StoreUnavailable("away")
    assert client([]).post("/v1/videos/broken").status_code == 500
    spans = collector.spans
    assert {span.status.status_code for span in spans.values()} == {StatusCode.ERROR}
    assert [event.name for event in spans["storing"].events] == ["exception"]
    attributes = spans["POST /v1/videos/{video_id}"].attributes
    assert attributes is not None
    assert attributes["http.response.status_code"] == 500


def test_who_asked_is_no_part_of_a_result() -> None:
    asked = replace(make_request("video_7"), request_id="req-1", traceparent=CALLER, candidates=2)
    assert asked.result_id == make_request("video_7").result_id
    assert {part.traceparent for part in asked.parts} == {CALLER}


def test_polls_have_a_span_only_where_their_caller_traces_them(collector: Collector) -> None:
    origins: list[Origin] = []
    http = client(origins)
    http.get("/v1/videos/7")
    assert not collector.spans
    http.get("/v1/videos/7", headers={"traceparent": CALLER})
    assert set(collector.spans) == {"GET /v1/videos/{video_id}"}


@pytest.mark.parametrize("given", ["", "00-zz-zz-01", f"00-{'0' * 32}-{'0' * 16}-01", "ü" * 60])
@pytest.mark.parametrize("trust", [True, False])
def test_a_traceparent_that_is_none_begins_a_new_trace(
    collector: Collector, given: str, trust: bool
) -> None:
    headers = {"traceparent": given.encode("latin-1")}
    response = client([], trust).post("/v1/videos/7", headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 202
    (span,) = collector.spans.values()
    assert span.parent is None
    assert not span.links


def test_a_caller_that_does_not_trace_is_not_traced(collector: Collector) -> None:
    origins: list[Origin] = []
    client(origins).post("/v1/videos/7", headers={"traceparent": f"{CALLER[:-2]}00"})
    with followed(leased(make_request("video_7"), origins[0])):
        pass
    assert not collector.spans


def test_a_caller_that_is_not_trusted_is_linked_to_and_decides_nothing(
    collector: Collector,
) -> None:
    """The default: whoever reaches the API could have every poll traced otherwise, or none of its
    jobs."""
    assert not TracingConfig().trust_callers
    origins: list[Origin] = []
    http = client(origins, trust_callers=False)
    http.get("/v1/videos/7", headers={"traceparent": CALLER})
    assert not collector.spans
    http.post("/v1/videos/7", headers={"traceparent": f"{CALLER[:-2]}00"})
    (span,) = collector.spans.values()
    assert span.parent is None
    assert span.context.trace_id != int("ab" * 16, 16)
    (link,) = span.links
    assert (link.context.trace_id, link.context.span_id) == (int("ab" * 16, 16), int("cd" * 8, 16))
    assert origins[-1].traceparent is not None
    assert origins[-1].traceparent.split("-")[1] == f"{span.context.trace_id:032x}"


def test_no_ratio_is_evaded_by_a_caller_that_is_not_trusted() -> None:
    collector = Collector(ratio=0.0)
    client([], trust_callers=False).post("/v1/videos/7", headers={"traceparent": CALLER})
    assert not collector.spans
    collector.close()


def test_the_ratio_holds_for_whole_traces() -> None:
    collector = Collector(ratio=0.0)
    origins: list[Origin] = []
    http = client(origins)
    http.post("/v1/videos/7")
    with followed(leased(make_request("video_7"), origins[0])):
        pass
    assert not collector.spans
    http.post("/v1/videos/7", headers={"traceparent": CALLER})
    assert len(collector.spans) == 1
    collector.close()


def test_off_nothing_is_made_and_a_callers_trace_is_not_carried_on() -> None:
    start_tracing(TracingConfig(), "VideoAPI", "r1")
    assert not begin_span("attempt", CALLER).is_recording()
    assert traceparent(begin_span("attempt", CALLER)) is None
    origins: list[Origin] = []
    client(origins).post("/v1/videos/7", headers={"traceparent": CALLER, "x-request-id": "req-1"})
    assert origins == [Origin("req-1", None)]


def test_off_no_exporter_is_loaded() -> None:
    program = (
        "import sys; from monitoring.tracing import *; start_tracing(TracingConfig(), 'a', 'b');"
        "sys.exit(any('otlp' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def id_of(span: ReadableSpan) -> int:
    found: int = span.context.span_id
    return found


def parent_of(span: ReadableSpan) -> Any:
    return span.parent and span.parent.span_id


class DeafCollector(SpanExporter):
    """Takes nothing, for as long as it is deaf."""

    def __init__(self) -> None:
        self.asked, self.deaf_no_more = Event(), Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.deaf_no_more.wait()
        return SpanExportResult.FAILURE


def test_a_collector_that_takes_nothing_keeps_nobody() -> None:
    deaf = DeafCollector()
    provider = trace_to(deaf, "VideoAPI", "r1")
    with span("the last", CALLER):
        pass
    try:
        send_spans(0.1)
        assert deaf.asked.is_set()
    finally:
        deaf.deaf_no_more.set()
        provider.shutdown()


def test_where_nothing_is_traced_there_is_nothing_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_provider", None)
    send_spans(0.0)
