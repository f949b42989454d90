"""The `shopreel` command. Commands import what they need themselves: Ray reads the environment
when it is imported, and `shopreel --help` must not take seconds."""

from pathlib import Path
from typing import Annotated

import typer

from serve.commands.interrupts import interruptible
from storage.jobs import JobStatus

app = typer.Typer(
    help="Product photos in, publishable product videos out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would eat [subject] + [action]
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Serve config file; default cluster/local.yaml.")
]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder for videos, jobs, embedded S3 and logs.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Diffusers folder or hub id; beats the config file.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="40-digit commit of a hub id given as --model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

DEFAULT_DATA = Path("shopreel-data")
DEFAULT_URL = "http://127.0.0.1:8200"


@app.command()
def up(
    config: ConfigFile = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="HTTP port; default: the file's.")
    ] = None,
    data: DataFolder = DEFAULT_DATA,
    model: Model = None,
    revision: Revision = None,
) -> None:
    """Run a one-machine cluster in the foreground: Ray, Serve, S3 and the job table."""
    with interruptible():
        from serve.commands.up import run_up

        run_up(config, port, data, model, revision)


@app.command()
def generate(
    photo: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JPEG, PNG or WebP.")],
    prompt: Annotated[str, typer.Option(help="[subject] + [action] + [direction] + [ambience]")],
    preset: Annotated[str, typer.Option(help="preview, standard or high.")] = "standard",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    smooth: Annotated[bool, typer.Option(help="Interpolate to 24 frames/s or more.")] = False,
    out: Annotated[Path | None, typer.Option(help="MP4 file; default: a readable name.")] = None,
    url: Annotated[str, typer.Option(envvar="SHOPREEL_URL", help="The service.")] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="SHOPREEL_API_KEY", show_envvar=True, help="Where one is needed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one video through a running service, on this machine or another."""
    from serve.commands.generate import run_generate

    run_generate(photo, prompt, preset, seed, smooth, out, url, api_key, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos and sheets.")] = Path(
        "shopreel-demo"
    ),
    config: ConfigFile = None,
    model: Model = None,
    revision: Revision = None,
    preset: Annotated[str, typer.Option(help="preview, standard or high.")] = "standard",
) -> None:
    """Bring a cluster up, make a video of every example photo, show them, bring it down."""
    with interruptible():
        from serve.commands.demo import run_demo

        run_demo(out, config, model, revision, preset)


@app.command()
def doctor(
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Check everything a start depends on, each with its fix. Exit code 1 if anything fails."""
    from serve.commands.doctor import run_doctor

    run_doctor(config, data, as_json)


@app.command()
def calibrate(
    data: DataFolder = DEFAULT_DATA,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", help="Only this one; may be repeated.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster that `up` did not start.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each tier of a running cluster sustains; it counts from the next start on."""
    with interruptible():
        from serve.commands.calibrate import run_calibrate

        run_calibrate(data, address, tier or [], as_json)


@app.command("config")
def show_config(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from."""
    from serve.commands.show_config import run_show_config

    run_show_config(config, as_json)


keys = typer.Typer(help="API keys, straight in the job table.", no_args_is_help=True)
app.add_typer(keys, name="keys")
tenants = typer.Typer(help="Tenants and what each may use.", no_args_is_help=True)
app.add_typer(tenants, name="tenants")

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
app.add_typer(jobs, name="jobs")

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
