"""alerts.yaml as alert rules that Grafana evaluates itself, as its own import does it:
https://grafana.com/docs/grafana/latest/alerting/alerting-rules/alerting-migration/"""

import re
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[1] / "alerts.yaml"

_BLIND = "MetricsAbsent"
_LOOK_BACK_S = 600
_EXPRESSIONS = "__expr__"  # Grafana's name for what computes on the answers of a query
_VALUE = re.compile(r"\$value\b")


def alert_rules(folder_uid: str, data_source: str, alerts: Path = ALERTS) -> list[dict[str, Any]]:
    """One body of POST /api/v1/provisioning/alert-rules for each alert."""
    document = yaml.safe_load(alerts.read_text())
    return [
        {
            "uid": f"shopreel-{rule['alert'].lower()}",
            "title": rule["alert"],
            "ruleGroup": group["name"],
            "folderUID": folder_uid,
            "orgID": 1,  # wanted by the model; what counts is the token's organisation
            "condition": "C",
            "for": rule.get("for", "0s"),
            # The answer of an expression that compares is empty while all is well.
            "noDataState": "OK",
            # All ask one source: that it does not answer is told once.
            "execErrState": "Alerting" if rule["alert"] == _BLIND else "OK",
            "labels": rule["labels"],
            "annotations": {
                # $value is a text of all queries in Grafana.
                name: _VALUE.sub("$values.A.Value", text)
                for name, text in rule["annotations"].items()
            },
            "data": _data(rule["expr"], data_source),
        }
        for group in document["groups"]
        for rule in group["rules"]
    ]


def _data(expr: str, data_source: str) -> list[dict[str, Any]]:
    """Firing is any answer at all: that of `up == 0` is 0, so B makes a 1 of every number."""
    query = {"refId": "A", "expr": expr.strip(), "instant": True, "range": False}
    math = {
        "refId": "B",
        "type": "math",
        "expression": "is_number($A) || is_nan($A) || is_inf($A)",
    }
    threshold = {
        "refId": "C",
        "type": "threshold",
        "expression": "B",
        "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
    }
    return [
        {
            "refId": model["refId"],
            "datasourceUid": source,
            "relativeTimeRange": {"from": _LOOK_BACK_S, "to": 0},
            "model": model,
        }
        for model, source in ((query, data_source), (math, _EXPRESSIONS), (threshold, _EXPRESSIONS))
    ]
