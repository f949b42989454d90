"""`shopreel doctor`: everything a start depends on, each with its fix."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cluster.preflight import (
    Check,
    check_disk,
    check_exposure,
    check_gpus,
    check_object_store,
    check_packages,
    check_port,
    check_python,
    check_tiers,
    check_weights,
)
from serve.commands import LOCAL_CONFIG

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def run_doctor(config: Path | None, data: Path, as_json: bool) -> None:
    checks: list[Check] = []
    console = Console()
    name = Column("check", no_wrap=True)
    table = Table("", name, *(Column(c, overflow="fold") for c in ("found", "mend")), box=None)
    for check in _checks(config, data):
        checks.append(check)
        mark = f"[{_STYLES[check.status]}]{check.status}[/]"
        table.add_row(mark, *map(escape, (check.name, check.found, check.fix)))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        console.print(table)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _checks(path: Path | None, data: Path) -> Iterator[Check]:
    from serve.config import ConfigError, load

    yield check_python()
    yield from check_packages()
    try:
        loaded = load(path or LOCAL_CONFIG)
    except ConfigError as e:
        yield Check("configuration", "fail", str(e), "see `shopreel config` and the README")
        return
    yield Check("configuration", "ok", str(loaded.path.name))
    host, port = loaded.http_address
    yield check_exposure(host, loaded.app.auth.enabled)
    yield check_port(host, port)
    yield check_disk(data)
    yield from check_object_store(loaded.app.object_store)
    yield check_weights(loaded.app.model)
    yield check_gpus(loaded.app.deployments)
    yield from check_tiers(loaded.app.tiers, loaded.app.deployments)
