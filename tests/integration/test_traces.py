"""Traces and log lines of a whole cluster: one job, followed through every process it came to."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitoring.logs import digest
from tests.integration.live import LiveCluster, write_config

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"
PROMPT = "a very secret watch turns"
TRACE, CALLER = "ab" * 16, "cd" * 8
REQUEST_ID = "order-4711"
STEPS = 5

STAGES = {
    "text_encoding": "TextEncoder",
    "image_encoding": "ImageEncoder",
    "denoising": "Denoiser-cpu",
    "decoding": "Decoder",
    "video_encoding": "VideoEncoder",
    "storing": "VideoEncoder",
}
PARENTS = {
    "POST /v1/videos": CALLER,
    "queue": "POST /v1/videos",
    "attempt": "POST /v1/videos",
    **dict.fromkeys(STAGES, "attempt"),
    "commit": "storing",
    "recording": "attempt",
}

pytestmark = pytest.mark.timeout(400)


class Receiver:
    """An OTLP collector on loopback: spans by name, and the services that sent them."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.services: dict[str, str] = {}
        self.keys: set[str | None] = set()  # that came with an export

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805  # http.server's name for it
                body = handler.rfile.read(int(handler.headers["content-length"]))
                if handler.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                self.keys.add(handler.headers["x-collector-key"])
                self._take(ExportTraceServiceRequest.FromString(body))
                handler.send_response(200)
                handler.send_header("content-length", "0")
                handler.end_headers()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def _take(self, export: ExportTraceServiceRequest) -> None:
        for group in export.resource_spans:
            names = {a.key: a.value.string_value for a in group.resource.attributes}
            for span in (span for scope in group.scope_spans for span in scope.spans):
                if span.trace_id.hex() == TRACE:
                    self.spans[span.name] = span
                    self.services[span.name] = names["service.name"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Receiver, Path]]:
    """The id of a job that has ended, the spans of its trace, and where the cluster's logs are."""
    folder = tmp_path_factory.mktemp("traced")
    with Receiver() as receiver:
        traces: dict[str, Any] = {"endpoint": receiver.url, "headers": {"x-collector-key": "k"}}
        traces |= {"trust_callers": True}
        config = write_config(folder / "config.yaml", **{"observability.traces": traces})
        with LiveCluster(folder / "data", config) as cluster:
            job_id = _make(cluster.url)
            deadline = time.monotonic() + 60
            while len(receiver.spans) < len(PARENTS) and time.monotonic() < deadline:
                time.sleep(0.1)
        yield job_id, receiver, folder / "data" / "logs"


def _make(url: str) -> str:
    created = httpx2.post(
        f"{url}/v1/videos",
        headers={"x-request-id": REQUEST_ID, "traceparent": f"00-{TRACE}-{CALLER}-01"},
        data={"prompt": PROMPT, "num_frames": "8", "num_inference_steps": str(STEPS)},
        files={"input_reference": ("photo.jpg", PHOTO.read_bytes(), "image/jpeg")},
    )
    assert created.headers["x-request-id"] == REQUEST_ID
    job_id: str = created.json()["id"]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        video = httpx2.get(f"{url}/v1/videos/{job_id}").json()
        if video["status"] in ("completed", "failed"):
            assert video["status"] == "completed"
            return job_id
        time.sleep(0.2)
    raise AssertionError("it does not end")


def test_a_job_is_one_connected_trace_across_the_deployments(
    followed: tuple[str, Receiver, Path],
) -> None:
    job_id, receiver, _ = followed
    spans = receiver.spans
    names = {span.span_id.hex(): name for name, span in spans.items()} | {CALLER: CALLER}
    assert {name: names[s.parent_span_id.hex()] for name, s in spans.items()} == PARENTS
    dispatched = dict.fromkeys(("queue", "attempt", "recording"), "Dispatcher")
    assert receiver.services == {
        "POST /v1/videos": "VideoAPI",
        **dispatched,
        **STAGES,
        "commit": "VideoEncoder",
    }
    attempt = spans["attempt"]
    for name in STAGES:
        stage, told = spans[name], {a.key: a.value for a in spans[name].attributes}
        assert told["shopreel.job"].string_value == job_id
        begun, ended = stage.start_time_unix_nano, stage.end_time_unix_nano
        assert attempt.start_time_unix_nano <= begun < ended <= attempt.end_time_unix_nano
        assert 0 < told["shopreel.seconds"].double_value <= (ended - begun) / 1e9 + 1e-3
    assert receiver.keys == {"k"}


def _lines(logs: Path) -> list[dict[str, Any]]:
    files = list(logs.glob("serve/replica_shopreel_*.log"))
    assert len(files) == 9  # a deployment each
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_every_stage_leaves_a_line_that_leads_back_to_the_request(
    followed: tuple[str, Receiver, Path],
) -> None:
    job_id, _, logs = followed
    lines = [line for line in _lines(logs) if line.get("request_id") == REQUEST_ID]
    told = {line["event"]: line for line in lines}
    assert {name: told[name]["deployment"] for name in STAGES} == STAGES
    ids = {"job": job_id, "attempt": 1, "tier": "cpu", "trace_id": TRACE}
    for name in (*STAGES, "first UNet step"):
        assert told[name].items() >= ids.items(), name
        assert sum(line["event"] == name for line in lines) == 1
    for name in STAGES:
        assert told[name]["seconds"] > 0
        assert told[name]["vram_bytes"] is None
    assert (told["first UNet step"]["step"], told["denoising"]["step"]) == (1, STEPS)
    assert told["decoding"]["shapes"]["frames"][0] == 8
    assert told["created"]["job"] == job_id
    assert told["created"]["prompt_sha256"] == told["text_encoding"]["prompt_sha256"]
    assert told["created"]["prompt_sha256"] == digest(PROMPT)
    assert (told["request"]["method"], told["request"]["status"]) == ("POST", 202)


def test_no_prompt_stands_in_any_file_of_the_cluster(
    followed: tuple[str, Receiver, Path],
) -> None:
    _, _, logs = followed
    files = [file for file in logs.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if b"secret watch" in file.read_bytes()]
