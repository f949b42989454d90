"""The cluster that is hurt, its stores, and a shop that asks it for videos all the while."""

import io
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml
from PIL import Image

from benchmarks.load.servers import free_port
from benchmarks.processes import name_of
from cluster.embedded_s3 import EmbeddedS3
from cluster.local import Endpoints
from serve.commands import LOCAL_CONFIG
from serve.commands.up import cluster_up
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, VideoFile
from storage.object_store import S3ObjectStore

TENANT, TIER = "default", "cpu"
MOST_QUEUED = 150  # more than the faults want to wait, few enough to fill the queue
_SLOTS = 8
_AUDIT_EVERY_S = 5.0  # the half hour of AuditSilent is half a minute here
_LOOKS_PER_S = 10
_PATIENCE_S = 120.0
SMALL = {"size": "64x64", "num_frames": 8, "num_inference_steps": 2}


@dataclass(slots=True)
class Shop:
    endpoints: Endpoints
    data: Path
    s3: EmbeddedS3
    objects: S3ObjectStore
    jobs: SqlJobStore
    hook: str  # an endpoint that is gone for good
    visited: list[str] = field(default_factory=list)  # videos that somebody looks at
    answers: dict[int, int] = field(default_factory=dict)  # status -> how many looks had it
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def order(self, **fields: Any) -> httpx2.Response:
        """A create with a photo of its own."""
        number = next(self._numbers)
        asked = {"prompt": "a watch turns", "seed": number, **SMALL, **fields}
        return httpx2.post(
            f"{self.endpoints.base_url}/v1/videos",
            data={name: str(value) for name, value in asked.items()},
            files={"input_reference": ("photo.jpg", _photo(number))},
            timeout=60,
            trust_env=False,
        )

    def accepted(self, **fields: Any) -> str:
        answer = self.order(**fields)
        if answer.status_code != 202:
            raise RuntimeError(f"{answer.status_code} {answer.text}")
        return str(answer.json()["id"])

    def completed(self, **fields: Any) -> VideoFile:
        job_id = self.accepted(**fields)
        self.until(lambda: self.job(job_id).status.is_terminal)
        job = self.job(job_id)
        if job.result is None:
            raise RuntimeError(f"{job_id} failed: {job.error_message}")
        return job.result

    def job(self, job_id: str) -> Job:
        return self.jobs.get(TENANT, job_id)

    def batch(self, rows: int) -> None:
        """One whose rows each make a clip."""
        with httpx2.Client(
            base_url=f"{self.endpoints.base_url}/v1", timeout=60, trust_env=False
        ) as http:
            photo = ("photo.jpg", _photo(next(self._numbers)))
            kept = http.post("/files", data={"purpose": "vision"}, files={"file": photo}).json()
            photo_id = {"file_id": kept["id"]}
            body = {"prompt": "a mug turns", "input_reference": photo_id, "preset": "preview"}
            lines = [
                json.dumps(
                    {
                        "custom_id": f"mug-{seed}",
                        "method": "POST",
                        "url": "/v1/videos",
                        "body": body | {"seed": seed},
                    }
                )
                for seed in range(rows)
            ]
            manifest = ("rows.jsonl", "\n".join(lines).encode())
            asked = http.post("/files", data={"purpose": "batch"}, files={"file": manifest}).json()
            http.post("/batches", json={"input_file_id": asked["id"]}).raise_for_status()

    def kill(self, *deployments: str) -> None:
        for process in self.processes(*deployments):
            process.kill()

    def processes(self, *names: str) -> list[psutil.Process]:
        family = psutil.Process().children(recursive=True)
        return [process for process in family if _named(process) in names]

    def until(self, reached: Callable[[], object], patience_s: float = _PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {patience_s:.0f} s")
            time.sleep(0.1)


@contextmanager
def open_shop(folder: Path, import_path: str) -> Iterator[Shop]:
    data = folder / "data"
    with EmbeddedS3(folder / "s3") as s3, _gone() as hook:
        config = _config(folder, s3, hook, import_path)
        with cluster_up(config, free_port(), data, None, None, lambda _: None) as (running, _):
            url = f"sqlite:///{data.resolve() / 'jobs.sqlite'}"
            with closing(SqlJobStore(JobStoreConfig(url=url))) as jobs:
                yield Shop(running, data, s3, S3ObjectStore(s3.config), jobs, f"http://{hook}/shop")


@contextmanager
def visitors(shop: Shop) -> Iterator[None]:
    """Somebody looks at one of the `visited` videos, ten times a second."""
    leaving = threading.Event()

    def visit() -> None:
        with httpx2.Client(base_url=shop.endpoints.base_url, timeout=30, trust_env=False) as http:
            while not leaving.wait(1 / _LOOKS_PER_S):
                try:
                    status = http.get(f"/v1/videos/{random.choice(shop.visited)}").status_code
                except httpx2.TransportError:
                    continue
                shop.answers[status] = shop.answers.get(status, 0) + 1

    visitor = threading.Thread(target=visit, name="visitor")
    visitor.start()
    try:
        yield
    finally:
        leaving.set()
        visitor.join()


def _config(folder: Path, s3: EmbeddedS3, hook: str, import_path: str) -> Path:
    """cluster/local.yaml with stores that can be hurt apart, and more slots."""
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    (application,) = document["applications"]
    application["import_path"] = import_path
    args = application["args"]
    args["default_model"] = args["model"]["name"]
    args["tiers"][0] |= {"max_ongoing_requests": _SLOTS, "interactive_slots": _SLOTS - 2}
    args["limits"] |= {"max_queued_jobs": MOST_QUEUED}
    args["stages"]["housekeeper"] = {"audit_every_s": _AUDIT_EVERY_S}
    args["egress"] = {"webhook_hosts": [hook], "networks": ["127.0.0.0/8"]}
    args["webhooks"] = {"secrets": ["a secret of a benchmark, of one machine"]}
    args["object_store"] = {
        "endpoint": s3.config.endpoint,
        "bucket": s3.config.bucket,
        "access_key": s3.config.access_key,
        "secret_key": s3.config.secret_key.get_secret_value(),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path


@contextmanager
def _gone() -> Iterator[str]:
    """host:port of an endpoint that answers 410 to whatever it is sent."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Gone(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(410)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", free_port()), Gone) as server:
        threading.Thread(target=server.serve_forever, name="gone", daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _photo(number: int) -> bytes:
    """Of equal size, each with other bytes."""
    stream = io.BytesIO()
    picture = Image.radial_gradient("L").resize((640, 480)).convert("RGB")
    picture.paste((number % 256, number // 256 % 256, 0), (0, 0, 64, 64))
    picture.save(stream, "JPEG")
    return stream.getvalue()


def _named(process: psutil.Process) -> str:
    try:
        return name_of(process)
    except psutil.NoSuchProcess:
        return ""
