"""What is declared follows Prometheus' conventions and is emitted; what is emitted is declared."""

import ast
import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from catalog.batches.keeper import _with
from cluster.cost import CostModel
from cluster.ladder import Floor
from cluster.tiers import TierConfig
from deployments import vitals
from deployments.checkpoint_shelf import CheckpointShelf
from deployments.dispatch.fleet import Fleet, Replicas
from deployments.dispatch.tally import Tally, count_start, count_video
from deployments.dispatch.verdict import judge
from deployments.job_ends import begin_counting_ends, count_end
from deployments.vitals import Vitals
from diffusion.errors import DeadlineExceeded, EngineBroken, NonFiniteLatents, OutOfMemory
from diffusion.model_folder import ModelConfig
from diffusion.params import Priority
from monitoring import instruments, metrics
from monitoring.gpu import Card, CardError, Reading
from monitoring.instruments import Counter, Gauge, Histogram, Metric
from serve.edge.counting import CountAnswers
from serve.errors import ERROR_CODE, SHED, TABLE
from storage.batches import Batch, Counts
from storage.errors import StoreUnavailable
from storage.job_store import SqlJobStore
from storage.jobs import Feedback, Job, JobStatus
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.overview import Line
from tests.recorded import Recorded
from tests.sample_jobs import VIDEO, make_request
from tests.sample_model import ARCHITECTURE
from video.errors import EncodeFailed

ROOT = Path(__file__).parents[2]
PRODUCT = ("serve", "catalog", "deployments", "cluster", "monitoring")
UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_joules")
UNITLESS = {  # counts of things, and infos
    "shopreel_queue_depth",
    "shopreel_jobs_in_flight",
    "shopreel_tier_replicas",
    "shopreel_replicas_starting",
    "shopreel_lost_results",
    "shopreel_duplicate_results",
    "shopreel_batch_rows_remaining",
    "shopreel_build_info",
    "shopreel_model_info",
}
OF_CONFIG_OR_MACHINE = {
    *("tier", "deployment", "route", "code", "gpu", "version", "model", "revision"),
}

by_name = pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


# What is declared.


@by_name
def test_names_and_units_follow_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"shopreel(_[a-z]+)+", metric.name)
    assert len(metric.description) > 3
    assert metric.description.endswith(".")
    if isinstance(metric, Counter):
        assert metric.name.endswith("_total")
        return
    assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert metric.name.endswith(UNITS) or metric.name in UNITLESS


@by_name
def test_labels_are_few_and_bounded(metric: Metric) -> None:
    assert len(metric.labels) <= 4
    for label, values in metric.labels.items():
        assert re.fullmatch(r"[a-z]+", label)
        if values is None:
            assert label in OF_CONFIG_OR_MACHINE
        else:
            assert len(set(values)) == len(values) <= 20


@by_name
def test_buckets_go_up(metric: Metric) -> None:
    if isinstance(metric, Histogram):
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert len(metric.bounds) <= 20  # each is a series


def test_no_name_is_declared_twice() -> None:
    names = [metric.name for metric in metrics.ALL]
    assert len(set(names)) == len(names) > 40


# What is emitted, by the product's own source.


@dataclass(frozen=True)
class Emission:
    where: str
    metric: Metric
    tags: ast.expr | None


def product_trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def emissions() -> Iterator[Emission]:
    for where, tree in product_trees():
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id="metrics"), attr=name),
                        attr="inc" | "set" | "keep" | "observe",
                    )
                ):
                    tags = next((k.value for k in node.keywords if k.arg == "tags"), None)
                    yield Emission(f"{where}:{node.lineno}", getattr(metrics, name), tags)


def test_every_metric_is_emitted() -> None:
    used = {
        node.attr
        for where, tree in product_trees()
        if where != "monitoring/metrics.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "metrics"
    }
    declared = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert declared - used == set()


def test_labels_are_those_that_were_declared() -> None:
    checked = 0
    for emission in emissions():
        if emission.tags is None:
            assert not emission.metric.labels, emission.where
        elif isinstance(emission.tags, ast.Dict) and None not in emission.tags.keys:
            given = [ast.literal_eval(key) for key in emission.tags.keys if key is not None]
            assert given == list(emission.metric.labels), emission.where
            for label, value in zip(given, emission.tags.values, strict=True):
                declared = emission.metric.labels[label]
                if isinstance(value, ast.Constant) and declared is not None:
                    assert value.value in declared, emission.where
                    checked += 1
    assert checked >= 3


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemory("full"),
        DeadlineExceeded(3),
        NonFiniteLatents(3),
        EngineBroken("dead"),
        StoreUnavailable("away"),
        EncodeFailed("empty"),
        MemoryError(),
        RuntimeError(),
    ],
)
def test_every_verdict_has_a_declared_code(error: Exception) -> None:
    assert judge(error).code in (metrics.JOB_FAILURES.labels["code"] or ())


