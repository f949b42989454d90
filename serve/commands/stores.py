"""The stores of a configuration, for operator commands: they work on them directly, not by HTTP."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from cluster.embedded_s3 import EmbeddedS3
from serve.commands import LOCAL_CONFIG
from storage.errors import StorageError, StoreMisconfigured
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.database import Database


@dataclass(frozen=True, slots=True)
class Stores:
    """What a running service keeps, or one that is stopped: the same objects that it works with."""

    jobs: SqlJobStore
    objects: S3ObjectStore


@contextmanager
def open_database(config: Path | None, data: Path) -> Iterator[Database]:
    """The tables alone. Like `open_stores`, ends the command with a message where that fails, be it
    on opening or in the body."""
    with told():
        job_store, _ = _configured(config, data)
        with closing(Database(job_store.url)) as database:
            yield database


@contextmanager
def open_jobs(config: Path | None, data: Path) -> Iterator[SqlJobStore]:
    """The jobs alone, for what has no need of the bucket; else like `open_stores`."""
    with told():
        job_store, _ = _configured(config, data)
        with closing(SqlJobStore(job_store)) as jobs:
            yield jobs


@contextmanager
def open_stores(config: Path | None, data: Path) -> Iterator[Stores]:
    """Jobs and objects. An embedded S3 server is that of the cluster which runs on `data`."""
    with told():
        job_store, object_store = _configured(config, data)
        found = object_store or EmbeddedS3.running(data / "s3")
        with closing(SqlJobStore(job_store)) as jobs:
            yield Stores(jobs, S3ObjectStore(found))


def _configured(config: Path | None, data: Path) -> tuple[JobStoreConfig, ObjectStoreConfig | None]:
    """Raises StoreMisconfigured, and ConfigError."""
    from serve.config import load

    app = load(config or LOCAL_CONFIG).app
    if app.job_store is not None:
        return app.job_store, app.object_store
    path = data.resolve() / "jobs.sqlite"
    if not path.exists():  # a misspelt folder would get an empty table of its own
        raise StoreMisconfigured(f"no job table at {path}: give the --data of `shopreel up`")
    return JobStoreConfig(url=f"sqlite:///{path}"), app.object_store


@contextmanager
def told() -> Iterator[None]:
    """Ends the command with a message where the configuration or a store is at fault."""
    from serve.config import ConfigError

    try:
        yield
    except (ConfigError, StorageError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
