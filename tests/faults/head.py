"""A Ray head as an operator starts it, `ray start --head --block`, its GCS state on disk; the
application on it, and the stores beside it, which outlive it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from cluster.local import APP_NAME
from serve.client import Client
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.faults import RAY_TOKEN
from tests.integration.live import ROOT, free_port, write_config

PHOTO = ROOT / "examples" / "products" / "watch-steel.jpg"
TENANT = "default"
_LEASE_S = 6.0


class Head:
    """One head over one data folder: start, kill, start again."""

    def __init__(self, folder: Path, s3: ObjectStoreConfig, model: Path):
        self.objects = S3ObjectStore(s3)
        jobs = JobStoreConfig(url=f"sqlite:///{folder / 'jobs.sqlite'}", lease_s=_LEASE_S)
        self.jobs = SqlJobStore(jobs)
        # A socket's path may have 107 bytes, so Ray's are not kept in the test's folder.
        self._temp = Path(tempfile.mkdtemp(prefix="reel-"))
        self._gcs = folder / "gcs"
        self._log = folder / "head.log"
        self._port, self._dashboard_port, http_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{http_port}"
        self._document = _document(folder, s3, jobs, model, http_port)
        self._command: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The same command every time. Returns at once."""
        options = {
            "port": self._port,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self._dashboard_port,
            "dashboard-agent-listen-port": free_port(),
            "ray-client-server-port": free_port(),
            "include-dashboard": "true",
            "num-cpus": 16,
            "num-gpus": 0,
            "object-store-memory": 200 << 20,
            "labels": "role=head",
            "temp-dir": self._temp,
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SHOPR"))}
        with self._log.open("ab") as log:
            self._command = subprocess.Popen(
                [
                    Path(sys.executable).with_name("ray"),
                    *("start", "--head", "--block"),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **inherited,
                    "PYTHONPATH": str(ROOT),
                    "RAY_AUTH_MODE": "token",
                    "RAY_AUTH_TOKEN_PATH": str(RAY_TOKEN),
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only
                    "RAY_USAGE_STATS_ENABLED": "0",
                    "RAY_gcs_storage": "rocksdb",
                    "RAY_gcs_storage_path": str(self._gcs),
                },
                start_new_session=True,
            )

    def deploy(self, patience_s: float = 150) -> None:
        """Once in the life of the data folder."""
        self.until(self._dashboard_answers, patience_s, self.told)
        self._dashboard().deploy_applications(self._document)
        self.until(self.is_ready, patience_s, self.told)

    def application(self) -> dict[str, Any]:
        """What Ray's dashboard says of it."""
        found: dict[str, Any] = self._dashboard().get_serve_details()["applications"][APP_NAME]
        return found

    def is_ready(self) -> bool:
        """The service says itself that it would run a job."""
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def processes(self) -> list[psutil.Process]:
        """Everything of this head, and nothing else: its daemons start process groups for workers,
        and all stay in the session that the command was given."""
        if self._command is None:
            return []
        return [p for p in psutil.process_iter() if _session(p) == self._command.pid]

    def kill(self) -> int:
        """SIGKILL to all of it, as when the machine loses power; how many processes that were."""
        victims = self.processes()
        killed = len(victims)
        while victims:
            for process in victims:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap()
            psutil.wait_procs(victims, timeout=10)
            victims = self.processes()
        return killed

    def kill_gcs(self) -> None:
        (gcs,) = (p for p in self.processes() if p.name() == "gcs_server")
        gcs.kill()

    def has_given_up(self) -> bool:
        """`ray start --block` has ended what it could, and itself, with an error."""
        return self._reap() not in (None, 0)

    def stop(self) -> None:
        self.kill()
        self.jobs.close()
        shutil.rmtree(self._temp, ignore_errors=True)

    def create(self, **fields: Any) -> str:
        with Client(self.url) as client:
            video_id: str = client.create(PHOTO, **fields)["id"]
        return video_id

    def job(self, job_id: str) -> Job:
        return self.jobs.get(TENANT, job_id)

    def until(
        self, reached: Callable[[], bool], patience_s: float, told: Callable[[], object]
    ) -> float:
        """Seconds that it took. Raises AssertionError with what `told` says after `patience_s`."""
        begun = time.monotonic()
        while not reached():
            assert time.monotonic() - begun < patience_s, told()
            time.sleep(0.1)
        return time.monotonic() - begun

    def told(self) -> str:
        """For a failed test: the application's state, as far as it is known, and the log's end."""
        with suppress(Exception):
            application = self.application()
            return f"{application['status']}: {application['message']}"
        return self._log.read_text()[-3000:]

    def _reap(self) -> int | None:
        return self._command.poll() if self._command is not None else None

    def _dashboard(self) -> ServeSubmissionClient:
        return ServeSubmissionClient(f"http://127.0.0.1:{self._dashboard_port}")

    def _dashboard_answers(self) -> bool:
        try:
            self._dashboard().get_serve_details()
        except (ConnectionError, RuntimeError):
            return False
        return True


def _session(process: psutil.Process) -> int | None:
    """Whose it is; None when it has ended, though init may not have taken note yet."""
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def _document(
    folder: Path, s3: ObjectStoreConfig, jobs: JobStoreConfig, model: Path, port: int
) -> dict[str, Any]:
    head = {"role": "head"}
    config = write_config(
        folder / "config.yaml",
        **{
            "web.enabled": False,
            "model.source": str(model),
            "object_store": {
                "endpoint": s3.endpoint,
                "bucket": s3.bucket,
                "access_key": s3.access_key,
                "secret_key": s3.secret_key.get_secret_value(),
            },
            "job_store": jobs.model_dump(),
            "stages.api.labels": head,
            "stages.dispatcher.labels": head,
            "stages.housekeeper.labels": head,
        },
    )
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    return document


@contextmanager
def running(folder: Path, s3: ObjectStoreConfig, model: Path) -> Iterator[Head]:
    """A head with the application deployed and ready."""
    head = Head(folder, s3, model)
    try:
        head.start()
        head.deploy()
        yield head
    finally:
        head.stop()
