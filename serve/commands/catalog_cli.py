"""`shopreel catalog`: runs over a manifest of products."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve.commands.interrupts import interruptible
from serve.commands.options import DEFAULT_DATA, AsJson, Category, ConfigFile, DataFolder

if TYPE_CHECKING:
    from serve.commands.catalog_cluster import Cluster

catalog = typer.Typer(help="Videos of a whole catalogue.", no_args_is_help=True)

Dashboard = Annotated[
    str | None,
    typer.Option("--address", help="http://HEAD:8265 of a cluster that `up` did not start."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Its id, or s3://BUCKET/PREFIX.")]


@catalog.command("run")
def run_catalog(
    manifest: Annotated[
        str,
        typer.Argument(help="CSV, JSONL or Parquet, or a folder of photos; a path or s3://…"),
    ],
    output: Annotated[str, typer.Option(help="s3://BUCKET/PREFIX; the same one continues it.")],
    model: Annotated[
        str | None, typer.Option(help="camera: camera moves; default: the service's own.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Of rows that name none.")] = None,
    category: Category = None,
    seed: Annotated[int, typer.Option(help="Of rows that name none.")] = 0,
    dry_run: Annotated[bool, typer.Option(help="Check every row, make nothing.")] = False,
    max_failures: Annotated[
        str | None, typer.Option(metavar="N|P%", help="More failed rows stop the run.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Rows that failed, once more.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="The first so many rows only.")] = None,
    min_score: Annotated[
        float, typer.Option(help="Quality gate, 0 to 1: below it another seed is tried.")
    ] = 0.0,
    quality_retries: Annotated[int, typer.Option(help="So many other seeds at most.")] = 2,
    in_flight: Annotated[int, typer.Option(help="Jobs at once.")] = 64,
    shard_rows: Annotated[int, typer.Option(help="Rows of a file of results.")] = 1000,
    tenant: Annotated[str, typer.Option(help="Whose jobs they are.")] = "default",
    follow: Annotated[bool, typer.Option("--follow", help="Stay until it ends.")] = False,
    address: Dashboard = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
) -> None:
    """Make a video of every row. The same command again continues a run that was broken off."""
    with interruptible():
        cluster = _cluster(address, config, data)
        from serve.commands.catalog import run_run

        options = {
            "manifest_uri": manifest,
            "output_uri": output,
            "model": model,
            "preset": preset,
            "category": category,
            "seed": seed,
            "limit": limit,
            "max_failures": max_failures,
            "min_score": min_score,
            "quality_retries": quality_retries,
            "in_flight": in_flight,
            "shard_rows": shard_rows,
            "retry_failed": retry_failed,
        }
        run_run(options, tenant, dry_run, follow, cluster)


@catalog.command("status")
def show_run(
    run: Run,
    address: Dashboard = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Show how far a run is."""
    cluster = _cluster(address, config, data)
    from serve.commands.catalog import run_status

    run_status(run, cluster, as_json)


@catalog.command("cancel")
def cancel_run(
    run: Run,
    tenant: Annotated[
        str, typer.Option(help="Whose it is, where Ray has forgotten the run.")
    ] = "default",
    address: Dashboard = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
) -> None:
    """Stop a run and its jobs under way; what is made stays, `run` continues it."""
    cluster = _cluster(address, config, data)
    from serve.commands.catalog import run_cancel

    run_cancel(run, tenant, cluster)


@catalog.command("report")
def report_run(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder for report.html and the tables.")] = Path(
        "shopreel-report"
    ),
    videos: Annotated[bool, typer.Option("--videos", help="The videos too.")] = False,
    address: Dashboard = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
) -> None:
    """Write the report as of now, with the tables, into a folder of this machine."""
    cluster = _cluster(address, config, data)
    from serve.commands.catalog import run_report

    run_report(run, out, videos, cluster)


@catalog.command("list")
def list_runs(
    address: Dashboard = None,
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Show the runs that this cluster knows, the newest first."""
    cluster = _cluster(address, config, data)
    from serve.commands.catalog import run_list

    run_list(cluster, as_json)


def _cluster(address: str | None, config: Path | None, data: Path) -> "Cluster":
    """Call it before Ray is imported, which reads then which token it has to show."""
    from cluster.local import prepare_environment

    if address is None and (data / "cluster.json").exists():
        prepare_environment(data)
    from serve.commands.catalog_cluster import Cluster

    return Cluster(config, data, address)
