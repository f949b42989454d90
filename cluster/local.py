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
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil

from cluster.capacity import NoRoom, require_room
from cluster.embedded_s3 import EmbeddedS3
from cluster.local_parts import Own, Parts
from cluster.stage import StageConfig

APP_NAME = "shopreel"
_LOGICAL_CPUS = 16
"""What Ray books from; the replicas of cluster/local.yaml ask for a tenth each."""
_OBJECT_STORE_BYTES = 300 << 20
_START_TIMEOUT_S = 180.0
_DRAIN_S = 30.0


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
        # A handle that outlives ray.shutdown() would start a cluster of its own.
        RAY_ENABLE_AUTO_CONNECT="0",
        # Ray's handler would print a stack trace for every Ctrl-C.
        RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
        # Ray's own switch for "this machine alone": every daemon listens on 127.0.0.1.
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        TRANSFORMERS_VERBOSITY="error",
        DIFFUSERS_VERBOSITY="error",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )


class LocalCluster:
    """Everything of one machine over one data folder; leaving the context leaves no process."""

    def __init__(self, data: Path, report: Callable[[str], None] = lambda _: None):
        self._data = data.resolve()
        self._report = report
        self._ends = ExitStack()  # how to end what was started, the last one first
        self._s3: EmbeddedS3 | None = None

    def start(
        self, document: Mapping[str, Any], own: Own, stages: Mapping[str, StageConfig]
    ) -> Endpoints:
        """Bring up what `own` says is ours, then deploy the Serve config `document`.

        Returns when the application runs. Raises ClusterFailed, at once for `stages` that this
        machine cannot hold: Ray would wait for another machine for ever.
        """
        self._lock()
        self._prepare(own)
        endpoints = self._start_ray(document)
        _check_room(stages)
        self._deploy(document, endpoints)
        self._ends.callback(self._drain)
        self._publish(endpoints)
        return endpoints

    def watch(self) -> None:
        """Start the embedded S3 server again if it has ended; on the ports that it had."""
        if self._s3 is not None and not self._s3.is_running:
            self._report("the embedded S3 server has ended; starting it again")
            self._s3.start()

    def stop(self) -> None:
        """Let jobs in flight end for 30 s at most, put the rest back, end every process."""
        handlers = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            self._ends.close()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _lock(self) -> None:
        lock = self._ends.enter_context((self._data / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ClusterFailed(f"another cluster runs on {self._data}") from e

    def _prepare(self, own: Own) -> None:
        parts = Parts(self._data, own, self._report, self._ends)
        self._s3 = parts.s3
        # The daemons of Ray inherit this process's environment and hand it to every replica.
        for name, value in parts.settings.items():
            variable = f"SHOPREEL_{name}"
            self._ends.callback(_set_variable, variable, os.environ.get(variable))
            _set_variable(variable, value)

    def _start_ray(self, document: Mapping[str, Any]) -> Endpoints:
        import ray

        self._report("starting Ray")
        # Ray's sockets live in here and a socket's path may have 107 bytes: not in the data folder.
        last = self._data / "ray-temp"  # of a cluster that was killed and could not clean up
        if last.is_symlink():
            shutil.rmtree(last.readlink(), ignore_errors=True)
            last.unlink()
        others = psutil.Process().children(recursive=True)
        with _agent_on_any_port(), _uninterrupted():
            temp = tempfile.mkdtemp(prefix="reel-")
            self._ends.callback(self._end_ray, temp, others)
            last.symlink_to(temp)
            context = ray.init(
                num_cpus=_LOGICAL_CPUS,
                labels={"role": "head"},
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=0,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=temp,
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
            application = client.get_serve_details()["applications"].get(APP_NAME, {})
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

    def _publish(self, endpoints: Endpoints) -> None:
        path = self._data / "cluster.json"
        self._ends.callback(path.unlink, missing_ok=True)
        path.write_text(json.dumps(asdict(endpoints)))

    def _drain(self) -> None:
        from ray import serve

        self._report("draining")
        # Where this fails, leases run out and the next start takes the jobs again.
        with _survived("the dispatcher could not be drained"):
            dispatcher = serve.get_deployment_handle("Dispatcher", APP_NAME)
            dispatcher.drain.remote(_DRAIN_S).result(timeout_s=_DRAIN_S + 5)

    def _end_ray(self, temp: str, others: Collection[psutil.Process]) -> None:
        """End Ray and Serve, and every process that is a child of ours now, less `others`."""
        import ray
        from ray import serve

        self._report("stopping")
        family = [p for p in psutil.Process().children(recursive=True) if p not in others]
        if ray.is_initialized():
            with _survived("Serve could not be shut down"):
                serve.shutdown()
        with _survived("Ray could not be shut down"):
            ray.shutdown()
        _end(family)
        logs = self._data / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        for found in Path(temp).glob("session_2*/logs"):
            shutil.copytree(found, logs, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        shutil.rmtree(temp, ignore_errors=True)
        (self._data / "ray-temp").unlink(missing_ok=True)


@contextmanager
def _agent_on_any_port() -> Iterator[None]:
    """For ray.init, which knows no option for it: the agent that starts jobs listens on 52365, and
    that of a second cluster on the machine would go on without listening at all."""
    from ray._private import parameter

    original = parameter.RayParams
    vars(parameter)["RayParams"] = partial(original, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        vars(parameter)["RayParams"] = original


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, which then raises KeyboardInterrupt. Left
    to itself ray.init puts in a SIGTERM handler that talks to the half-connected cluster from
    within the signal: one process in ten or so died of SIGSEGV (2.60)."""
    from ray._private import utils

    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {n: signal.signal(n, lambda number, _: came.append(number)) for n in numbers}
    original = utils.set_sigterm_handler
    vars(utils)["set_sigterm_handler"] = lambda _: None
    try:
        yield
    finally:
        vars(utils)["set_sigterm_handler"] = original
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _check_room(stages: Mapping[str, StageConfig]) -> None:
    import ray

    try:
        require_room(stages, ray.nodes())
    except NoRoom as e:
        raise ClusterFailed(str(e)) from None


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def _survived(what: str) -> Iterator[None]:
    """Whatever fails in Ray while we leave: say so and go on."""
    try:
        yield
    except Exception as e:
        logging.getLogger(__name__).warning("%s: %s: %s", what, type(e).__name__, e)


def _end(family: Sequence[psutil.Process]) -> None:
    """Ray's agents outlive a raylet that was killed, now and then; nothing of ours may."""
    _, alive = psutil.wait_procs(family, timeout=2)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=3)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
