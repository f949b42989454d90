"""The one-machine cluster: an embedded S3 server, Ray and Ray Serve, started and stopped together.

Ray reads its environment when it is imported, so this module imports it late: call
`prepare_environment` before anything that imports Ray.
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from cluster.embedded_s3 import EmbeddedS3
from cluster.tiers import TierConfig, missing_tiers

_APP = "shopreel"
_LOGICAL_CPUS = 16
"""What Ray books from; the replicas of cluster/local.yaml ask for a tenth each."""
_OBJECT_STORE_BYTES = 300 << 20
_START_TIMEOUT_S = 180.0
_TINY = "tiny"


class ClusterFailed(Exception):
    """The cluster did not come up; says which part and why."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running one-machine cluster is found: <data>/cluster.json."""

    base_url: str
    ray_address: str
    dashboard_url: str
    pid: int

    @classmethod
    def read(cls, data: Path) -> "Endpoints":
        """Raises FileNotFoundError when no cluster runs on this data folder."""
        return cls(**json.loads((data / "cluster.json").read_text()))


def prepare_environment(data: Path) -> None:
    """Make the data folder and set what Ray must find when it is imported: loopback, token auth."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = data / "ray-token"
    if not token.exists():
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token.resolve()),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_SERVE_LOG_TO_STDERR="0",
        RAY_DEDUP_LOGS="1",
        # Ray's handler would print a stack trace for every Ctrl-C.
        RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
        # Ray's own switch for "this machine alone": every daemon listens on 127.0.0.1.
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        # How soon autoscaling sees load; Ray's 10 s make a small cluster sluggish.
        RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
        RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
        TRANSFORMERS_VERBOSITY="error",
        DIFFUSERS_VERBOSITY="error",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )


class LocalCluster:
    """Everything of one machine over one data folder; leaving the context leaves no process."""

    def __init__(self, data: Path, report: Callable[[str], None] = lambda _: None):
        self._data = data.resolve()
        self._report = report
        self._s3: EmbeddedS3 | None = None
        self._ray_temp: str | None = None
        self._lock = (self._data / "lock").open("w")

    def start(
        self, document: Mapping[str, Any], own: "Own", tiers: Sequence[TierConfig]
    ) -> Endpoints:
        """Bring up what `own` says is ours, then deploy the Serve config `document`.

        Returns when the application runs. Raises ClusterFailed, at once for `tiers` that this
        machine cannot hold: Ray would wait for another machine for ever.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ClusterFailed(f"another cluster runs on {self._data}") from e
        self._prepare(own)
        endpoints = self._start_ray(document)
        _check_room(tiers)
        self._deploy(document, endpoints)
        (self._data / "cluster.json").write_text(json.dumps(asdict(endpoints)))
        return endpoints

    def stop(self, drain_s: float = 30.0) -> None:
        """Let jobs in flight end for `drain_s` at most, put the rest back, end every process."""
        import ray
        from ray import serve

        (self._data / "cluster.json").unlink(missing_ok=True)
        family = psutil.Process().children(recursive=True)
        try:
            if ray.is_initialized():
                self._report("draining")
                _drain(drain_s)
                serve.shutdown()
        finally:
            self._report("stopping")
            ray.shutdown()
            if self._s3 is not None:
                self._s3.stop()
            _end(family)
            if self._ray_temp is not None:
                shutil.rmtree(self._ray_temp, ignore_errors=True)
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare(self, own: "Own") -> None:
        settings: dict[str, str] = {}
        if own.object_store:
            self._report("starting the embedded S3 server")
            self._s3 = EmbeddedS3(self._data / "s3").start()
            config = self._s3.config
            settings |= {
                "OBJECT_STORE__ENDPOINT": config.endpoint,
                "OBJECT_STORE__BUCKET": config.bucket,
                "OBJECT_STORE__ACCESS_KEY": config.access_key,
                "OBJECT_STORE__SECRET_KEY": config.secret_key.get_secret_value(),
            }
        if own.job_store:
            settings["JOB_STORE__URL"] = f"sqlite:///{self._data / 'jobs.sqlite'}"
        if own.tiny_model:
            folder = self._data / "models" / _TINY
            if not (folder / "model_index.json").exists():
                from diffusion.tiny import write_tiny_model

                self._report("writing the tiny model")
                write_tiny_model(folder)
            settings["MODEL__SOURCE"] = str(folder)
        # The daemons of Ray inherit this process's environment and hand it to every replica.
        os.environ.update({f"SHOPREEL_{name}": value for name, value in settings.items()})

    def _start_ray(self, document: Mapping[str, Any]) -> Endpoints:
        import ray

        self._report("starting Ray")
        # Ray's sockets live in here and a socket's path may have 107 bytes: not in the data folder.
        self._ray_temp = tempfile.mkdtemp(prefix="reel-")
        context = ray.init(
            num_cpus=_LOGICAL_CPUS,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=self._ray_temp,
        )
        http = document["http_options"]
        return Endpoints(
            base_url=f"http://{http['host']}:{http['port']}",
            ray_address=context.address_info["gcs_address"],
            dashboard_url=f"http://{context.dashboard_url}",
            pid=os.getpid(),
        )

    def _deploy(self, document: Mapping[str, Any], endpoints: Endpoints) -> None:
        """Hand the config to Ray's dashboard as `serve deploy` does, and wait until it runs."""
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        self._report("deploying the stages")
        client = ServeSubmissionClient(endpoints.dashboard_url)
        client.deploy_applications(dict(document))
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            application = client.get_serve_details()["applications"].get(_APP, {})
            status, deployments = application.get("status"), application.get("deployments", {})
            if status == "RUNNING":
                return
            if status in ("DEPLOY_FAILED", "UNHEALTHY"):
                log = self._data / "deploy-error.log"
                log.write_text(application["message"])
                raise ClusterFailed(f"{application['message'].splitlines()[-1]} (all of it: {log})")
            healthy = sum(d["status"] == "HEALTHY" for d in deployments.values())
            if deployments:
                self._report(f"starting the stages: {healthy} of {len(deployments)}")
            time.sleep(0.25)
        raise ClusterFailed(f"the stages did not come up in {_START_TIMEOUT_S:.0f} s")


@dataclass(frozen=True, slots=True)
class Own:
    """Which parts a one-machine cluster provides itself because the configuration names none."""

    object_store: bool
    job_store: bool
    tiny_model: bool


def _check_room(tiers: Sequence[TierConfig]) -> None:
    import ray

    labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    for tier in missing_tiers(tiers, labels):
        raise ClusterFailed(f"no node has the labels {tier.labels} of tier {tier.name!r}")
    wanted = sum(tier.num_gpus * tier.min_replicas for tier in tiers)
    found = ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        raise ClusterFailed(
            f"the tiers ask for {wanted:g} GPUs and Ray finds {found:g}: lower min_replicas or"
            " num_gpus, or use cluster/local.yaml on a machine without GPUs"
        )


def _drain(grace_s: float) -> None:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        dispatcher = serve.get_deployment_handle("Dispatcher", _APP)
        dispatcher.drain.remote(grace_s).result(timeout_s=grace_s + 5)
    except (RayServeException, TimeoutError):
        # It never came up, or hangs: leases run out and the next start takes the jobs again.
        logging.getLogger(__name__).warning("the dispatcher could not be drained")


def _end(family: Sequence[psutil.Process]) -> None:
    """Ray's agents outlive a raylet that was killed, now and then; nothing of ours may."""
    _, alive = psutil.wait_procs(family, timeout=2)
    for process in alive:
        process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=3)
    for process in alive:
        process.kill()
