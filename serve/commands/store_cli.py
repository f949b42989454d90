"""`shopreel keys`, `tenants` and `jobs`: straight in the stores, with no service running."""

from typing import Annotated

import typer

from serve.commands.interrupts import interruptible
from serve.commands.options import DEFAULT_DATA, AsJson, ConfigFile, DataFolder
from storage.jobs import JobStatus

keys = typer.Typer(help="API keys, straight in the job table.", no_args_is_help=True)
tenants = typer.Typer(help="Tenants and what each may use.", no_args_is_help=True)

TenantName = Annotated[str, typer.Argument(metavar="TENANT")]
Limit = Annotated[int | None, typer.Option(min=0)]


@keys.command("create")
def create_key(
    tenant: TenantName,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Print a new key, this once; a tenant that is not there yet is made."""
    from serve.commands.keys import run_create_key

    run_create_key(tenant, label, config, data, as_json)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]")] = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Show the keys of one tenant, or of all; the keys themselves nobody has."""
    from serve.commands.keys import run_list_keys

    run_list_keys(tenant, config, data, as_json)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
) -> None:
    """End a key. Servers that know it may take it for some seconds more: auth.cache_s."""
    from serve.commands.keys import run_revoke_key

    run_revoke_key(key_id, config, data)


@tenants.command("set")
def set_tenant(
    name: TenantName,
    queued_jobs: Limit = None,
    unfinished_jobs: Limit = None,
    creates_per_minute: Limit = None,
    requests_per_second: Annotated[int | None, typer.Option(min=1)] = None,
    stored_bytes: Limit = None,
    default: Annotated[
        bool, typer.Option("--default", help="The server's quota instead of one of its own.")
    ] = False,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Make a tenant, or change its quota: as given here, without a limit on what is left out."""
    from serve.commands.keys import run_set_tenant

    limits = {
        "queued_jobs": queued_jobs,
        "unfinished_jobs": unfinished_jobs,
        "creates_per_minute": creates_per_minute,
        "requests_per_second": requests_per_second,
        "stored_bytes": stored_bytes,
    }
    run_set_tenant(name, limits, default, config, data, as_json)


@tenants.command("list")
def list_tenants(
    config: ConfigFile = None, data: DataFolder = DEFAULT_DATA, as_json: AsJson = False
) -> None:
    """Show every tenant and its quota."""
    from serve.commands.keys import run_list_tenants

    run_list_tenants(config, data, as_json)


@tenants.command("webhook-secret")
def show_webhook_secret(
    name: Annotated[str, typer.Argument(help="The tenant.")], config: ConfigFile = None
) -> None:
    """Print what a tenant verifies webhooks with (Standard Webhooks)."""
    from serve.commands.keys import run_show_webhook_secret

    run_show_webhook_secret(name, config)


@tenants.command("purge")
def purge_tenant(
    name: TenantName,
    yes: Annotated[bool, typer.Option("--yes", help="Really.")] = False,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Delete a tenant and all that it has: keys, jobs, photos, videos. Run it again if it breaks
    off."""
    from serve.commands.rebuild import run_purge_tenant

    run_purge_tenant(name, yes, config, data, as_json)


jobs = typer.Typer(help="Jobs of all tenants, straight in the stores.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID")]


@jobs.command("list")
def list_jobs(
    tenant: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    status: Annotated[
        JobStatus | None, typer.Option(help="Only those that are so.", case_sensitive=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest that many.")] = 50,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first."""
    from serve.commands.jobs import run_list

    run_list(tenant, status, limit, config, data, as_json)


@jobs.command("show")
def show_job(
    job_id: JobId,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Show one job: what happened when, how long it took, where its objects are, its webhooks."""
    from serve.commands.jobs import run_show

    run_show(job_id, config, data, as_json)


@jobs.command("cancel")
def cancel_job(job_id: JobId, config: ConfigFile = None, data: DataFolder = DEFAULT_DATA) -> None:
    """End a job; one that runs stops within seconds."""
    from serve.commands.jobs import run_cancel

    run_cancel(job_id, config, data)


@jobs.command("retry")
def retry_job(job_id: JobId, config: ConfigFile = None, data: DataFolder = DEFAULT_DATA) -> None:
    """Queue a failed job again, with all its tries."""
    from serve.commands.jobs import run_retry

    run_retry(job_id, config, data)


@jobs.command("rebuild")
def rebuild_jobs(
    config: ConfigFile = None, data: DataFolder = DEFAULT_DATA, as_json: AsJson = False
) -> None:
    """Make lost rows of the job table again from the object store; rows that exist stay."""
    with interruptible():
        from serve.commands.rebuild import run_rebuild

        run_rebuild(config, data, as_json)
