"""Alerts: each fires and does not, by promtool; and says what the person on call needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.gpu import MEMORY_RUNGS
from monitoring.dashboards.promql import (
    API_GOAL,
    CALLERS_FAULTS,
    CREATION,
    IN_TIME_GOAL,
    IN_TIME_S,
    JOBS_GOAL,
)
from monitoring.grafana.rules import ALERTS
from tests.promtool import ROOT, promtool

TESTS = [ALERTS.with_name(f"{name}_test.yaml") for name in ("alerts", "alerts_days")]
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]
}


def test_every_alert_fires_and_stays_silent_as_its_cases_say() -> None:
    done = promtool("test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_bound_would_be_noticed(tmp_path: Path) -> None:
    rules = ALERTS.read_text().replace("> 14.4 * 0.001", "> 144 * 0.001")
    (tmp_path / ALERTS.name).write_text(rules)
    cases = tmp_path / TESTS[0].name
    cases.write_text(TESTS[0].read_text())
    done = promtool("test", "rules", cases)
    assert done.returncode == 1
    assert "ApiAvailabilityBurnFast" in done.stdout + done.stderr


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_has_a_case_for_both(fires: bool) -> None:
    cases = [
        case
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires} == {*RULES}


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_how_urgent_it_is_what_happened_and_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert re.search(rf"(?m)^#+ {name}$", (ROOT / "docs" / "operations.md").read_text())


def test_rules_and_the_scrape_config_are_accepted() -> None:
    done = promtool("check", "config", ALERTS.with_name("prometheus.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


def test_every_expression_of_the_dashboards_is_promql(tmp_path: Path) -> None:
    exprs = [
        query.expr.replace("$__rate_interval", "1m").replace("$__range", "1h")
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    ]
    rules = [{"record": f"expr_{number}", "expr": expr} for number, expr in enumerate(exprs)]
    file = tmp_path / "exprs.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "exprs", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_and_dashboards_have_the_same_goals() -> None:
    def expr(alert: str) -> str:
        return str(RULES[alert]["expr"])

    for name, goal in (
        ("ApiAvailabilityBurn", API_GOAL),
        ("CreationBurn", API_GOAL),
        ("JobSuccessBurn", JOBS_GOAL),
        ("LatencyBurn", IN_TIME_GOAL),
    ):
        budget = f"{1 - goal:.3g}"
        assert expr(f"{name}Fast").count(f"> 14.4 * {budget}") == 2
        assert expr(f"{name}Slow").count(f"> 6 * {budget}") == 2
        assert expr(f"{name}Low").count(f"> {budget}") == 2
    assert f'le="{IN_TIME_S:.1f}"' in expr("LatencyBurnFast")
    assert f"> {IN_TIME_S / 2:g}" in expr("QueueOld")
    assert CALLERS_FAULTS in expr("JobSuccessBurnFast")
    assert CREATION in expr("CreationBurnFast")
    assert MEMORY_RUNGS in expr("MemoryLadderUsed")
