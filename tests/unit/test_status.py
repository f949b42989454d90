"""What `shopreel status` makes of what a Prometheus answers; tests/integration has a real one."""

import json
import math
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from monitoring.dashboards.lint import UNITS
from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.status import charts
from monitoring.status.digest import Health
from monitoring.status.page import Report, status_html
from monitoring.status.prometheus import (
    Alert,
    Prometheus,
    PrometheusUnreachable,
    QueryRefused,
    ScrapeTarget,
    Series,
    Window,
)
from monitoring.status.readings import Named, Reading
from monitoring.status.units import formatted
from monitoring.status.view import view
from serve.cli import app

WINDOW = Window(end=3600.0, length_s=600.0, step_s=60.0)
MOMENTS = [3000.0 + 60 * n for n in range(11)]
UP = ScrapeTarget("shopreel", "node:1", False, "")
DOWN = ScrapeTarget("shopreel", "node:2", True, "connection refused")
FIRING = Alert({"alertname": "QueueOld", "severity": "page"}, {"summary": "late"}, "firing", "t")
PENDING = Alert({"alertname": "GpuHot"}, {}, "pending", "t")


def line(*values: float, **labels: str) -> Series:
    return Series(labels, list(zip(MOMENTS, values, strict=False)))


def reading(panel: Panel, *series: Series) -> Reading:
    found = [Named(" ".join(one.labels.values()), one) for one in series]
    return Reading(panel, [query.expr for query in panel.queries], found)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0, "s", "0 s"),
        (0.085, "s", "85 ms"),
        (90, "s", "1.5 min"),
        (1500, "ms", "1.5 s"),
        (0.9987, "percentunit", "99.9 %"),
        (3 * 2**30, "bytes", "3 GiB"),
        (12_345, "none", "12.3k"),
        (0.25, "reqps", "0.25 req/s"),
        (71, "celsius", "71 °C"),
        (-3, "none", "-3"),
        (math.nan, "s", "–"),
        (math.inf, "s", "∞"),
    ],
)
def test_figures_are_said_in_their_unit(value: float, unit: str, said: str) -> None:
    assert formatted(value, unit) == said


@given(st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 6)), min_size=1))
def test_an_axis_holds_zero_and_every_value_between_few_ticks(values: list[float]) -> None:
    scale = charts.Scale.over(values, "none")
    assert scale.low <= min(0.0, *values)
    assert scale.high >= max(0.0, *values)
    assert all(-1e-9 <= scale.share(value) <= 1 + 1e-9 for value in values)
    assert 2 <= len(scale.ticks) <= 8
    assert 0.0 in scale.ticks


@pytest.mark.parametrize(
    ("highest", "unit", "step"),
    [
        (90, "none", 25),
        (1500, "s", 600),
        (70, "s", 30),
        (3, "s", 1),
        (6 * 2**30, "bytes", 2 * 2**30),
    ],
)
def test_ticks_are_round_in_their_unit(highest: float, unit: str, step: float) -> None:
    ticks = charts.Scale.over([highest], unit).ticks
    assert ticks[1] == step


def test_every_unit_of_the_dashboards_can_be_said() -> None:
    assert all(formatted(1.0, unit) for unit in UNITS)


def test_a_line_breaks_where_there_is_no_value() -> None:
    plot = charts.Plot(400, 200, WINDOW, charts.Scale.over([4], "s"))
    whole = line(1, 2, 3, 4)
    gap = Series({}, [whole.points[0], whole.points[1], (MOMENTS[8], 1.0), (MOMENTS[9], 2.0)])
    undefined = line(1, 2, math.nan, 3, 4)

    def strokes(series: Series) -> int:
        (path,) = re.findall(r'class="line c0" d="([^"]*)"', charts.lines(plot, [series], "s"))
        return int(path.count("M"))

    assert [strokes(series) for series in (whole, gap, undefined)] == [1, 2, 2]


def test_a_heatmap_shows_what_fell_into_each_bucket_and_no_empty_ends() -> None:
    cumulative = {"1.0": (0, 0), "5.0": (2, 0), "10.0": (2, 3), "+Inf": (2, 3)}
    series = [line(*counts, le=bound) for bound, counts in cumulative.items()]
    drawn = charts.heatmap(400, 200, WINDOW, series, "s")
    assert drawn.count("<rect") == 2
    assert re.findall(r'class="right"[^>]*>([^<]*)<', drawn) == ["5 s", "10 s"]


