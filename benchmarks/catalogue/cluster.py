"""The one-machine cluster of a catalogue benchmark: cluster/local.yaml with another clip size."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml

from benchmarks.catalogue.call_log import Call
from cluster.embedded_s3 import EmbeddedS3
from cluster.local import APP_NAME, Endpoints, LocalCluster
from serve.commands import LOCAL_CONFIG
from serve.commands.up import cluster_up
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.object_store import S3ObjectStore

P = ParamSpec("P")
T = TypeVar("T")

_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster under this very process, and its stores."""

    endpoints: Endpoints
    data: Path
    jobs: SqlJobStore
    objects: S3ObjectStore

    @property
    def pid(self) -> int:
        return os.getpid()

    def unet_calls(self) -> list[Call]:
        """Of its one denoiser, which must be a timed one."""
        from ray.serve import get_deployment_handle

        from serve.config import load

        (tier,) = load(LOCAL_CONFIG).app.tiers
        denoiser = get_deployment_handle(tier.deployment_name, APP_NAME)
        calls: list[Call] = denoiser.unet_calls.remote().result(timeout_s=60)
        return calls


def config_file(
    folder: Path, standard: Mapping[str, Any], import_path: str = "serve.app:build_app"
) -> Path:
    """cluster/local.yaml with `standard` in the place of that preset."""
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    (application,) = document["applications"]
    application["import_path"] = import_path
    application["args"]["presets"]["standard"] = dict(standard)
    application["args"]["default_model"] = application["args"]["model"]["name"]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def running(config: Path) -> Iterator[Running]:
    """In the folder of `config`."""
    data = config.parent / "data"
    with cluster_up(config, None, data, None, None, lambda _: None) as (endpoints, cluster):
        url = f"sqlite:///{data.resolve() / 'jobs.sqlite'}"
        with closing(SqlJobStore(JobStoreConfig(url=url))) as jobs, _watched(cluster):
            objects = S3ObjectStore(EmbeddedS3.running(data.resolve() / "s3"))
            yield Running(endpoints, data, jobs, objects)


@contextmanager
def _watched(cluster: LocalCluster) -> Iterator[None]:
    """As `shopreel up` looks after it."""
    leaving = threading.Event()

    def watch() -> None:
        while not leaving.wait(_WATCH_S):
            cluster.watch()

    watcher = threading.Thread(target=watch, name="watch")
    watcher.start()
    try:
        yield
    finally:
        leaving.set()
        watcher.join()


def apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a process of its own: Ray reads its environment once, and each cluster has another."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *args, **kwargs).result()


def cores_used(
    before: Mapping[str, float], after: Mapping[str, float], wall_s: float
) -> dict[str, float]:
    """Of this machine's, on average, by process; the busiest first."""
    used = {name: (after[name] - before.get(name, 0.0)) / wall_s for name in after}
    busiest = sorted(used.items(), key=lambda item: -item[1])
    return {"all": round(sum(used.values()), 2)} | {n: round(u, 2) for n, u in busiest if u >= 0.01}
