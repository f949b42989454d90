"""The derived rules of the injected faults, and the recorded table of docs/alerts.md."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.alerts.rules import ALERTS, Alert, alerts, duration, seconds, write_scaled
from benchmarks.alerts.table import HEAD, is_measured, markdown
from benchmarks.machine import RESULTS
from benchmarks.parts.alerts import NOT_CAUSED
from tests.promtool import ROOT, promtool

PAGE = (ROOT / "docs" / "alerts.md").read_text()
FIGURES = json.loads((RESULTS / "alerts.json").read_text())["figures"]["alerts"]

by_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def rules(path: Path) -> dict[str, dict[str, str]]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_the_derived_rules_are_accepted(tmp_path: Path) -> None:
    done = promtool("check", "rules", write_scaled(tmp_path / "alerts.yaml"))
    assert f"SUCCESS: {len(alerts())} rules found" in done.stdout, done.stdout + done.stderr


def test_they_differ_from_the_projects_in_stretches_of_time_alone(tmp_path: Path) -> None:
    own, derived = rules(ALERTS), rules(write_scaled(tmp_path / "alerts.yaml"))
    assert list(derived) == list(own)
    times = re.compile(
        r"\[\w+\]|(?<=_seconds\) > )[\d.]+|(?<=_seconds\{priority=\"interactive\"}\) > )[\d.]+"
    )
    for name, rule in own.items():
        without_for = {k: v for k, v in derived[name].items() if k not in ("for", "expr")}
        assert without_for == {k: v for k, v in rule.items() if k not in ("for", "expr")}
        assert times.sub("", derived[name]["expr"]) == times.sub("", rule["expr"])
        assert ("for" in derived[name]) == ("for" in rule)


@by_alert
def test_one_divisor_for_all_times_of_an_alert(alert: Alert) -> None:
    scaled = [seconds(found) for found in re.findall(r"\[(\w+)\]", alert.scaled_expr)]
    assert scaled == [window / alert.divisor for window in alert.windows_s]
    assert min(scaled, default=30) >= 30  # three of Ray's exports
    assert alert.divisor >= 1


@pytest.mark.parametrize(
    ("name", "true_after_s"),
    [
        ("ApiAvailabilityBurnFast", 52),  # 14.4 x 0.1 % of an hour
        ("LatencyBurnLow", 12_960),  # 5 % of three days
        ("QueueOld", 60),
        ("BatchStalled", 900),
        ("WebhooksGivenUp", 0),
        ("StorageErrors", 6),  # 1 % of ten minutes; that there are more than five, at once
    ],
)
def test_how_long_a_fault_lasts_before_an_alert_is_true(name: str, true_after_s: int) -> None:
    (alert,) = (alert for alert in alerts() if alert.name == name)
    assert round(alert.true_after_s) == true_after_s


def test_durations_are_prometheus_s() -> None:
    assert (seconds("30m"), duration(7.5)) == (1800.0, "7500ms")


@by_alert
def test_every_alert_has_its_row(alert: Alert) -> None:
    assert len(re.findall(rf"^\| \[{alert.name}\]", PAGE, re.MULTILINE)) == 1


def test_no_row_is_left_of_an_alert_that_is_gone() -> None:
    assert re.findall(r"^\| \[(\w+)\]", PAGE, re.MULTILINE) == [alert.name for alert in alerts()]


def test_the_table_is_that_of_the_recorded_figures() -> None:
    assert HEAD[0] in PAGE
    assert markdown(FIGURES, alerts()) in PAGE


def test_a_figure_of_another_expression_or_none_at_all_is_told() -> None:
    (alert,) = (alert for alert in alerts() if alert.name == "QueueOld")
    changed = replace(alert, expr=alert.expr.replace("60", "90"))
    longer = replace(alert, for_s=alert.for_s + 60)
    assert is_measured(alert, FIGURES["QueueOld"])
    assert "changed since; not measured again" not in markdown(FIGURES, [alert])
    for other in (changed, longer):
        assert not is_measured(other, FIGURES["QueueOld"])
        assert "changed since; not measured again" in markdown(FIGURES, [other])
    assert "not measured" in markdown({}, [alert])


def test_what_was_not_measured_has_a_case_of_promtool_in_which_it_fires() -> None:
    fires = {
        case["alertname"]
        for file in ("alerts_test.yaml", "alerts_days_test.yaml")
        for test in yaml.safe_load(ALERTS.with_name(file).read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    left_out = {alert.name for alert in alerts() if not is_measured(alert, FIGURES.get(alert.name))}
    assert left_out <= fires
    assert {*NOT_CAUSED} <= left_out
