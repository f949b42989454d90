"""What the documents tell people to type is what the command takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from serve.cli import app

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    guide = (ROOT / "docs" / "catalogue.md").read_text()
    found = re.findall(r"shopreel catalog run [^\n#]+", guide)
    cronjob = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "catalogue.yaml").read_text())
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return [*found, shlex.join([*container["command"], *container["args"]])]


@pytest.mark.parametrize("command", commands())
def test_the_documented_command_parses(command: str) -> None:
    line = command.replace("\\%", "%").replace("$(date +%F)", "2026-11-22")
    shopreel, catalog, run, *args = shlex.split(line)
    assert (shopreel, catalog, run) == ("shopreel", "catalog", "run")
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    context = group.make_context("shopreel", [catalog, run, *args])
    name, found, rest = group.resolve_command(context, [catalog, run, *args])
    assert isinstance(found, TyperGroup)
    inner = found.make_context(name, rest, parent=context)
    _, verb, options = found.resolve_command(inner, rest)
    assert verb is not None
    assert verb.make_context("run", options, parent=inner).params["output"].startswith("s3://")


def test_all_documents_together_name_every_way_to_start_a_run() -> None:
    assert len(commands()) >= 4
