"""Hears what the code under test tells Ray's metrics, in this process."""

from collections import defaultdict
from typing import Any

import pytest
import ray.util.metrics

from monitoring.instruments import Metric


class Recorded:
    """Takes the place of Ray's exporter; its checks of labels stay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._points: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)

        def record(series: Any, value: float, tags: dict[str, str] | None = None) -> None:
            labels = series._get_final_tags(tags)
            series._validate_tags(labels)
            self._points[series.info["name"]].append((dict(labels), value))

        monkeypatch.setattr(ray.util.metrics.Metric, "_record", record)

    def values(self, metric: Metric, **labels: str) -> list[float]:
        """All that was told of these labels, in order; the zeros that begin a counter too."""
        return [
            value
            for told, value in self._points[metric.name]
            if all(told[label] == value for label, value in labels.items())
        ]

    def series(self, metric: Metric) -> list[dict[str, str]]:
        """The labels of each, in the order in which they came up."""
        seen: list[dict[str, str]] = []
        for told, _ in self._points[metric.name]:
            if told not in seen:
                seen.append(told)
        return seen