def test_a_counter_begins_at_0_in_every_series_that_may_come(recorded: Recorded) -> None:
    metrics.begin(metrics.JOBS, metrics.RESULTS_ADOPTED, tier=["a100", "cpu"])
    assert recorded.values(metrics.JOBS) == [0.0] * 6
    assert {"tier": "cpu", "outcome": "cancelled"} in recorded.series(metrics.JOBS)
    assert recorded.values(metrics.RESULTS_ADOPTED) == [0.0]
    with pytest.raises(TypeError):
        metrics.begin(metrics.JOBS)  # which tiers?


def test_what_is_kept_is_said_again_until_it_changes(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "TELL_EVERY_S", 0.02)
    gauge = Gauge("shopreel_test", "Kept.", tier=None)  # no other test's
    gauge.keep(1, tags={"tier": "a"})
    gauge.keep(2, tags={"tier": "b"})
    gauge.keep(3, tags={"tier": "a"})
    deadline = time.monotonic() + 60
    while recorded.values(gauge, tier="a").count(3) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    said = recorded.values(gauge, tier="a")
    assert said[-3:] == [3, 3, 3]
    assert set(recorded.values(gauge, tier="b")) == {2}


# HTTP.


def answers(scope: Scope, status: int, code: str | None = None) -> None:
    """Send one request through the middleware, with an application that answers so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if code is not None:
            scope[ERROR_CODE] = code
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        pass

    routes = [
        Route("/v1/videos", answers, methods=["POST"]),
        Route("/v1/videos/{video_id}", answers, methods=["GET"]),
        Route("/readyz", answers, methods=["GET"]),
    ]
    asyncio.run(CountAnswers(app, routes)(scope, receive, send))


def request(method: str, path: str, **headers: str) -> Scope:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs}


def test_an_answer_counts_by_its_template_never_by_its_path(recorded: Recorded) -> None:
    answers(request("GET", "/v1/videos/video_123"), 200)
    answers(request("PROPFIND", "/etc/passwd"), 404)
    labels = {"route": "/v1/videos/{video_id}", "method": "GET"}
    assert sum(recorded.values(metrics.HTTP_REQUESTS, **labels, code="200")) == 1
    assert len(recorded.values(metrics.HTTP_SECONDS, **labels)) == 1
    other = {"route": "none", "method": "other", "code": "404", "shed": "no"}
    assert other in recorded.series(metrics.HTTP_REQUESTS)
    assert "video_123" not in str(recorded.series(metrics.HTTP_REQUESTS))


def test_what_can_go_wrong_on_a_route_is_shown_before_it_does(recorded: Recorded) -> None:
    answers(request("GET", "/v1/videos/x"), 200)
    labels = {"route": "/v1/videos", "method": "POST"}
    assert recorded.values(metrics.HTTP_REQUESTS, **labels, code="500") == [0.0]
    for shed in ("yes", "no"):
        assert recorded.values(metrics.HTTP_REQUESTS, **labels, code="503", shed=shed) == [0.0]


@pytest.mark.parametrize(
    ("status", "code", "shed"),
    [
        (503, "queue_full", "yes"),
        (503, "overloaded", "yes"),
        (503, "server_busy", "yes"),
        (503, "store_unavailable", "no"),  # Postgres is away: a failure like any other
        (503, "store_misconfigured", "no"),
        (503, None, "no"),
        (500, "internal", "no"),
        (202, None, "no"),
    ],
)
def test_a_503_is_shed_only_where_load_was_sent_away(
    recorded: Recorded, status: int, code: str | None, shed: str
) -> None:
    answers(request("GET", "/v1/videos/x"), status, code)
    counted = [
        told["shed"]
        for told in recorded.series(metrics.HTTP_REQUESTS)
        if sum(recorded.values(metrics.HTTP_REQUESTS, **told))
    ]
    assert counted == [shed]


def test_every_503_is_either_shed_or_a_failure_by_its_declared_code() -> None:
    """A new reason to answer 503 is to be thought about."""
    table = {
        row.code or str(error.code)  # type: ignore[attr-defined]
        for error, row in TABLE.items()
        if row.status == 503
    }
    assert table - SHED == {"store_unavailable", "store_misconfigured"}
    assert set(metrics.JOBS_REFUSED.labels["reason"] or ()) >= table | SHED


def test_a_probe_is_no_callers_request(recorded: Recorded) -> None:
    answers(request("GET", "/readyz"), 503)
    assert sum(recorded.values(metrics.HTTP_REQUESTS)) == 0
    assert recorded.values(metrics.HTTP_SECONDS) == []
    assert "/readyz" not in str(recorded.series(metrics.HTTP_REQUESTS))


@pytest.mark.parametrize(
    ("status", "code", "counted"),
    [(429, "quota_exceeded", 1), (503, "queue_full", 1), (422, "image_too_small", 0)],
)
def test_only_creations_sent_away_for_now_are_refused_jobs(
    recorded: Recorded, status: int, code: str, counted: int
) -> None:
    answers(request("POST", "/v1/videos"), status, code)
    answers(request("GET", "/v1/videos/x"), status, code)
    assert sum(recorded.values(metrics.JOBS_REFUSED)) == counted
    assert sum(recorded.values(metrics.JOBS_REFUSED, reason=code)) == counted


def test_a_request_that_asked_to_wait_is_no_latency(recorded: Recorded) -> None:
    answers(request("POST", "/v1/videos", prefer="wait=30"), 200)
    assert recorded.values(metrics.HTTP_SECONDS) == []
    assert sum(recorded.values(metrics.HTTP_REQUESTS)) == 1


# Jobs.


def job(**changes: object) -> Job:
    fields = {
        "request": make_request("video_1"),
        "status": JobStatus.COMPLETED,
        "created_at": 100.0,
        "started_at": 104.0,
        "completed_at": 110.0,
        "attempt": 1,
        "tier": "cpu",
        "result": VIDEO,
    }
    return Job(**(fields | changes))  # type: ignore[arg-type]


def test_every_end_counts_once_by_tier_and_outcome(recorded: Recorded) -> None:
    begin_counting_ends(["cpu"])
    count_end(job())
    count_end(job(status=JobStatus.CANCELLED, tier=None))
    count_end(job(status=JobStatus.FAILED, error_code="out_of_memory"))
    count_end(job(feedback=Feedback(1)))  # recorded again
    count_end(job(request=replace(make_request("video_1"), candidates=2)))  # they count
    assert sum(recorded.values(metrics.JOBS)) == 3
    assert sum(recorded.values(metrics.JOBS, tier="none", outcome="cancelled")) == 1
    assert sum(recorded.values(metrics.JOB_FAILURES, code="out_of_memory")) == 1
    assert recorded.values(metrics.JOB_SECONDS, tier="cpu", priority="interactive") == [10.0]


def test_the_wait_is_that_for_the_first_attempt(recorded: Recorded) -> None:
    count_start(job(), "cpu")
    count_start(job(attempt=2), "cpu")
    assert recorded.values(metrics.JOB_WAIT_SECONDS) == [4.0]


def test_frames_are_those_that_the_model_made(recorded: Recorded) -> None:
    output = replace(make_request("video_1").output, inbetweens=2)
    made = job(request=replace(make_request("video_1"), output=output))
    video = replace(VIDEO, frames=22, timings={"denoising": 6.0, "decoding": 2.0})
    count_video(made, "cpu", video)
    count_video(replace(made, attempt=2), "cpu", video)  # it may have been resumed
    count_video(made, "camera", replace(video, camera_layers=1))  # nothing was generated
    assert recorded.values(metrics.FRAMES) == [8, 8]
    assert recorded.values(metrics.FRAME_SECONDS) == [1.0]


def fleet(cost_per_hour: float | None) -> Fleet:
    tier = TierConfig(name="cpu", cost_per_hour=cost_per_hour, min_replicas=2, max_replicas=2)
    cost = CostModel(ARCHITECTURE, [tier], ModelConfig(source="x", dtype="float32"), {})
    return Fleet([tier], [Handle()], cost, Floor(64 * 64, 8, 8))


class Handle:
    """What a fleet keeps of a deployment until it calls it."""

    def options(self, **_: object) -> "Handle":
        return self


def test_the_dispatcher_tells_of_queue_and_tiers(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0])
    tally = Tally(fleet(cost_per_hour=3.6))
    now[0] += 100
    lines = {Priority.INTERACTIVE: Line(2, 1090.0), Priority.BATCH: Line(0, None)}
    tally.tell([job()], lines)
    assert recorded.values(metrics.REPLICAS, tier="cpu") == [2]
    assert recorded.values(metrics.IN_FLIGHT, tier="cpu") == [1]
    assert recorded.values(metrics.QUEUE_DEPTH) == [2, 0]
    assert recorded.values(metrics.QUEUE_AGE) == [10.0, 0.0]
    assert recorded.values(metrics.REPLICAS_STARTING) == []  # Serve has not told yet
    assert recorded.values(metrics.COST, tier="cpu") == [0.0, pytest.approx(0.2)]


def test_replicas_that_serve_wants_and_that_do_not_run_are_shown(recorded: Recorded) -> None:
    some = fleet(cost_per_hour=None)
    states = {"Denoiser-cpu": {"RUNNING": 1, "STARTING": 2}, "Decoder": {"RUNNING": 1}}
    some.note_replicas({name: Replicas.of(found) for name, found in states.items()})
    Tally(some).tell([], None)
    assert recorded.values(metrics.REPLICAS, tier="cpu") == [1]
    assert recorded.values(metrics.REPLICAS_STARTING, deployment="Denoiser-cpu") == [2]
    assert recorded.values(metrics.REPLICAS_STARTING, deployment="Decoder") == [0]


def test_a_tier_without_a_price_costs_nothing_that_we_know_of(recorded: Recorded) -> None:
    some = fleet(cost_per_hour=None)
    some.note_replicas({"Denoiser-cpu": Replicas(2)})
    Tally(some).tell([], None)
    assert recorded.values(metrics.COST) == []
    assert recorded.values(metrics.QUEUE_DEPTH) == []  # the table did not answer


def test_the_queue_is_read_by_priority(store: SqlJobStore) -> None:
    from storage.sql.overview import lines

    store.create(make_request("first"))
    store.create(make_request("second"))
    store.create(make_request("third", priority=Priority.BATCH))
    store.cancel("shop", "first")
    found = lines(store.database)
    assert [found[priority].length for priority in Priority] == [1, 1]
    assert found[Priority.BATCH].oldest_at == 1000.0


def test_rows_of_a_batch_count_as_they_end(recorded: Recorded) -> None:
    began = Batch(id="b", tenant="shop", request="{}", output_uri="s3://b/runs/b")
    batch = replace(began, counts=Counts(10, 2, 0))
    batch = _with(batch, Counts(10, 5, 1))
    assert _with(batch, Counts(10, 4, 2)).counts.failed == 2  # the summary's last word
    assert recorded.values(metrics.BATCH_ROWS, outcome="ok") == [3]
    assert recorded.values(metrics.BATCH_ROWS, outcome="failed") == [1, 1]


# A replica's own.


def no_checkpoints() -> CheckpointShelf:
    """Nothing is stored in these tests, so nobody listens at the other end."""
    nowhere = ObjectStoreConfig(
        endpoint="127.0.0.1:1", bucket="none", access_key="k", secret_key=SecretStr("s")
    )
    return CheckpointShelf(S3ObjectStore(nowhere))


def test_a_call_of_the_unet_counts_as_time_of_its_tier(recorded: Recorded) -> None:
    async def scenario() -> None:
        told = Vitals("cpu", torch.device("cpu"), no_checkpoints())
        told.note_call(0.5)
        told.note_steps(3)
        told.note_steps(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert recorded.values(metrics.GPU_SECONDS, tier="cpu") == [0.0, 0.5]
    assert recorded.values(metrics.DENOISE_STEP_SECONDS, tier="cpu") == [0.5]
    assert recorded.values(metrics.DENOISE_STEPS, tier="cpu") == [0.0, 3]
    assert recorded.values(metrics.CHECKPOINT_AGE, tier="cpu") == [0.0]
    assert recorded.values(metrics.GPU_MEMORY_RESERVED) == []  # a CPU has none


def test_vitals_outlive_a_reading_that_fails(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises: torch's own exceptions too, of a card that has failed."""
    monkeypatch.setattr(vitals, "TELL_EVERY_S", 0.01)
    left = [RuntimeError("CUDA error"), CardError(999), ValueError("odd")]

    class Shelf(CheckpointShelf):
        @property
        def unsaved_s(self) -> float:
            if left:
                raise left.pop()
            return 7.0

    async def scenario() -> None:
        nowhere = ObjectStoreConfig(
            endpoint="127.0.0.1:1", bucket="none", access_key="k", secret_key=SecretStr("s")
        )
        kept = Vitals("cpu", torch.device("cpu"), Shelf(S3ObjectStore(nowhere)))
        while not recorded.values(metrics.CHECKPOINT_AGE):
            await asyncio.sleep(0.01)
        assert not kept._task.done()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert recorded.values(metrics.CHECKPOINT_AGE, tier="cpu")[0] == 7.0
    assert [record.exc_info is not None for record in caplog.records] == [True]  # once, not thrice


def test_energy_is_what_was_drawn_since_the_last_look(recorded: Recorded) -> None:
    async def scenario() -> None:
        told = Vitals("cpu", torch.device("cpu"), no_checkpoints())
        card = object.__new__(Card)
        card.index = "3"
        for joules in (5000.0, 5040.0, 10.0, None, 12.0):
            told._show(card, Reading(0.5, 1, 2, None, joules))

    asyncio.run(scenario())
    assert recorded.values(metrics.GPU_ENERGY, gpu="3") == [0.0, 40.0, 0.0]
    assert recorded.values(metrics.GPU_UTILIZATION, gpu="3") == [0.5] * 5
    assert recorded.values(metrics.GPU_TEMPERATURE) == []  # this card does not tell
    assert isinstance(metrics.GPU_TEMPERATURE, Gauge)