def test_a_stat_is_red_on_the_wrong_side_of_its_threshold() -> None:
    query = [Query("q", "{{tier}}")]
    goal = Panel("Jobs completed", "percentunit", query, kind="stat", red_below=0.99)
    lost = Panel("Lost", "none", query, kind="stat", red_above=1)

    def color(panel: Panel, value: float) -> str:
        (figure,) = view(reading(panel, line(value)), WINDOW).figures
        return figure.color

    assert [color(goal, value) for value in (0.98, 0.99)] == ["red", "green"]
    assert [color(lost, value) for value in (0, 1)] == ["green", "red"]
    assert color(Panel("Version", "none", query, kind="stat"), 1) == ""


def page_of(health: Health, *readings: Reading) -> str:
    row = Row("Row", [one.panel for one in readings])
    dashboards = [Dashboard("uid", "Overview", "What it is.", [row])]
    return status_html(Report("http://p", WINDOW, health, dashboards, readings)).decode()


def test_what_others_named_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    queue = Panel("Queue", "none", [Query("q", "{{tier}}")])
    stat = Panel("Tiers", "none", [Query("q", "{{tier}}")], kind="stat")
    target = ScrapeTarget("shopreel", evil, True, evil)
    page = page_of(
        Health([], 1, [target]),
        reading(queue, line(1, 2, tier=evil)),
        reading(stat, line(1, tier=evil)),
        Reading(queue, [evil], problem=evil),
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_a_panel_without_data_says_so_and_a_refused_query_says_why() -> None:
    panel = Panel("Cards", "celsius", [Query("q", "{{tier}}")])
    page = page_of(
        Health([], 1, [UP]),
        reading(panel),
        Reading(panel, ["q"], problem="bad_data: no such thing"),
    )
    assert page.count("no data") == 1
    assert "bad_data: no such thing" in page


@pytest.mark.parametrize(
    ("health", "headline", "color"),
    [
        (Health([FIRING, PENDING], 9, [UP, DOWN]), "1 alert fires", "red"),
        (Health([PENDING], 9, [UP, DOWN]), "1 of 2 targets are down", "red"),
        (Health([PENDING], 9, [UP]), "No alert fires", "green"),
        (Health([], 0, [UP]), "No alert rules are loaded", "yellow"),
        (Health([], 9, []), "Nothing is scraped", "red"),
    ],
)
def test_silence_passes_for_health_only_where_somebody_watches(
    health: Health, headline: str, color: str
) -> None:
    assert (health.headline, health.color) == (headline, color)


@pytest.mark.parametrize("hours", [0.1, 6, 24 * 30])
def test_a_window_ends_now_and_has_no_more_points_than_a_page_shows(hours: float) -> None:
    window = Window.ending(1_000_001.0, hours * 3600)
    assert window.end == 1_000_001.0
    assert window.length_s / window.step_s <= 240


def test_a_legend_of_many_leaves_out_what_is_0_throughout() -> None:
    panel = Panel("Failures", "cps", [Query("q", "{{code}}")], stacked=True)
    many = [line(0, 0, code=str(code)) for code in range(9)] + [line(0, 2, code="no_space")]
    shown = view(reading(panel, *many), WINDOW)
    assert [entry.last for entry in shown.legend] == ["2 /s"]
    assert shown.zeros == 9
    few = view(reading(panel, *many[-2:]), WINDOW)
    assert (len(few.legend), few.zeros) == (2, 0)


class _Answer(BaseHTTPRequestHandler):
    status, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://user:secret@127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_refused_query_is_told_in_prometheus_own_words(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = {"status": "error", "errorType": "bad_data", "error": "parse error"}
    monkeypatch.setattr(_Answer, "status", 400)
    monkeypatch.setattr(_Answer, "body", json.dumps(refusal).encode())
    with (
        Prometheus(server) as prometheus,
        pytest.raises(QueryRefused, match="bad_data: parse error"),
    ):
        prometheus.at("sum(", 0.0)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (401, b""), (200, b"[]")])
def test_what_is_no_prometheus_is_named_without_its_password(
    server: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setattr(_Answer, "status", status)
    monkeypatch.setattr(_Answer, "body", body)
    with Prometheus(server) as prometheus, pytest.raises(PrometheusUnreachable) as raised:
        prometheus.alerts()
    assert str(status) in str(raised.value)
    assert "secret" not in str(raised.value)


def test_status_ends_with_a_message_where_nothing_answers() -> None:
    ran = CliRunner().invoke(app, ["status", "--prometheus", "http://127.0.0.1:9"])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: http://127.0.0.1:9 does not answer")
