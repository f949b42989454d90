"""monitoring/alerts.yaml with its stretches of time divided: a fault need not last for days.

Each alert has one divisor, for its `for`, its windows, and its bounds on gauges in seconds. All
else of the expression stays, bounds on ratios and the histogram's 120 s among it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[2] / "monitoring" / "alerts.yaml"

SHORTEST_WINDOW_S = 30.0
"""Ray exports each 10 s: less than three of these in a window and its rate is chance."""
WITHOUT_WINDOW = 60.0
"""The divisor of an alert that looks at the moment alone."""
_EVERY_S = 1.0

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WINDOW = re.compile(r"\[(\d+[a-z]+)\]")
_SECONDS = re.compile(r"(_seconds(?:\{[^}]*\})?\) > )(\d+)")
_RATIO = re.compile(r"> ([\d.]+)(?: \* ([\d.]+))?\s*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    expr: str
    for_s: float
    severity: str

    @property
    def windows_s(self) -> list[float]:
        return [seconds(window) for window in _WINDOW.findall(self.expr)]

    @property
    def divisor(self) -> float:
        windows = self.windows_s
        return min(windows) / SHORTEST_WINDOW_S if windows else WITHOUT_WINDOW

    @property
    def scaled_expr(self) -> str:
        windows = _WINDOW.sub(
            lambda found: f"[{duration(seconds(found[1]) / self.divisor)}]", self.expr
        )
        return _SECONDS.sub(lambda found: f"{found[1]}{float(found[2]) / self.divisor:g}", windows)

    @property
    def true_after_s(self) -> float:
        """As shipped, until a fault that hits everything makes the expression true after a long
        time without one: the bound's share of the longest window, or the age that it asks for."""
        if found := _SECONDS.search(self.expr):
            return float(found[2])
        if "rate(" not in self.expr:  # of counts, or of the moment
            return 0.0
        bounds = [math.prod(float(part) for part in found if part) for found in self._ratios]
        return bounds[0] * max(self.windows_s)

    @property
    def _ratios(self) -> list[tuple[str, ...]]:
        found = [tuple(match.groups("")) for match in _RATIO.finditer(self.expr)]
        if not found:
            raise ValueError(f"{self.name} compares with nothing that is known here")
        return found


def alerts() -> list[Alert]:
    """In the order of the file."""
    return [
        Alert(
            rule["alert"], rule["expr"], seconds(rule.get("for", "0s")), rule["labels"]["severity"]
        )
        for group in _groups()
        for rule in group["rules"]
    ]


def write_scaled(path: Path) -> Path:
    """The derived rules file."""
    of_name = {alert.name: alert for alert in alerts()}

    def scaled(rule: dict[str, Any]) -> dict[str, Any]:
        alert = of_name[rule["alert"]]
        hold = {"for": duration(alert.for_s / alert.divisor)} if alert.for_s else {}
        return {**rule, "expr": alert.scaled_expr, **hold}

    groups = [
        {
            **group,
            "interval": duration(_EVERY_S),
            "rules": [scaled(rule) for rule in group["rules"]],
        }
        for group in _groups()
    ]
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path


def seconds(text: str) -> float:
    """Of a Prometheus duration of one unit: `30m`."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def duration(of_s: float) -> str:
    return f"{round(of_s * 1000)}ms"


def _groups() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load(ALERTS.read_text())["groups"]
