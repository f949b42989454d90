"""`shopreel grafana`: what this project gives to a Grafana."""

from pathlib import Path
from typing import Annotated

import typer

grafana = typer.Typer(help="Dashboards and alerts for a Grafana.", no_args_is_help=True)


@grafana.callback()
def _group() -> None:
    """With one command alone, typer would leave its name out."""


@grafana.command()
def push(
    url: Annotated[str, typer.Option(help="Of the Grafana, a path before /api included.")],
    token_file: Annotated[
        Path, typer.Option(help="Holds a service account's token with the role Admin.")
    ],
    prometheus: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Make a data source of it; as Grafana's server sees it."),
    ] = None,
    datasource: Annotated[
        str | None, typer.Option(metavar="UID", help="Use this data source instead.")
    ] = None,
    scrape_interval: Annotated[
        str, typer.Option(help="Of that Prometheus, for a data source that is made.")
    ] = "15s",
    diff: Annotated[
        bool, typer.Option("--diff", help="Only show it. Exit code 3 if there is anything to do.")
    ] = False,
) -> None:
    """Create or update folder, data source, dashboards and alert rules; what is right is left."""
    from serve.commands.grafana import run_push

    run_push(url, token_file, prometheus, datasource, scrape_interval, diff)
