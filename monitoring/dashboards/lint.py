"""What is wrong with a dashboard's JSON before Grafana, or a person on call, finds out."""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any

UNITS = frozenset(
    ("none", "s", "ms", "bytes", "Bps", "percent", "percentunit")
    + ("reqps", "ops", "cps", "celsius", "watt", "joule")
)
"""Grafana's ids of units; it shows an unknown one as text behind the number."""

_KINDS = ("row", "timeseries", "stat", "heatmap")
_MS = re.compile(r"\b\w+_ms(?:_bucket|_sum|_count)?\b")
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)")
_KNOWN_VARIABLES = ("__rate_interval", "__range")

Json = Mapping[str, Any]


def problems(dashboard: Json, data_source: str) -> list[str]:
    """In words, each with the panel's title; empty where there are none."""
    panels = dashboard["panels"]
    found = [f"two things have the {what}" for what in _twice(panels)]
    for panel in panels:
        found += [f"{panel['title']}: {problem}" for problem in _of_panel(panel, data_source)]
    for a, b in combinations(panels, 2):
        if _overlap(a["gridPos"], b["gridPos"]):
            found.append(f"{a['title']} lies over {b['title']}")
    return found


def _twice(panels: Collection[Json]) -> Iterator[str]:
    for what, values in (
        ("panel id", [panel["id"] for panel in panels]),
        ("row title", [panel["title"] for panel in panels if panel["type"] == "row"]),
    ):
        yield from (f"{what} {value}" for value in set(values) if values.count(value) > 1)


def _of_panel(panel: Json, data_source: str) -> Iterator[str]:
    if panel["type"] not in _KINDS:
        yield f"unknown panel type {panel['type']}"
    grid = panel["gridPos"]
    if grid["x"] + grid["w"] > 24:
        yield f"reaches to column {grid['x'] + grid['w']} of 24"
    if not panel["title"].strip():
        yield f"panel {panel['id']} has no title"
    if panel["type"] == "row":
        return
    unit = panel["fieldConfig"]["defaults"].get("unit")
    if unit not in UNITS:
        yield f"no unit that Grafana knows: {unit}"
    if not panel["targets"]:
        yield "asks nothing"
    references = [target["refId"] for target in panel["targets"]]
    if len(set(references)) < len(references):
        yield "two targets have the same refId"
    for target in panel["targets"]:
        if panel["datasource"]["uid"] != data_source or target["datasource"]["uid"] != data_source:
            yield f"{target['refId']} asks another data source"
        yield from (f"{target['refId']} {problem}" for problem in _of_target(target, unit))


def _of_target(target: Json, unit: str | None) -> Iterator[str]:
    expr = target["expr"]
    if not expr.strip():
        yield "has no expression"
    if not target["legendFormat"].strip():
        yield "has no legend"
    for variable in _VARIABLE.finditer(expr):
        if (name := variable[1] or variable[2]) not in _KNOWN_VARIABLES:
            yield f"uses ${name}, which nothing defines"
    if unit == "s" and (ms := _MS.search(expr)):
        yield f"shows {ms[0]} on an axis in seconds"
    if unit == "ms" and not _MS.search(expr):
        yield "shows what is not in ms on an axis in ms"


def _overlap(a: Mapping[str, int], b: Mapping[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    )
