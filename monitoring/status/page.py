"""The dashboards as one HTML file to open, mail or attach to an incident. No script, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monitoring.dashboards.panel import Dashboard
from monitoring.status.digest import Health
from monitoring.status.prometheus import Window
from monitoring.status.readings import Reading
from monitoring.status.view import view


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows."""

    source: str  # the Prometheus, without its password
    window: Window
    health: Health
    dashboards: Sequence[Dashboard]
    readings: Sequence[Reading]  # of all their panels, in order


def status_html(report: Report) -> bytes:
    page = _ENVIRONMENT.get_template("page.html").render(
        report=report,
        health=report.health,
        views=iter([view(reading, report.window) for reading in report.readings]),
    )
    return page.encode()


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("monitoring.status", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = _moment
    environment.filters["next"] = next
    environment.filters["svg"] = Markup  # charts escape what they are given
    return environment


_ENVIRONMENT = _environment()
