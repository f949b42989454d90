"""`shopreel status`: what a Prometheus knows of the service, as text or as one HTML page."""

import time
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitoring.dashboards import DASHBOARDS
from monitoring.status.digest import Health, read_digest, read_health
from monitoring.status.page import Report, status_html
from monitoring.status.prometheus import Prometheus, PrometheusError, Window
from monitoring.status.readings import read

_UNWELL = 3
"""Exit status of its own: it could be asked, and what it says asks for a person."""


def run_status(
    url: str, token_file: Path | None, hours: float, scrape_s: float, html: Path | None
) -> None:
    try:
        token = None if token_file is None else token_file.read_text().strip()
        with Prometheus(url, token) as prometheus:
            window = Window.ending(time.time(), hours * 3600)
            health = read_health(prometheus)
            if html is None:
                _print(health, read_digest(prometheus, window), hours)
            else:
                readings = read(prometheus, DASHBOARDS, window, scrape_s)
                report = Report(prometheus.shown_url, window, health, DASHBOARDS, readings)
                html.write_bytes(status_html(report))
                typer.echo(f"{health.headline}; written to {html}")
    except (PrometheusError, OSError) as e:
        typer.echo(f"error: {e}", err=True)
        raise typer.Exit(1) from e
    if health.color == "red":
        raise typer.Exit(_UNWELL)


def _print(health: Health, digest: list[tuple[str, str]], hours: float) -> None:
    console = Console(highlight=False)
    console.print(f"[bold {health.color}]{health.headline}[/]")
    console.print(f"{health.targets_said}, {health.rules_said}", style="dim")
    for alert in health.alerts:
        color = "red" if alert.state == "firing" else "yellow"
        severity, since = alert.labels.get("severity", ""), alert.active_at[:16].replace("T", " ")
        summary, runbook = (alert.annotations.get(word, "") for word in ("summary", "runbook"))
        console.print(f"[{color}]{alert.state}[/] [bold]{alert.name}[/] {severity}, since {since}Z")
        console.print(f"  {escape(summary)}", soft_wrap=True)
        console.print(f"  {escape(runbook)}", style="dim", soft_wrap=True)
    for target in health.down:
        console.print(f"[red]down[/] [bold]{target.instance}[/]")
        console.print(f"  {escape(target.last_error)}", style="dim", soft_wrap=True)
    figures = Table("", f"counts: last {hours:g} h", title_justify="left", box=None)
    for what, said in digest:
        figures.add_row(what, escape(said))
    console.print(figures)
