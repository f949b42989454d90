"""`shopreel up`: the one-machine cluster in the foreground."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from cluster.local import ClusterFailed, Endpoints, LocalCluster, prepare_environment
from cluster.local_parts import Own
from cluster.preflight import check_exposure, check_port, check_weights
from serve.commands import LOCAL_CONFIG
from storage.errors import StorageError

console = Console(stderr=True)


def run_up(
    config: Path | None, port: int | None, data: Path, model: str | None, revision: str | None
) -> None:
    with (
        console.status("starting") as status,
        cluster_up(config, port, data, model, revision, teller(status)) as (running, cluster),
    ):
        status.stop()
        with suppress(KeyboardInterrupt):
            typer.echo(f"ready {running.base_url}")
            while True:
                time.sleep(1)
                cluster.watch()
        status.start()


def teller(status: Status) -> Callable[[str], None]:
    """A spinner's text on a terminal, a line each in a log file."""

    def tell(words: str) -> None:
        status.update(words)
        if not console.is_terminal:
            console.print(words, highlight=False)

    return tell


@contextmanager
def cluster_up(
    config: Path | None,
    port: int | None,
    data: Path,
    model: str | None,
    revision: str | None,
    report: Callable[[str], None],
) -> Iterator[tuple[Endpoints, LocalCluster]]:
    """A running cluster; on leaving, drained and gone. Ends the command where it cannot start."""
    try:
        prepare_environment(data)
    except OSError as e:
        raise _ended(f"the data folder cannot be used: {e}") from e
    if model is not None:
        os.environ["SHOPREEL_MODEL__SOURCE"] = model
        os.environ["SHOPREEL_MODEL__NAME"] = Path(model).name
    if revision is not None:
        os.environ["SHOPREEL_MODEL__REVISION"] = revision
    from serve.config import ConfigError, load

    try:
        loaded = load(config or LOCAL_CONFIG)
        host, file_port = loaded.http_address
        document = loaded.with_http(host, port or file_port)
        own = Own(
            object_store=loaded.app.object_store is None,
            job_store=loaded.app.job_store is None,
            tiny_model=loaded.app.model.is_random,
            default_model=loaded.app.default_model_name,
        )
    except ConfigError as e:
        raise _ended(e) from e
    for check in (
        check_exposure(host, loaded.app.auth.enabled),
        check_port(host, port or file_port),
        check_weights(loaded.app.model),
    ):
        if check.status == "fail":
            raise _ended(f"{check.name}: {check.found}; {check.fix}")
    with LocalCluster(data, report) as cluster:
        try:
            endpoints = cluster.start(document, own, loaded.app.deployments)
        except (ClusterFailed, StorageError) as e:
            raise _ended(e) from e
        yield endpoints, cluster


def _ended(error: Exception | str) -> typer.Exit:
    console.print(f"[red]not started:[/] {escape(str(error))}", highlight=False)
    return typer.Exit(1)
