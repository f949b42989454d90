"""`shopreel config`: every setting in force and where it came from."""

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from serve.commands import LOCAL_CONFIG


def run_show_config(config: Path | None, as_json: bool) -> None:
    from serve.config import ConfigError, load

    try:
        settings = list(load(config or LOCAL_CONFIG).in_force())
    except ConfigError as e:
        typer.echo(f"error: {e}", err=True)
        raise typer.Exit(1) from e
    if as_json:
        rows = {name: {"value": value, "from": origin} for name, value, origin in settings}
        typer.echo(json.dumps(rows, indent=1))
        return
    name = Column("setting", no_wrap=True)
    table = Table(name, *(Column(c, overflow="fold") for c in ("value", "from")), box=None)
    for setting, value, origin in settings:
        style = "dim" if origin == "default" else "bold"
        table.add_row(setting, escape(json.dumps(value)), origin, style=style)
    Console().print(table)
