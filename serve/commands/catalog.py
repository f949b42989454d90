"""`shopreel catalog …`: runs over a manifest, as Ray jobs, and what became of them."""

import json
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from catalog.errors import CatalogError, ManifestNotFound
from catalog.manifest.pinned import PinnedManifest
from catalog.manifest.pinning import check, is_outdated
from catalog.manifest.source import open_source
from catalog.report.publish import FILES, published, write_report
from catalog.results.errors import KeyRefused, ResultsError
from catalog.results.output import RunOutput
from catalog.run.cancel import ask_to_cancel, forget_cancelling, is_cancelled
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.plan import read_plan
from catalog.run.progress import read_progress
from serve.catalog_driver import driver_command
from serve.commands.catalog_cluster import Cluster, NoCluster
from serve.commands.catalog_follow import (
    RunEnded,
    follow_run,
    start,
    stop,
    wait_for_end,
    words_on,
)
from serve.config import ConfigError
from storage.errors import StorageError

console = Console(stderr=True)

_PART = re.compile(r"part-(\d+)(?:\.r\d+)?\.parquet")
_NO_NAMES = frozenset(("", ".", ".."))

_FAULTS = (
    NoCluster,
    RunEnded,
    CatalogError,
    RunError,
    ResultsError,
    StorageError,
    ConfigError,
    ConnectionError,
    RuntimeError,
)


def run_run(
    options: Mapping[str, Any], tenant: str, dry_run: bool, follow: bool, cluster: Cluster
) -> None:
    with _told():
        asked = RunOptions.model_validate(_absolute(options))
        if dry_run:
            _dry_run(asked, cluster)
            return
        drivers, output = cluster.drivers(), cluster.output(asked.output_uri)
        command = driver_command(asked, tenant, cluster.dashboard_url)
        _tell_outdated(asked, cluster)
        if is_cancelled(output):
            console.print("it was cancelled: a driver that has not left yet is waited for")
            wait_for_end(asked.run_id, drivers)
            forget_cancelling(output)
        started = start(asked, tenant, command, drivers, output)
        is_at_work = "started" if started else "is at work already"
        console.print(f"{asked.run_id} {is_at_work}; results: {asked.output_uri}", highlight=False)
        if follow:
            end = follow_run(asked, tenant, command, drivers, output, console)
            typer.echo(f"{output.uri}/report.html  {end}")


def run_status(run: str, cluster: Cluster, as_json: bool) -> None:
    with _told():
        output = cluster.output_of(run)
        if read_plan(output) is None:
            raise NoCluster(f"no run has begun in {output.uri}")
        job, progress = cluster.drivers().find(output.run_id), read_progress(output) or {}
        driver = "none" if job is None else job.standing
        if as_json:
            found = {"run_id": output.run_id, "output": output.uri, "driver": driver, **progress}
            typer.echo(json.dumps(found, indent=1))
        else:
            if driver == "stopped" and (said := published(output)) and said.stopped:
                driver += f" ({said.stopped})"
            typer.echo(f"{output.run_id}  {output.uri}  driver: {driver}\n{words_on(progress)}")


def run_cancel(run: str, tenant: str, cluster: Cluster) -> None:
    """`tenant`: whose the run is, where Ray has forgotten its job."""
    with _told():
        output, drivers = cluster.output_of(run), cluster.drivers()
        plan, job = read_plan(output), drivers.find(output.run_id)
        if plan is None and job is None:
            raise NoCluster(f"no run has begun in {output.uri}")
        said = published(output)
        if job and job.has_succeeded and said and said.completed:
            typer.echo(f"{output.run_id}: it had ended before")
            return
        ask_to_cancel(output)
        # A driver that finds its run cancelled cancels its jobs; so one is needed for a dead one's.
        manifest_uri = job.manifest_uri if job else plan.manifest_uri if plan else ""
        asked = RunOptions(manifest_uri=manifest_uri, output_uri=output.uri)
        owner = job.tenant if job else tenant
        command = driver_command(asked, owner, cluster.dashboard_url)
        typer.echo(f"{output.run_id}: {stop(asked, owner, command, drivers)}")


def run_list(cluster: Cluster, as_json: bool) -> None:
    with _told():
        rows: list[dict[str, Any]] = [
            {
                "run_id": job.run_id,
                "driver": job.standing,
                "tenant": job.tenant,
                "manifest": job.manifest_uri,
                "output": job.output_uri,
                "started_at": job.started_at,
                "ended_at": job.ended_at,
            }
            for job in cluster.drivers().list()
        ]
        if as_json:
            typer.echo(json.dumps(rows, indent=1))
            return
        for row in rows:
            started = row["started_at"]
            at = "" if started is None else time.strftime("%F %T", time.localtime(started))
            words = (row["run_id"], f"{row['driver']:7}", at, row["manifest"], row["output"])
            typer.echo("  ".join(words))


