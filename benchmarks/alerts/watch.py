"""When each alert became true and when it fired, as the Prometheus tells it."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from monitoring.status.prometheus import Prometheus

_LOOK_S = 0.25


class NotFired(Exception):
    """An alert that a fault was to cause did not come, or was there before it."""


@dataclass(frozen=True, slots=True)
class Fired:
    alert: str
    fault: str
    true_after_s: float  # until the expression held: pending, or firing where it need not hold
    fired_after_s: float


class Watch:
    """Looks all the time. `begin` a fault, then `await_all` that it should cause."""

    def __init__(self, url: str):
        self._prometheus = Prometheus(url)
        self._active: dict[str, str] = {}  # alert -> state
        self._seen: defaultdict[str, dict[str, float]] = defaultdict(dict)  # -> state -> when
        self._faults: dict[str, tuple[str, float]] = {}  # alert -> its fault, when that began
        self._lock = threading.Lock()
        self.fired: dict[str, Fired] = {}

    def begin(self, fault: str, *alerts: str) -> None:
        """The fault is there from now on. Raises NotFired for an alert that is active already."""
        with self._lock:
            for alert in alerts:
                if alert in self._active:
                    raise NotFired(f"{alert} was {self._active[alert]} before: {fault}")
                self._faults[alert] = fault, time.monotonic()
                self._seen.pop(alert, None)

    def await_all(self, *alerts: str, patience_s: float) -> None:
        """Raises NotFired."""
        deadline = time.monotonic() + patience_s
        for alert in alerts:
            while "firing" not in self._seen[alert]:
                if time.monotonic() > deadline:
                    state = self._active.get(alert, "inactive")
                    raise NotFired(f"{alert} was {state} after {patience_s:.0f} s")
                time.sleep(_LOOK_S)
            fault, begun = self._faults[alert]
            firing = self._seen[alert]["firing"]
            true_at = self._seen[alert].get("pending", firing)
            self.fired[alert] = Fired(alert, fault, true_at - begun, firing - begun)

    @property
    def awaited(self) -> set[str]:
        """Their fault has begun and they have not fired."""
        return self._faults.keys() - self.fired.keys()

    def await_silence(self, *alerts: str, patience_s: float) -> None:
        """Raises NotFired: with what is there already nothing can be shown."""
        deadline = time.monotonic() + patience_s
        while found := [alert for alert in alerts if alert in self._active]:
            if time.monotonic() > deadline:
                raise NotFired(f"{', '.join(found)} did not end")
            time.sleep(_LOOK_S)

    def look(self) -> None:
        now, active = time.monotonic(), dict[str, str]()
        for alert in self._prometheus.alerts():
            active.setdefault(alert.name, alert.state)  # those that fire come first
        with self._lock:
            for name, state in active.items():
                if name in self._faults:
                    self._seen[name].setdefault(state, now)
            for name in self._active.keys() - active.keys():
                if "firing" not in self._seen[name]:  # it held for a moment only
                    self._seen.pop(name, None)
            self._active = active


@contextmanager
def watching(url: str) -> Iterator[Watch]:
    watch, leaving = Watch(url), threading.Event()

    def look() -> None:
        while not leaving.wait(_LOOK_S):
            watch.look()

    watcher = threading.Thread(target=look, name="alerts")
    watcher.start()
    try:
        yield watch
    finally:
        leaving.set()
        watcher.join()
