"""Charts as inline SVG: no script, no font, no file beside the page. Colours are the page's CSS."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from monitoring.status.prometheus import Series, Window
from monitoring.status.units import formatted, round_step

COLORS = 10
"""Lines are of class c0 to c9, then c0 again."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 8.0, 8.0, 20.0  # px around the plot
_TIME_STEPS = (10, 30, 60, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800)


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of one axis."""

    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], unit: str) -> "Scale":
        """From zero, or a round figure below the lowest value, to one above the highest."""
        lowest, highest = min(0.0, *values), max(0.0, *values)
        step = round_step((highest - lowest or 1.0) / 4, unit)
        first, last = math.floor(lowest / step), max(math.ceil(highest / step), 1)
        return cls(first * step, last * step, [n * step for n in range(first, last + 1)])

    def share(self, value: float) -> float:
        """0 at the bottom, 1 at the top."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Plot:
    """The frame that curves are drawn in."""

    width: float  # px, of the whole picture
    height: float
    window: Window
    scale: Scale

    def x(self, moment: float) -> float:
        share = (moment - self.window.start) / self.window.length_s
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (1 - self.scale.share(value)) * (self.height - _TOP - _BOTTOM)

    def drawn(self, body: str, unit: str) -> str:
        axes = "".join((*self._values(unit), *self._times()))
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg {size} role="img">{axes}{body}</svg>'

    def _values(self, unit: str) -> Iterator[str]:
        for tick in self.scale.ticks:
            y, words = self.y(tick), escape(formatted(tick, unit))
            yield f'<path class="grid" d="M{_LEFT:g} {y:.1f}H{self.width - _RIGHT:g}"/>'
            yield f'<text class="right" x="{_LEFT - 6:g}" y="{y + 4:.1f}">{words}</text>'

    def _times(self) -> Iterator[str]:
        step = next((s for s in _TIME_STEPS if self.window.length_s / s <= 7), _TIME_STEPS[-1])
        form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%b %d"
        moment = math.ceil(self.window.start / step) * step
        while moment <= self.window.end:
            words = datetime.fromtimestamp(moment, UTC).strftime(form)
            place = f'x="{self.x(moment):.1f}" y="{self.height - 5:g}"'
            yield f'<text class="middle" {place}>{words}</text>'
            moment += step


def lines(plot: Plot, series: Sequence[Series], unit: str, limits: Sequence[float] = ()) -> str:
    """A line each, broken where there is no value; `limits` as dashed lines across."""
    body = []
    for limit in limits:
        if plot.scale.low <= limit <= plot.scale.high:
            y = plot.y(limit)
            body.append(f'<path class="limit" d="M{_LEFT:g} {y:.1f}H{plot.width - _RIGHT:g}"/>')
    for number, one in enumerate(series):
        color = f"c{number % COLORS}"
        runs = list(_runs(one, plot.window.step_s))
        path = "".join("M" + "L".join(_at(plot, *point) for point in run) for run in runs)
        body.append(f'<path class="line {color}" d="{path}"/>')
        for run in runs:
            if len(run) == 1:  # alone between two gaps: a line of no length shows nothing
                ((moment, value),) = run
                place = f'cx="{plot.x(moment):.1f}" cy="{plot.y(value):.1f}"'
                body.append(f'<circle class="{color}" {place} r="2"/>')
    return plot.drawn("".join(body), unit)


def areas(plot: Plot, series: Sequence[Series], unit: str) -> str:
    """One on top of the other. Where one has no value the others are drawn as if it were 0."""
    moments = sorted({moment for one in series for moment, _ in one.points})
    below = dict.fromkeys(moments, 0.0)
    body = []
    for number, one in enumerate(series):
        values = {moment: value for moment, value in one.points if math.isfinite(value)}
        above = {moment: below[moment] + values.get(moment, 0.0) for moment in moments}
        outline = [*above.items(), *reversed(below.items())]
        path = "M" + "L".join(_at(plot, *point) for point in outline) + "Z" if moments else ""
        body.append(f'<path class="area c{number % COLORS}" d="{path}"/>')
        below = above
    return plot.drawn("".join(body), unit)


def stacked_tops(series: Sequence[Series]) -> list[float]:
    """The height of the whole stack at every moment."""
    tops: dict[float, float] = {}
    for one in series:
        for moment, value in one.points:
            if math.isfinite(value):
                tops[moment] = tops.get(moment, 0.0) + value
    return list(tops.values())


def heatmap(
    width: float, height: float, window: Window, buckets: Sequence[Series], unit: str
) -> str:
    """How values are spread, as a histogram's buckets (label `le`, cumulative) tell it: the darker
    a cell, the more fell into it."""
    rows = _filled_buckets(buckets)
    plot = Plot(width, height, window, Scale(0, len(rows), ()))
    cell = (width - _LEFT - _RIGHT) * window.step_s / window.length_s
    most = max((count for _, row in rows for count in row.values()), default=0.0)
    body, tall = [], plot.y(0) - plot.y(1)
    for number, (bound, row) in enumerate(rows):
        top, words = plot.y(number + 1), formatted(bound, unit)
        body.append(f'<text class="right" x="{_LEFT - 6:g}" y="{top + 4:.1f}">{words}</text>')
        body += [
            f'<rect class="c0" x="{plot.x(moment) - cell:.1f}" y="{top:.1f}" width="{cell:.1f}"'
            f' height="{tall:.1f}" opacity="{0.1 + 0.9 * count / most:.2f}"/>'
            for moment, count in row.items()
            if count
        ]
    return plot.drawn("".join(body), unit)


def _filled_buckets(buckets: Sequence[Series]) -> list[tuple[float, dict[float, float]]]:
    """(upper bound, count by moment) of each bucket, from the lowest that holds anything to the
    highest."""
    rows, below = [], dict[float, float]()
    for one in sorted(buckets, key=lambda one: float(one.labels["le"])):
        upto = {moment: value for moment, value in one.points if math.isfinite(value)}
        # Rates of cumulative counts are not quite cumulative: a difference may be below zero.
        counts = {moment: max(0.0, upto[moment] - below.get(moment, 0.0)) for moment in upto}
        rows.append((float(one.labels["le"]), counts))
        below = upto
    filled = [number for number, (_, counts) in enumerate(rows) if any(counts.values())]
    return rows[filled[0] : filled[-1] + 1] if filled else rows


def _runs(series: Series, step_s: float) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for moment, value in series.points:
        if run and (moment - run[-1][0] > 1.5 * step_s or not math.isfinite(value)):
            yield run
            run = []
        if math.isfinite(value):
            run.append((moment, value))
    if run:
        yield run


def _at(plot: Plot, moment: float, value: float) -> str:
    return f"{plot.x(moment):.1f} {plot.y(value):.1f}"