def run_report(run: str, out: Path, videos: bool, cluster: Cluster) -> None:
    """Into the folder `out`: the report as of now and the tables, with `videos` all of it. The
    run's folder stays as it is: its drivers write there."""
    with _told():
        output = cluster.output_of(run)
        plan = read_plan(output)
        if plan is None:
            raise NoCluster(f"no run has begun in {output.uri}")
        out.mkdir(parents=True, exist_ok=True)
        fetched = set(_fetched(output, "" if videos else "results/", out))
        for path in _outdated(fetched, out / "results"):
            path.unlink()
        write_report(output, plan, out, time.time(), _stopped(output, cluster))
        typer.echo(f"{out / 'report.html'}  ({len(fetched) + len(FILES)} files)")


def _fetched(output: RunOutput, under: str, out: Path) -> Iterator[Path]:
    for found in output.objects.iter_objects(output.key(under)):
        inside = found.key.removeprefix(f"{output.prefix}/")
        if inside.startswith("_") or inside.endswith("/") or inside in FILES:
            continue  # consoles make the second: folders
        if not set(inside.split("/")).isdisjoint(_NO_NAMES):
            raise KeyRefused(found.key)
        path = out / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(output.objects.get(found.key))
        yield path


def _outdated(fetched: Collection[Path], folder: Path) -> list[Path]:
    """Parts of an earlier report whose rows were tried again since; other files are not ours."""
    shards = {part[1] for path in fetched if (part := _PART.fullmatch(path.name))}
    return [
        path
        for path in folder.glob("part-*.parquet")
        if path not in fetched and (part := _PART.fullmatch(path.name)) and part[1] in shards
    ]


def _stopped(output: RunOutput, cluster: Cluster) -> str | None:
    """Why the run does not go on; None: a driver is at work."""
    said = published(output)
    told = None if said is None else said.stopped
    try:
        job = cluster.drivers().find(output.run_id)
    except (NoCluster, ConnectionError, RuntimeError):  # S3 alone tells what was made
        return told
    if job is not None and job.is_at_work:
        return None
    return told or "no driver is at work; the same command continues the run"


def _tell_outdated(options: RunOptions, cluster: Cluster) -> None:
    """That the manifest has changed since this run began, which keeps to what it was."""
    standing = PinnedManifest.open(cluster.bucket(options.bucket), options.prefix)
    if standing is None:
        return
    try:
        outdated = is_outdated(standing.pin, open_source(options.manifest_uri, cluster.bucket))
    except ManifestNotFound:
        return
    if outdated:
        console.print(
            f"{options.manifest_uri} has changed since this run began, which goes on with its"
            " rows of then; another --output begins a run of the new ones",
            highlight=False,
            soft_wrap=True,
        )


def _absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """The driver has another working directory."""
    uri = options["manifest_uri"]
    if "://" not in uri:
        uri = str(Path(uri).resolve())
    return {**options, "manifest_uri": uri, "output_uri": options["output_uri"].rstrip("/")}


def _dry_run(options: RunOptions, cluster: Cluster) -> None:
    """Reads and checks the whole manifest, and changes nothing."""
    source = open_source(options.manifest_uri, cluster.bucket)
    with tempfile.TemporaryDirectory(prefix="shopreel-") as temp:
        found = check(source, Path(temp), lambda rows: console.print(f"{rows} rows read"))
    for row in found.first_bad_rows:
        typer.echo(str(row))
    bad = sum(found.problems.values())
    typer.echo(f"{found.rows} rows, {found.rows - bad} of them usable")
    for code, count in found.problems.items():
        typer.echo(f"  {count} {code}")


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with a message where the user, the cluster or a store is at fault."""
    try:
        yield
    except ValidationError as e:
        for problem in e.errors(include_url=False):
            name = ".".join(map(str, problem["loc"]))
            _tell_error(f"{name}: {problem['msg']}")
        raise typer.Exit(2) from e
    except _FAULTS as e:
        _tell_error(str(e))
        raise typer.Exit(e.exit_code if isinstance(e, RunEnded) else 1) from e


def _tell_error(message: str) -> None:
    console.print(Text("error:", "red"), Text(message), soft_wrap=True)
