"""Compares what a Grafana has with what is wanted there, and makes up the difference."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any
from urllib.parse import urlsplit

from grafana_client import GrafanaApi, TokenAuth

from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.panel import DATA_SOURCE_UID
from monitoring.grafana.errors import translated
from monitoring.grafana.resources import (
    AlertRule,
    DataSource,
    Folder,
    Json,
    Resource,
    SavedDashboard,
)
from monitoring.grafana.rules import alert_rules

_FOLDER_UID = "shopreel"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    resource: Resource
    found: Json | None  # None: there is none yet
    diff: str  # of JSON, from what is there to what is wanted; empty: nothing to do

    @property
    def action(self) -> str:
        if self.found is None:
            return "create"
        return "update" if self.diff else "keep"

    def __str__(self) -> str:
        return f"{self.action} {self.resource.kind} {self.resource.name}"

    def make(self) -> None:
        """Raises GrafanaError."""
        with translated(str(self)):
            if self.found is None:
                self.resource.create()
            elif self.diff:
                self.resource.update(self.found)


def connect(url: str, token: str) -> GrafanaApi:
    """`url` may have a path, for a Grafana behind a proxy. Raises ValueError for a strange one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError(f"{url!r} is no address of a Grafana: https://grafana.example.com")
    # It puts "api" straight behind the path.
    return GrafanaApi.from_url(f"{url.rstrip('/')}/", TokenAuth(token), timeout=_TIMEOUT_S)


def everything(
    api: GrafanaApi, prometheus_url: str | None, data_source: str | None, scrape_interval: str
) -> list[Resource]:
    """In an order in which each needs only what stands before it. `data_source` is the uid of one
    that is there already; else one is made for `prometheus_url`."""
    uid = data_source or DATA_SOURCE_UID
    wanted: list[Resource] = [Folder(api, _FOLDER_UID, "Shopreel")]
    if prometheus_url is not None:
        wanted.append(DataSource(api, uid, prometheus_url, scrape_interval))
    wanted += [SavedDashboard(api, _FOLDER_UID, board.as_json(uid)) for board in DASHBOARDS]
    wanted += [AlertRule(api, rule) for rule in alert_rules(_FOLDER_UID, uid)]
    return wanted


def compare(wanted: Sequence[Resource]) -> Iterator[Change]:
    """Only reads. Raises GrafanaError."""
    for resource in wanted:
        with translated(f"look for {resource.kind} {resource.name}"):
            found = resource.find()
        seen = {} if found is None else _as_far_as(resource.wanted, found)
        name = f"{resource.kind}/{resource.name}"
        diff = "\n".join(
            unified_diff(_lines(seen), _lines(resource.wanted), f"there/{name}", name, lineterm="")
        )
        yield Change(resource, found, diff)


def _as_far_as(wanted: Any, found: Any) -> Any:
    """What `found` says about the things that `wanted` sets: Grafana adds defaults of its own."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return {key: _as_far_as(wanted[key], found[key]) for key in wanted if key in found}
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [_as_far_as(ours, theirs) for ours, theirs in zip(wanted, found, strict=True)]
    return found


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
