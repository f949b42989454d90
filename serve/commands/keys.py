"""`shopreel keys` and `shopreel tenants`: who may use the service, straight in the job table."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.egress.webhooks import webhook_secret
from serve.commands import LOCAL_CONFIG
from serve.commands.stores import open_database
from serve.config import ConfigError, load
from storage.errors import TenantNotFound
from storage.tenants import ApiKey, Quota, SqlTenants, Tenant

_NO_QUOTA = "the server's default"


def run_create_key(name: str, label: str, config: Path | None, data: Path, as_json: bool) -> None:
    with _tenants(config, data) as tenants:
        try:
            tenants.get(name)
        except TenantNotFound:
            tenants.put(name, None)
            typer.echo(f"new tenant {name}, with {_NO_QUOTA} quota", err=True)
        issued, key = tenants.issue_key(name, label)
    if as_json:
        typer.echo(json.dumps({**asdict(issued), "key": key}, indent=1))
        return
    typer.echo(f"key {issued.id} of tenant {name}; it is shown this once:", err=True)
    typer.echo(key)  # alone on stdout: KEY=$(shopreel keys create shop)


def run_list_keys(tenant: str | None, config: Path | None, data: Path, as_json: bool) -> None:
    with _tenants(config, data) as tenants:
        keys = tenants.keys(tenant)
    if as_json:
        typer.echo(json.dumps([asdict(key) for key in keys], indent=1))
        return
    table = Table("key", "tenant", "label", "created", "revoked", box=None)
    for key in keys:
        table.add_row(*_words(key), style="dim" if key.revoked_at else None)
    Console().print(table)


def run_revoke_key(key_id: str, config: Path | None, data: Path) -> None:
    with _tenants(config, data) as tenants:
        tenants.revoke(key_id)
    typer.echo(f"revoked {key_id}", err=True)


def run_set_tenant(
    name: str,
    limits: Mapping[str, int | None],
    default: bool,
    config: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    given = any(limit is not None for limit in limits.values())
    if given == default:
        typer.echo("error: give one limit at least, or --default", err=True)
        raise typer.Exit(2)
    with _tenants(config, data) as tenants:
        tenant = tenants.put(name, None if default else Quota.model_validate(limits))
    _show([tenant], as_json)


def run_list_tenants(config: Path | None, data: Path, as_json: bool) -> None:
    with _tenants(config, data) as tenants:
        found = tenants.list_tenants()
    _show(found, as_json)


def _show(tenants: list[Tenant], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_row(tenant) for tenant in tenants], indent=1))
        return
    table = Table("tenant", "created", "quota", box=None)
    for tenant in tenants:
        quota = _NO_QUOTA if tenant.quota is None else _limits(tenant.quota)
        table.add_row(tenant.name, _at(tenant.created_at), quota)
    Console().print(table)


def run_show_webhook_secret(name: str, config: Path | None) -> None:
    try:
        app = load(config or LOCAL_CONFIG).app
        typer.echo(webhook_secret(app.webhooks, name))
    except (ConfigError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def _tenants(config: Path | None, data: Path) -> Iterator[SqlTenants]:
    with open_database(config, data) as database:
        try:
            yield SqlTenants(database)
        except ValueError as error:  # a name or a label that cannot be
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


def _row(tenant: Tenant) -> dict[str, Any]:
    quota = None if tenant.quota is None else tenant.quota.model_dump()
    return {"name": tenant.name, "quota": quota, "created_at": tenant.created_at}


def _limits(quota: Quota) -> str:
    limits = quota.model_dump(exclude_none=True)
    return ", ".join(f"{name.replace('_', ' ')} {limit}" for name, limit in limits.items())


def _words(key: ApiKey) -> tuple[str, ...]:
    revoked = "" if key.revoked_at is None else _at(key.revoked_at)
    return key.id, key.tenant, escape(key.label), _at(key.created_at), revoked


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
