"""`shopreel doctor`: everything a start or a rollout depends on, each with its fix."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from sqlalchemy import make_url

from cluster.preflight import (
    Check,
    check_disk,
    check_exposure,
    check_gpus,
    check_object_store,
    check_packages,
    check_port,
    check_python,
    check_tiers,
    check_weights,
)
from serve.commands import LOCAL_CONFIG

if TYPE_CHECKING:
    from serve.config import LoadedConfig

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def run_doctor(config: Path | None, data: Path, address: str | None, as_json: bool) -> None:
    """Exit code 1 where a check fails: do not start, do not roll out."""
    checks: list[Check] = []
    console = Console()
    name = Column("check", no_wrap=True)
    table = Table("", name, *(Column(c, overflow="fold") for c in ("found", "mend")), box=None)
    for check in _checks(config, data, address):
        checks.append(check)
        mark = f"[{_STYLES[check.status]}]{check.status}[/]"
        table.add_row(mark, *map(escape, (check.name, check.found, check.fix)))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        console.print(table)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _checks(path: Path | None, data: Path, address: str | None) -> Iterator[Check]:
    from serve.config import ConfigError, load

    yield check_python()
    yield from check_packages()
    try:
        loaded = load(path or LOCAL_CONFIG)
    except ConfigError as e:
        yield Check("configuration", "fail", str(e), "see `shopreel config` and the README")
        return
    yield Check("configuration", "ok", str(loaded.path.name))
    yield check_exposure(loaded.http_address[0], loaded.app.auth.enabled)
    if address is None and loaded.service is None:
        yield from _this_machine(loaded, data)
    else:
        yield from _rollout(loaded, address)


def _this_machine(loaded: "LoadedConfig", data: Path) -> Iterator[Check]:
    """For `shopreel up`."""
    app = loaded.app
    yield check_port(*loaded.http_address)
    yield check_disk(data)
    yield from check_object_store(app.object_store)
    yield check_weights(app.model)
    yield check_gpus(app.deployments)
    yield from check_tiers(app.tiers, app.deployments)


def _rollout(loaded: "LoadedConfig", address: str | None) -> Iterator[Check]:
    """For `serve deploy` and `kubectl apply`: of this machine only its connections count."""
    from cluster.preflight_kuberay import check_ray_token, check_service, check_upgrade
    from cluster.preflight_stores import (
        check_bucket_clock,
        check_job_table,
        check_nodes_weights,
        check_secrets,
    )
    from cluster.rollout import check_cluster, check_pools
    from serve.config import ConfigError, ray_token

    app, service = loaded.app, loaded.service
    origins = {name: origin for name, _, origin in loaded.in_force()}
    yield from check_secrets(_secrets(loaded, origins), loaded.path.name)
    try:
        app.check_deployable()
    except ConfigError as e:
        yield Check("labels", "fail", str(e), "see job_store in the configuration")
    yield from check_job_table(app.job_store)
    if app.object_store is None:
        yield Check("object store", "fail", "object_store is not set", "name your own")
    else:
        yield from check_object_store(app.object_store)
        yield from check_bucket_clock(app.object_store)
    yield check_nodes_weights(app.model)
    yield from check_tiers(app.tiers, app.deployments, asked=True)
    if service is not None:
        variables = {o.removeprefix("environment ") for o in origins.values() if " " in o}
        sqlite = app.job_store is not None and app.job_store.url.startswith("sqlite")
        port = loaded.http_address[1]
        yield check_ray_token(service.auth, ray_token())
        yield from check_service(service, port, variables, waits=app.wait_for_nodes)
        yield check_upgrade(service, app.deployments, sqlite=sqlite)
        yield from check_pools(service, app.deployments, app.tiers)
    if address is not None:
        yield from check_cluster(
            address, app.deployments, app.tiers, loaded.http_address, grows=app.wait_for_nodes
        )


def _secrets(loaded: "LoadedConfig", origins: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Value and origin of those that are set, by the name of the setting."""
    app, values = loaded.app, dict[str, str]()
    if app.object_store is not None:
        values["object_store.access_key"] = app.object_store.access_key
        values["object_store.secret_key"] = app.object_store.secret_key.get_secret_value()
    if app.job_store is not None and make_url(app.job_store.url).password:
        values["job_store.url"] = app.job_store.url
    if app.webhooks.secrets:
        values["webhooks.secrets"] = " ".join(s.get_secret_value() for s in app.webhooks.secrets)
    return {name: (value, origins[name]) for name, value in values.items()}
