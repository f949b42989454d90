"""Dashboards: laid out without faults, and asking only for what monitoring/metrics.py declares."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monitoring import metrics
from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.lint import problems
from monitoring.dashboards.panel import DATA_SOURCE_UID, Dashboard, Panel, Query, Row
from monitoring.grafana.rules import alert_rules
from monitoring.instruments import Histogram

_SERIES = re.compile(r"\bray_(shopreel_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_BY_RAY = {"NodeAddress", "WorkerId", "SessionName", "le"}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_a_dashboard_has_no_problems(dashboard: Dashboard) -> None:
    assert problems(dashboard.as_json(), DATA_SOURCE_UID) == []


def test_dashboards_are_told_apart() -> None:
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS) == 7
    assert len({dashboard.title for dashboard in DASHBOARDS}) == 7
    assert all(len(dashboard.uid) <= 40 for dashboard in DASHBOARDS)


def test_another_data_source_is_asked_by_every_panel() -> None:
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.as_json("of-the-company"))
        assert DATA_SOURCE_UID not in text
        assert "of-the-company" in text


def test_panels_wrap_at_the_right_edge_below_the_tallest_of_their_line() -> None:
    board = Dashboard("u", "t", "", [Row("r", [_panel("a", 10), _panel("b", 14), _panel("c", 12)])])
    places = [panel["gridPos"] for panel in board.as_json()["panels"]]
    assert [(place["x"], place["y"]) for place in places] == [(0, 0), (0, 1), (10, 1), (0, 9)]


@pytest.mark.parametrize(
    ("said", "break_it"),
    [
        ("panel id", lambda panel, other: panel.update(id=other["id"])),
        ("lies over", lambda panel, other: panel.update(gridPos=other["gridPos"])),
        ("column 30", lambda panel, _: panel["gridPos"].update(x=20, w=10)),
        ("no unit", lambda panel, _: panel["fieldConfig"]["defaults"].update(unit="seconds")),
        ("no unit", lambda panel, _: panel["fieldConfig"]["defaults"].pop("unit")),
        ("no title", lambda panel, _: panel.update(title=" ")),
        ("unknown panel type", lambda panel, _: panel.update(type="graph")),
        ("asks nothing", lambda panel, _: panel.update(targets=[])),
        ("no expression", lambda panel, _: panel["targets"][0].update(expr="")),
        ("no legend", lambda panel, _: panel["targets"][0].update(legendFormat="")),
        ("data source", lambda panel, _: panel["datasource"].update(uid="elsewhere")),
        ("refId", lambda panel, _: panel["targets"].append(panel["targets"][0])),
        ("$tier", lambda panel, _: panel["targets"][0].update(expr='up{tier="$tier"}')),
        ("axis in seconds", lambda panel, _: panel["targets"][0].update(expr="ray_x_ms_bucket")),
        (
            "axis in ms",
            lambda panel, _: panel["fieldConfig"]["defaults"].update(unit="ms"),
        ),
    ],
)
def test_every_fault_is_found(
    said: str, break_it: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    board = Dashboard("u", "t", "", [Row("r", [_panel("a", 8), _panel("b", 8)])]).as_json()
    assert problems(board, DATA_SOURCE_UID) == []
    broken = copy.deepcopy(board)
    _row, panel, other = broken["panels"]
    break_it(panel, other)
    (found,) = [problem for problem in problems(broken, DATA_SOURCE_UID) if said in problem]
    assert found


def test_every_series_of_ours_is_declared_with_the_labels_that_are_asked() -> None:
    declared = {
        name: metric
        for metric in metrics.ALL
        for name in (
            [f"{metric.name}_{part}" for part in ("bucket", "count")]  # Ray guesses _sum
            if isinstance(metric, Histogram)
            else [metric.name]
        )
    }
    asked = list(_asked())
    assert len(asked) > 100
    for name, matchers in asked:
        assert name in declared, name
        metric = declared[name]
        for label, operator, value in _MATCHER.findall(matchers):
            assert label in {*metric.labels, *_BY_RAY}, (name, label)
            if label == "le":
                assert isinstance(metric, Histogram)
                assert float(value) in metric.bounds, (name, value)
            elif told := metric.labels.get(label):
                exact = operator in ("=", "!=")
                pattern = re.escape(value) if exact else value
                assert any(re.fullmatch(pattern, one) for one in told), (name, label, value)


def test_groupings_are_by_labels_that_some_series_has() -> None:
    known = {label for metric in metrics.ALL for label in metric.labels} | _BY_RAY
    known |= {"deployment", "Location", "ip", "Hostname"}  # Ray's and dcgm-exporter's
    known |= {"persistentvolumeclaim", "instance"}  # a kubelet's, a probe's
    for expr in _exprs():
        for labels in re.findall(r"\bby \(([^)]*)\)", expr):
            assert {label.strip() for label in labels.split(",")} <= known, expr


def test_every_metric_of_ours_is_on_a_dashboard_or_an_alert() -> None:
    shown = {re.sub(r"_(bucket|count)$", "", name) for name, _ in _asked()}
    unseen = {metric.name for metric in metrics.ALL} - shown
    assert unseen == {"shopreel_model_info"}  # to be joined with others by hand


def _asked() -> Iterator[tuple[str, str]]:
    return (found.groups("") for expr in _exprs() for found in _SERIES.finditer(expr))  # type: ignore[misc]


def _exprs() -> Iterator[str]:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            yield from (query.expr for query in panel.queries)
    for rule in alert_rules("folder", "source"):
        yield rule["data"][0]["model"]["expr"]


def _panel(title: str, width: int) -> Panel:
    return Panel(title, "s", [Query("rate(ray_shopreel_x_seconds_count[5m])", "x")], width=width)
