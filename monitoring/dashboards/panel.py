"""What a dashboard is made of, and the JSON in which Grafana takes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DATA_SOURCE_UID = "shopreel-prometheus"
_SCHEMA_VERSION = 39  # Grafana 10.4 and later; newer ones migrate it when they load it
_COLUMNS = 24  # Grafana's grid
_HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8}


@dataclass(frozen=True, slots=True)
class Query:
    expr: str  # PromQL; $__rate_interval and $__range are Grafana's
    legend: str  # {{label}} is replaced


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. Its axis has one unit, so all of its queries are in that unit."""

    title: str
    unit: str  # Grafana's id of it: s, bytes, percentunit, ...
    queries: Sequence[Query]
    description: str = ""
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8  # columns of 24
    stacked: bool = False
    red_above: float | None = None
    red_below: float | None = None

    @property
    def height(self) -> int:
        """Rows of the grid, of 30 px."""
        return _HEIGHTS[self.kind]

    def as_json(self, panel_id: int, x: int, y: int, data_source: str) -> dict[str, Any]:
        source = {"type": "prometheus", "uid": data_source}
        return {
            "id": panel_id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": self._field(), "overrides": []},
            "options": self._options(),
            "targets": [
                {
                    "refId": chr(ord("A") + number),
                    "datasource": source,
                    "expr": query.expr,
                    "legendFormat": query.legend,
                    "format": "heatmap" if self.kind == "heatmap" else "time_series",
                    "range": self.kind != "stat",
                    "instant": self.kind == "stat",
                }
                for number, query in enumerate(self.queries)
            ],
        }

    def _field(self) -> dict[str, Any]:
        field: dict[str, Any] = {"unit": self.unit}
        if self.kind == "timeseries":
            field["custom"] = {
                "fillOpacity": 30 if self.stacked else 0,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if self._has_threshold else "off"},
            }
        if self._has_threshold:
            field["thresholds"] = {"mode": "absolute", "steps": list(self._steps())}
        return field

    @property
    def _has_threshold(self) -> bool:
        return self.red_above is not None or self.red_below is not None

    def _steps(self) -> Iterator[dict[str, Any]]:
        """The first step holds from minus infinity."""
        yield {"color": "green" if self.red_below is None else "red", "value": None}
        if self.red_below is not None:
            yield {"color": "green", "value": self.red_below}
        if self.red_above is not None:
            yield {"color": "red", "value": self.red_above}

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
        if self.kind == "heatmap":
            return {"calculate": False, "yAxis": {"unit": self.unit}}
        return {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi", "sort": "desc"}}


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right, as many on a line as fit."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    @property
    def panels(self) -> Iterator[Panel]:
        return (panel for row in self.rows for panel in row.panels)

    def as_json(self, data_source: str = DATA_SOURCE_UID) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["shopreel"],
            "schemaVersion": _SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,  # one crosshair over all panels
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": []},
            "annotations": {"list": []},
            "links": [
                {
                    "type": "dashboards",
                    "title": "Shopreel",
                    "tags": ["shopreel"],
                    "asDropdown": True,
                    "keepTime": True,
                }
            ],
            "panels": list(self._placed(data_source)),
        }

    def _placed(self, data_source: str) -> Iterator[dict[str, Any]]:
        panel_id, y = 0, 0
        for row in self.rows:
            panel_id += 1
            grid = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
            yield {
                "id": panel_id,
                "type": "row",
                "title": row.title,
                "gridPos": grid,
                "collapsed": False,
                "panels": [],
            }
            x, y, line = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > _COLUMNS:
                    x, y, line = 0, y + line, 0
                panel_id += 1
                yield panel.as_json(panel_id, x, y, data_source)
                x, line = x + panel.width, max(line, panel.height)
            y += line
