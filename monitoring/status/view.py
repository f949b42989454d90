"""What the page shows of each panel: a chart with its legend, or figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.dashboards.panel import Panel
from monitoring.status import charts
from monitoring.status.prometheus import Series, Window
from monitoring.status.readings import Named, Reading
from monitoring.status.units import formatted

_COLUMN_PX, _ROW_PX, _GAP_PX = 49.0, 30.0, 8.0  # of Grafana's grid, on a page of 1400 px
_HEAD_PX, _LEGEND_LINE_PX, _LETTER_PX = 42.0, 17.0, 6.4
_LEGEND_LINES = 5  # of .legend in page.css
_WITH_HIGHEST = 6  # lines; of more, the highest values take the room of the names, and those that
# are 0 throughout are left out


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a stat panel."""

    name: str
    value: str
    color: str  # green, red, or "" where the panel has no threshold


@dataclass(frozen=True, slots=True)
class Legend:
    name: str
    number: int  # of its colour
    last: str
    highest: str  # "": left out


@dataclass(frozen=True, slots=True)
class View:
    """One panel. Without problem, chart and figures there is no data."""

    panel: Panel
    hint: str
    problem: str = ""
    chart: str = ""  # SVG
    legend: Sequence[Legend] = ()
    zeros: int = 0  # series that the legend leaves out
    figures: Sequence[Figure] = ()


def view(reading: Reading, window: Window) -> View:
    panel = reading.panel
    hint = "\n\n".join(filter(None, (panel.description, *reading.exprs)))
    shown = [named for named in reading.found if _values(named.series)]
    if reading.problem or not shown:
        return View(panel, hint, problem=reading.problem)
    match panel.kind:
        case "stat":
            return View(panel, hint, figures=[_figure(panel, named) for named in shown])
        case "heatmap":
            series = [named.series for named in shown]
            return View(
                panel, hint, chart=charts.heatmap(*_size(panel, 0), window, series, panel.unit)
            )
        case "timeseries":
            legend = _legend(panel, shown)
            chart = _chart(panel, shown, window, _lines(panel, legend))
            return View(panel, hint, chart=chart, legend=legend, zeros=len(shown) - len(legend))


def _chart(panel: Panel, shown: Sequence[Named], window: Window, legend_lines: int) -> str:
    series = [named.series for named in shown]
    limits = [limit for limit in (panel.red_above, panel.red_below) if limit is not None]
    values = [value for one in series for value in _values(one)]
    tops = charts.stacked_tops(series) if panel.stacked else values
    scale = charts.Scale.over(tops, panel.unit)
    plot = charts.Plot(*_size(panel, legend_lines), window, scale)
    if panel.stacked:
        return charts.areas(plot, series, panel.unit)
    return charts.lines(plot, series, panel.unit, limits)


def _size(panel: Panel, legend_lines: int) -> tuple[float, float]:
    """Of the chart, in px: what the panel's frame, title and legend leave."""
    width = panel.width * (_COLUMN_PX + _GAP_PX) - _GAP_PX - 20
    height = panel.height * (_ROW_PX + _GAP_PX) - _GAP_PX
    return width, height - _HEAD_PX - legend_lines * _LEGEND_LINE_PX


def _legend(panel: Panel, shown: Sequence[Named]) -> list[Legend]:
    legend = []
    for number, named in enumerate(shown):
        values = _values(named.series)
        if len(shown) > _WITH_HIGHEST and not any(values):
            continue
        highest = formatted(max(values), panel.unit) if len(shown) <= _WITH_HIGHEST else ""
        last = formatted(values[-1], panel.unit)
        legend.append(Legend(named.name, number % charts.COLORS, last, highest))
    return legend


def _lines(panel: Panel, legend: Sequence[Legend]) -> int:
    """That the legend will take, by the length of its words."""
    width, _ = _size(panel, 0)
    letters = sum(len(f"{line.name}{line.last}{line.highest}") + 10 for line in legend)
    return min(_LEGEND_LINES, math.ceil(1.1 * letters * _LETTER_PX / width))


def _figure(panel: Panel, named: Named) -> Figure:
    (value,) = _values(named.series)
    low = -math.inf if panel.red_below is None else panel.red_below
    high = math.inf if panel.red_above is None else panel.red_above
    judged = (panel.red_below, panel.red_above) != (None, None)
    color = "" if not judged else "green" if low <= value < high else "red"
    return Figure(named.name, formatted(value, panel.unit), color)


def _values(series: Series) -> list[float]:
    return [value for _, value in series.points if math.isfinite(value)]
