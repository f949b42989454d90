"""The four kinds of things that a push creates or updates, each by Grafana's HTTP API."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError

from monitoring.grafana.errors import BodyRefused

Json = Mapping[str, Any]


class Resource(Protocol):
    """A thing in Grafana with a uid of ours. `wanted` and what `find` answers have one shape."""

    kind: ClassVar[str]

    @property
    def name(self) -> str: ...

    @property
    def wanted(self) -> Json: ...

    def find(self) -> Json | None: ...

    def create(self) -> None: ...

    def update(self, found: Json) -> None:
        """What people set in Grafana and we do not describe stays as it is."""


@dataclass(frozen=True, slots=True)
class Folder:
    kind: ClassVar[str] = "folder"
    api: GrafanaApi
    uid: str
    name: str

    @property
    def wanted(self) -> Json:
        return {"title": self.name}

    def find(self) -> Json | None:
        return _or_none(self.api.folder.get_folder, self.uid)

    def create(self) -> None:
        self.api.folder.create_folder(self.name, uid=self.uid)

    def update(self, found: Json) -> None:
        self.api.folder.update_folder(self.uid, self.name, version=found["version"])


@dataclass(frozen=True, slots=True)
class DataSource:
    kind: ClassVar[str] = "data source"
    api: GrafanaApi
    uid: str
    url: str  # of a Prometheus, as Grafana's server reaches it
    scrape_interval: str  # $__rate_interval is four of these at least

    @property
    def name(self) -> str:
        return "Shopreel Prometheus"

    @property
    def wanted(self) -> Json:
        return {
            "uid": self.uid,
            "name": self.name,
            "type": "prometheus",
            "access": "proxy",
            "url": self.url,
            "jsonData": {"httpMethod": "POST", "timeInterval": self.scrape_interval},
        }

    def find(self) -> Json | None:
        return _or_none(self.api.datasource.get_datasource_by_uid, self.uid)

    def create(self) -> None:
        self.api.datasource.create_datasource(dict(self.wanted))

    def update(self, found: Json) -> None:
        options = {**found.get("jsonData", {}), **self.wanted["jsonData"]}
        body = {**found, **self.wanted, "jsonData": options}
        self.api.datasource.update_datasource_by_uid(self.uid, body)


@dataclass(frozen=True, slots=True)
class SavedDashboard:
    kind: ClassVar[str] = "dashboard"
    api: GrafanaApi
    folder_uid: str
    body: Json

    @property
    def name(self) -> str:
        return str(self.body["title"])

    @property
    def wanted(self) -> Json:
        # Grafana raises the schema's version when it migrates what it loads.
        dashboard = {key: value for key, value in self.body.items() if key != "schemaVersion"}
        return {"dashboard": dashboard, "meta": {"folderUid": self.folder_uid}}

    def find(self) -> Json | None:
        return _or_none(self.api.dashboard.get_dashboard, self.body["uid"])

    def create(self) -> None:
        self._save(self.body)

    def update(self, found: Json) -> None:
        # With the version that we compared: whoever saved since then is not overwritten.
        self._save({**self.body, "version": found["dashboard"]["version"]})

    def _save(self, dashboard: Json) -> None:
        self.api.dashboard.update_dashboard(
            {
                "dashboard": dashboard,
                "folderUid": self.folder_uid,
                "message": "shopreel grafana push",
                "overwrite": False,
            }
        )


@dataclass(frozen=True, slots=True)
class AlertRule:
    kind: ClassVar[str] = "alert rule"
    api: GrafanaApi
    wanted: Json

    @property
    def name(self) -> str:
        return str(self.wanted["title"])

    def find(self) -> Json | None:
        return _or_none(self.api.alertingprovisioning.get_alertrule, self.wanted["uid"])

    def create(self) -> None:
        # Without provenance a person on call may pause the rule.
        self.api.alertingprovisioning.create_alertrule(dict(self.wanted), disable_provenance=True)

    def update(self, found: Json) -> None:
        theirs = {
            key: found[key]
            for key in ("isPaused", "keep_firing_for", "notification_settings")
            if key in found
        }
        self.api.alertingprovisioning.update_alertrule(
            self.wanted["uid"], {**theirs, **self.wanted}, disable_provenance=True
        )


def _or_none(get: Callable[[str], Any], uid: str) -> Json | None:
    try:
        found = get(uid)
    except GrafanaClientError as e:
        if e.status_code == 404:
            return None
        raise
    if not isinstance(found, dict):
        raise BodyRefused(f"no JSON came back for {uid}: is this the address of a Grafana?")
    return found
