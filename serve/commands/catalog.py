"""`shopreel catalog …`: runs over a manifest, as Ray jobs, and what became of them."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from catalog.errors import CatalogError
from catalog.manifest.pinning import check
from catalog.manifest.source import open_source
from catalog.report.publish import publish_report
from catalog.results.errors import ResultsError
from catalog.results.output import RunOutput
from catalog.run.cancel import ask_to_cancel, forget_cancelling
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.plan import read_plan
from catalog.run.progress import read_progress
from catalog.run.submission import DriverJobs
from serve.catalog_driver import driver_command
from serve.commands.catalog_cluster import Cluster, NoCluster
from serve.config import ConfigError
from storage.errors import StorageError, StoreUnavailable

_POLL_S = 1.0
_RESTARTS = 5
"""In a row, of a driver that was killed, while somebody follows."""
_SHOWN_PROBLEMS = 20

console = Console(stderr=True)


class RunEnded(Exception):
    """Before its end; says why."""


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
        drivers = cluster.drivers()
        command = driver_command(asked, tenant, cluster.dashboard_url)
        forget_cancelling(cluster.output(asked.output_uri))
        started = drivers.start(asked, tenant, command)
        is_at_work = "started" if started else "is at work already"
        console.print(f"{asked.run_id} {is_at_work}; results: {asked.output_uri}", highlight=False)
        if follow:
            _follow(asked, tenant, command, drivers, cluster.output(asked.output_uri))


def run_status(run: str, cluster: Cluster, as_json: bool) -> None:
    with _told():
        output = cluster.output_of(run)
        if read_plan(output) is None:
            raise NoCluster(f"no run has begun in {output.uri}")
        job, progress = cluster.drivers().find(output.run_id), read_progress(output) or {}
        driver = "none" if job is None else str(job.status)
        if as_json:
            found = {"run_id": output.run_id, "output": output.uri, "driver": driver, **progress}
            typer.echo(json.dumps(found, indent=1))
        else:
            typer.echo(f"{output.run_id}  {output.uri}  driver: {driver}\n{_words(progress)}")


def run_cancel(run: str, cluster: Cluster) -> None:
    with _told():
        output = cluster.output_of(run)
        ask_to_cancel(output)
        typer.echo(f"{output.run_id} stops within seconds; its jobs under way are cancelled")


def run_list(cluster: Cluster, as_json: bool) -> None:
    with _told():
        rows: list[dict[str, Any]] = [
            {
                "run_id": job.run_id,
                "driver": str(job.status),
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
            words = (row["run_id"], f"{row['driver']:9}", at, row["manifest"], row["output"])
            typer.echo("  ".join(words))


def run_report(run: str, out: Path, videos: bool, cluster: Cluster) -> None:
    """Into the folder `out`: the report as of now and the tables, with `videos` all of it."""
    with _told():
        output = cluster.output_of(run)
        plan = read_plan(output)
        if plan is None:
            raise NoCluster(f"no run has begun in {output.uri}")
        publish_report(output, plan, time.time())
        wanted = ("",) if videos else ("report.html", "errors.csv", "run.json", "results/")
        number = 0
        for name in wanted:
            for found in output.objects.iter_objects(output.key(name)):
                inside = found.key.removeprefix(f"{output.prefix}/")
                if inside.startswith("_"):
                    continue
                path = out / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(output.objects.get(found.key))
                number += 1
        typer.echo(f"{out / 'report.html'}  ({number} files)")


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


def _follow(
    options: RunOptions,
    tenant: str,
    command: Sequence[str],
    drivers: DriverJobs,
    output: RunOutput,
) -> None:
    """Until the run ends. A driver that was killed is started again; the service goes on anyway."""
    restarts = done = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("reading the manifest", total=None, words="")
        while True:
            time.sleep(_POLL_S)
            progress = _known_progress(output) or {"done": 0}
            if progress["done"] > done:
                restarts, done = 0, progress["done"]
            _show(bar, task, progress)
            job = drivers.find(options.run_id)
            if job is not None and job.is_at_work:
                continue
            if job is not None and not job.is_lost:
                break
            if restarts == _RESTARTS:
                raise RunEnded(f"its driver was lost {restarts + 1} times in a row")
            restarts += 1
            console.print(f"the driver is gone; starting it again ({restarts} of {_RESTARTS})")
            drivers.start(options, tenant, command)
        _show(bar, task, _known_progress(output) or {"done": 0})
    if not job.has_succeeded:
        raise RunEnded(_last_line(drivers.logs(options.run_id)) or str(job.status))
    typer.echo(f"{output.uri}/report.html  {_words(read_progress(output) or {})}")


def _known_progress(output: RunOutput) -> Mapping[str, Any] | None:
    """None also where the store is away: the run waits for it, and so do its followers."""
    try:
        return read_progress(output)
    except StoreUnavailable:
        return None


def _show(bar: Progress, task: TaskID, progress: Mapping[str, Any]) -> None:
    if progress["done"]:
        bar.update(
            task,
            description="making videos",
            total=progress["rows"],
            completed=progress["done"],
            words=_words(progress),
        )


def _words(progress: Mapping[str, Any]) -> str:
    """One line for people."""
    if not progress:
        return "no row is done yet"
    words = [f"{progress['done']} of {progress['rows']}: {progress['ok']} videos"]
    for count, what in ((progress["failed"], "failed"), (progress["shared"], "shared")):
        if count:
            words.append(f"{count} {what}")
    if rate := progress["rows_per_s"]:
        words.append(f"{3600 * rate:.0f}/h")
    if eta_s := progress["eta_s"]:
        words.append(f"{_duration(eta_s)} to go")
    words.append(f"{progress['gpu_seconds']:.0f} GPU-seconds")
    if progress["cost"]:
        words.append(f"cost {progress['cost']:.2f}")
    if reason := progress["waiting_for"]:
        words.append(f"waiting: {reason}")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{rest:02}"


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1].removeprefix("stopped: ") if lines else ""


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with a message where the user, the cluster or a store is at fault."""
    try:
        yield
    except ValidationError as e:
        for problem in e.errors(include_url=False):
            name = ".".join(map(str, problem["loc"]))
            console.print(f"[red]error:[/] {name}: {problem['msg']}", highlight=False)
        raise typer.Exit(2) from e
    except _FAULTS as e:
        console.print("[red]error:[/]", str(e), highlight=False, markup=False)
        raise typer.Exit(1) from e
