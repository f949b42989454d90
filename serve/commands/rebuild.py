"""`shopreel jobs rebuild` and `shopreel tenants purge`: work on the whole bucket, which starts the
embedded S3 server itself where no cluster runs."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cluster.embedded_s3 import EmbeddedS3
from serve.commands import LOCAL_CONFIG
from serve.commands.stores import Stores, told
from storage.errors import StoreMisconfigured, WrongBucket
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.lifecycle.collector import Collector
from storage.lifecycle.rebuild import rebuild
from storage.object_store import S3ObjectStore

_COMPLAINTS_SHOWN = 20
_WRONG_BUCKET = 3
"""Exit status of its own: what is needed is another configuration, and not another try."""


def run_rebuild(config: Path | None, data: Path, as_json: bool) -> None:
    columns = SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(stderr=True)
    with (
        told(),
        _whole_stores(config, data) as stores,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("reading jobs/", total=None)

        def report(seen: int, restored: int) -> None:
            progress.update(task, description=f"{seen} jobs seen, {restored} restored")

        try:
            done = rebuild(stores.jobs, stores.objects, time.time(), report)
        except WrongBucket as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(_WRONG_BUCKET) from error
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=1))
    else:
        restored = ", ".join(f"{n} {status}" for status, n in done.restored.items() if n)
        typer.echo(f"restored: {restored or 'none'}; {done.standing} had their row")
    for complaint in done.complaints[:_COMPLAINTS_SHOWN]:
        console.print(f"not restored: {complaint}", markup=False, highlight=False)
    if done.damaged:
        typer.echo(f"error: {done.damaged} jobs are not restored", err=True)
        raise typer.Exit(1)


def run_purge_tenant(
    tenant: str, confirmed: bool, config: Path | None, data: Path, as_json: bool
) -> None:
    if not confirmed:
        typer.echo(f"error: this deletes all that {tenant} has; say --yes", err=True)
        raise typer.Exit(2)
    with told(), _whole_stores(config, data) as stores:
        from serve.config import load

        retention = load(config or LOCAL_CONFIG).app.retention
        collector = Collector(stores.jobs, stores.objects, retention)
        try:
            done = collector.purge_tenant(tenant)
        finally:
            collector.close()
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=1))
        return
    gone = ", ".join(f"{n} {kind}" for kind, n in done.deleted.items() if n)
    typer.echo(f"deleted: {gone or 'nothing'}")


@contextmanager
def _whole_stores(config: Path | None, data: Path) -> Iterator[Stores]:
    """Both stores, an empty job table included. Raises ConfigError and StorageError."""
    from serve.config import load

    app = load(config or LOCAL_CONFIG).app
    with ExitStack() as ends:
        object_store = app.object_store
        table = data.resolve() / "jobs.sqlite"
        if object_store is None or app.job_store is None:
            if not data.is_dir() or (object_store is None and not (data / "s3").is_dir()):
                raise StoreMisconfigured(f"nothing to work on in {data}: give the --data of `up`")
            alone = _lock(data, ends)
            if app.job_store is None and not alone and not table.exists():
                raise StoreMisconfigured(
                    f"a cluster runs over the lost table {table}: end it first"
                )
            if object_store is None:
                if alone:
                    object_store = ends.enter_context(EmbeddedS3(data / "s3")).config
                else:
                    object_store = EmbeddedS3.running(data / "s3")
        jobs = SqlJobStore(app.job_store or JobStoreConfig(url=f"sqlite:///{table}"))
        ends.callback(jobs.close)
        yield Stores(jobs, S3ObjectStore(object_store))


def _lock(data: Path, ends: ExitStack) -> bool:
    """Keeps a cluster from starting on this folder meanwhile; False: one runs already."""
    lock = ends.enter_context((data / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
