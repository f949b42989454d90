"""Reads a Prometheus by its HTTP API v1.

PrometheusError
├── PrometheusUnreachable   nothing answers there, or what answers is no Prometheus
└── QueryRefused            it does not take the expression, or gave up on it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx2

_MOST_POINTS = 240  # of a line: more cannot be told apart on a page
_FINEST_STEP_S = 5.0


class PrometheusError(Exception):
    """The message is fit for a person."""


class PrometheusUnreachable(PrometheusError):
    pass


class QueryRefused(PrometheusError):
    pass


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, looked at every `step_s`."""

    end: float  # Unix seconds
    length_s: float
    step_s: float

    @classmethod
    def ending(cls, now: float, length_s: float) -> "Window":
        """The last `length_s` seconds before `now` (Unix), in steps that a page can show. It ends
        with now and not with a step: figures beside an alert must be as new as the alert."""
        return cls(now, length_s, max(_FINEST_STEP_S, length_s / _MOST_POINTS))

    @property
    def start(self) -> float:
        return self.end - self.length_s


@dataclass(frozen=True, slots=True)
class Series:
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]  # (Unix seconds, value); values may be NaN or infinite


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires, or is about to."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str  # pending | firing
    active_at: str  # RFC 3339

    @property
    def name(self) -> str:
        return self.labels["alertname"]


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    job: str
    instance: str
    is_down: bool  # tried, and it did not answer
    last_error: str


class Prometheus:
    """Safe from several threads; every method raises PrometheusUnreachable."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0):
        """`url` may hold user and password, and a path where a proxy serves it under one."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        base_url = httpx2.URL(url.rstrip("/") + "/api/v1/")
        self._http = httpx2.Client(base_url=base_url, headers=headers, timeout=timeout_s)
        self.shown_url = str(httpx2.URL(url).copy_with(userinfo=b""))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at(self, expr: str, moment: float) -> list[Series]:
        """One point each, a scalar as a series without labels. Raises QueryRefused."""
        data = self._ask("query", {"query": expr, "time": moment})
        if data["resultType"] == "scalar":
            return [_series({}, [data["result"]])]
        return [_series(found["metric"], [found["value"]]) for found in data["result"]]

    def over(self, expr: str, window: Window) -> list[Series]:
        """Raises QueryRefused."""
        asked = {"query": expr, "start": window.start, "end": window.end, "step": window.step_s}
        data = self._ask("query_range", asked)
        return [_series(found["metric"], found["values"]) for found in data["result"]]

    def alerts(self) -> list[Alert]:
        """Those that fire first."""
        found = [
            Alert(given["labels"], given["annotations"], given["state"], given["activeAt"])
            for given in self._ask("alerts")["alerts"]
        ]
        return sorted(found, key=lambda alert: (alert.state != "firing", alert.name))

    def count_alert_rules(self) -> int:
        groups = self._ask("rules", {"type": "alert"})["groups"]
        return sum(len(group["rules"]) for group in groups)

    def targets(self) -> list[ScrapeTarget]:
        return [
            ScrapeTarget(
                given["labels"].get("job", ""),
                given["labels"].get("instance", given["scrapeUrl"]),
                given["health"] == "down",
                given["lastError"],
            )
            for given in self._ask("targets", {"state": "active"})["activeTargets"]
        ]

    def _ask(self, what: str, parameters: Mapping[str, Any] | None = None) -> Any:
        try:
            if what.startswith("query"):  # an expression may be longer than an address
                response = self._http.post(what, data=parameters)
            else:
                response = self._http.get(what, params=parameters)
            answer = response.json()
            status = answer["status"]
        except (httpx2.TransportError, httpx2.InvalidURL) as e:
            raise PrometheusUnreachable(f"{self.shown_url} does not answer: {e}") from e
        except (ValueError, KeyError, TypeError):
            raise PrometheusUnreachable(
                f"{self.shown_url} answered {response.status_code} to /api/v1/{what}, and not as a"
                " Prometheus does"
            ) from None
        if status != "success":
            raise QueryRefused(f"{answer.get('errorType')}: {answer.get('error')}")
        return answer["data"]


def _series(labels: Mapping[str, str], values: Sequence[tuple[float, str]]) -> Series:
    return Series(labels, [(float(moment), float(value)) for moment, value in values])
