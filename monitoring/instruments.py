"""Counter, gauge and histogram as `monitoring.metrics` declares them, exported through Ray."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

import ray.util.metrics

Values = Sequence[str] | None
"""All that a label may say; None: known from the configuration or the machine, once a process is
at work (tiers, routes, cards)."""

TELL_EVERY_S = 5.0
"""How often to set a gauge: Ray exports it each 10 s if it was set since, and forgets it 20 s after
the last time."""

_NO_TAGS: Mapping[str, str] = {}


class Metric:
    """Its name without Ray's prefix, in base units, and what each of its labels may say."""

    _series: Any

    def __init__(self, name: str, description: str, labels: Mapping[str, Values]):
        self.name, self.description, self.labels = name, description, dict(labels)


class Counter(Metric):
    """Of each process since its start; goes up only."""

    def __init__(self, name: str, description: str, **labels: Values):
        super().__init__(name, description, labels)
        self._series = ray.util.metrics.Counter(
            name, description=description, tag_keys=tuple(labels)
        )

    def inc(self, value: float = 1.0, tags: Mapping[str, str] = _NO_TAGS) -> None:
        """Raises ValueError unless `value` is above 0."""
        self._series.inc(value, tags=tags)

    def begin(self, **known: Iterable[str]) -> None:
        """Show every series of this process as 0: one that appears with its first increment has
        no rate for it. `known` says what labels may be here: those without declared values, and
        others where it is less. Raises TypeError where that is not known of one."""
        values: list[Any] = [known.get(label, told) for label, told in self.labels.items()]
        for labels in product(*values):
            # Ray's own `inc` refuses 0; ray is pinned to one version.
            self._series._record(0.0, tags=dict(zip(self.labels, labels, strict=True)))


class Gauge(Metric):
    """Gone soon after its process."""

    def __init__(self, name: str, description: str, **labels: Values):
        super().__init__(name, description, labels)
        self._series = ray.util.metrics.Gauge(name, description=description, tag_keys=tuple(labels))

    def set(self, value: float, tags: Mapping[str, str] = _NO_TAGS) -> None:
        """For whoever does so again within TELL_EVERY_S; others `keep` it."""
        self._series.set(value, tags=tags)

    def keep(self, value: float, tags: Mapping[str, str] = _NO_TAGS) -> None:
        """Set it for as long as this process lives, or until it is kept at another value."""
        _kept[self, tuple(tags.items())] = value
        self.set(value, tags)
        _say_again()


class Histogram(Metric):
    """Counts by upper bound. Ray's agent rebuilds `_sum` from the middles of the buckets (above the
    last bound from twice that bound): quantiles are right within a bucket, means are not."""

    def __init__(self, name: str, description: str, bounds: Sequence[float], **labels: Values):
        super().__init__(name, description, labels)
        self.bounds = tuple(bounds)
        self._series = ray.util.metrics.Histogram(
            name, description=description, boundaries=list(bounds), tag_keys=tuple(labels)
        )

    def observe(self, value: float, tags: Mapping[str, str] = _NO_TAGS) -> None:
        self._series.observe(value, tags=tags)


def begin(*counters: Counter, **known: Iterable[str]) -> None:
    """Begin these, each with what it wants of `known`."""
    for counter in counters:
        counter.begin(**{label: known[label] for label in counter.labels if label in known})


_kept: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}


@cache
def _say_again() -> None:
    def forever() -> None:
        while True:
            time.sleep(TELL_EVERY_S)
            for (gauge, tags), value in list(_kept.items()):
                gauge.set(value, dict(tags))

    threading.Thread(target=forever, name="gauges", daemon=True).start()
