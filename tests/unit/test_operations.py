"""docs/operations.md against what it speaks of: alerts, metrics, commands, files, settings."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from monitoring import metrics
from monitoring.dashboards import DASHBOARDS
from serve.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()


def anchors() -> list[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def alerts() -> list[dict[str, dict[str, str]]]:
    groups = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_every_alert_leads_to_its_runbook() -> None:
    found = {
        rule["annotations"]["runbook"].removeprefix("docs/operations.md#") for rule in alerts()
    }
    assert found <= set(anchors())


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    told = set(re.findall(r"^#### (\w+)$", TEXT, re.MULTILINE))
    assert told == {str(rule["alert"]) for rule in alerts()}


def test_every_runbook_says_how_urgent_its_alert_is() -> None:
    urgency = dict(re.findall(r"^#### (\w+)\n\n(Page|Ticket)\b", TEXT, re.MULTILINE))
    assert urgency == {str(rule["alert"]): rule["labels"]["severity"].title() for rule in alerts()}


def test_every_metric_named_is_exported() -> None:
    families = {f"ray_{metric.name}" for metric in metrics.ALL}
    named = set(re.findall(r"\bray_shopreel_\w+", TEXT))
    assert named
    assert {
        name for name in named if re.sub(r"_(bucket|sum|count)$", "", name) not in families
    } == set()


def test_every_panel_named_is_on_its_dashboard() -> None:
    panels = {
        (dashboard.title.removeprefix("Shopreel / "), panel.title)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
    }
    boards = "|".join(re.escape(board) for board, _ in panels)
    named = set(re.findall(rf"({boards}) → \*([^*]+)\*", TEXT))
    assert len(named) > 5
    assert named <= panels


def test_every_command_named_exists() -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    named = set(
        re.findall(r"`?shopreel ((?:jobs|catalog|keys|tenants|grafana) \w+|[a-z]+)\b", TEXT)
    )
    for words in sorted(named):
        command: object = commands
        for word in words.split():
            assert isinstance(command, TyperGroup)
            assert word in command.commands, f"shopreel {words}"
            command = command.commands[word]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)\s]+)\)", TEXT))))
def test_every_link_leads_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    if path:
        assert (ROOT / "docs" / path).exists()
    else:
        assert anchor in anchors()
