"""Asks a Prometheus what every panel of the dashboards asks."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from monitoring.dashboards.panel import Dashboard, Panel, Query
from monitoring.status.prometheus import Prometheus, QueryRefused, Series, Window

_AT_ONCE = 4
"""Queries; a Prometheus runs 20 by default, and others look at it too."""

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Named:
    """A series by the name that the panel's legend gives it."""

    name: str
    series: Series


@dataclass(frozen=True, slots=True)
class Reading:
    """What a panel shows, or why it cannot."""

    panel: Panel
    exprs: Sequence[str]  # as they were asked
    found: Sequence[Named] = ()
    problem: str = ""


def read(
    prometheus: Prometheus, dashboards: Sequence[Dashboard], window: Window, scrape_s: float
) -> list[Reading]:
    """Of every panel, in order. `scrape_s`: how often the targets are scraped.

    A query that is refused is told in its panel. Raises PrometheusUnreachable.
    """
    variables = _variables(window, scrape_s)

    def reading(panel: Panel) -> Reading:
        exprs = [_filled(query.expr, variables) for query in panel.queries]
        asked = zip(panel.queries, exprs, strict=True)
        try:
            found = [
                Named(_name(query, series.labels), series)
                for query, expr in asked
                for series in _series(prometheus, panel, expr, window)
            ]
        except QueryRefused as e:
            return Reading(panel, exprs, problem=str(e))
        return Reading(panel, exprs, found)

    panels = [panel for dashboard in dashboards for panel in dashboard.panels]
    with ThreadPoolExecutor(_AT_ONCE, "panels") as pool:
        return list(pool.map(reading, panels))


def _series(prometheus: Prometheus, panel: Panel, expr: str, window: Window) -> list[Series]:
    if panel.kind == "stat":
        return prometheus.at(expr, window.end)
    return prometheus.over(expr, window)


def _name(query: Query, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda found: labels.get(found[1], ""), query.legend)


def _variables(window: Window, scrape_s: float) -> Mapping[str, str]:
    """Grafana's own, $__rate_interval as it documents it."""
    return {
        "$__rate_interval": _duration(max(window.step_s + scrape_s, 4 * scrape_s)),
        "$__range": _duration(window.length_s),
    }


def _filled(expr: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        expr = expr.replace(name, value)
    return expr


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
