"""What goes to a Grafana, and what grafana-client must not bring into this environment."""

import base64
import hashlib
import re
from importlib import metadata
from pathlib import Path

import grafana_client
import urllib3
import urllib3._version
import yaml

from monitoring.grafana.rules import ALERTS, alert_rules


def test_urllib3_is_the_real_one() -> None:
    """urllib3-future, which grafana-client needs, writes itself over it unless built otherwise."""
    assert grafana_client.GrafanaApi
    assert urllib3._version.__version__ == metadata.version("urllib3")
    assert metadata.version("urllib3-future") != metadata.version("urllib3")
    distribution = metadata.distribution("urllib3")
    assert distribution.files
    for file in distribution.files:
        if file.suffix == ".py":
            assert file.hash is not None
            digest = hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file


def test_nothing_puts_the_replacement_back_when_python_starts() -> None:
    packages = Path(urllib3.__file__).parents[1]
    assert not list(packages.glob("*urllib3*.pth"))


def test_grafana_gets_every_alert_of_prometheus() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    rules = {rule["title"]: rule for rule in alert_rules("folder", "source")}
    assert len({rule["uid"] for rule in rules.values()}) == len(rules)
    for group in groups:
        for alert in group["rules"]:
            rule = rules.pop(alert["alert"])
            query, *expressions = rule["data"]
            assert query["model"]["expr"] == alert["expr"].strip()
            assert query["datasourceUid"] == "source"
            assert {step["datasourceUid"] for step in expressions} == {"__expr__"}
            assert rule["condition"] == expressions[-1]["refId"]
            assert (rule["ruleGroup"], rule["for"]) == (group["name"], alert.get("for", "0s"))
    assert rules == {}


def test_a_source_that_does_not_answer_is_told_once() -> None:
    states = {rule["title"]: rule["execErrState"] for rule in alert_rules("f", "s")}
    assert [title for title, state in states.items() if state != "OK"] == ["MetricsAbsent"]


def test_grafana_knows_the_value_of_a_query_by_another_name() -> None:
    texts = [text for rule in alert_rules("f", "s") for text in rule["annotations"].values()]
    assert not any(re.search(r"\$value\b", text) for text in texts)
    assert any("{{ $values.A.Value | humanizePercentage }}" in text for text in texts)
