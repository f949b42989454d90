"""The whole application on a head and two GPU nodes: an a100 that holds two replicas, an rtx4090
that holds one and cannot take large clips. The job table is in Postgres, so that the API may run
on any node."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray import serve
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.handle import DeploymentHandle

from cluster.embedded_s3 import EmbeddedS3
from diffusion.memory import Architecture
from diffusion.model_folder import ModelFolder
from serve.client import Client
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, JobStatus
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration.live import free_port, write_config
from tests.multinode import SCRATCH

PHOTO = Path(__file__).parents[2] / "examples" / "products" / "watch-steel.jpg"
TENANT = "default"
CHECKPOINT_STEPS = 5
LARGE: dict[str, Any] = {"size": "192x192", "num_frames": 24}
SMALL: dict[str, Any] = {"size": "64x64", "num_frames": 8}


class MultiNode:
    def __init__(self, folder: Path, s3: ObjectStoreConfig, postgres: str, model: Path):
        self._s3 = s3
        self.store = S3ObjectStore(s3)
        self.jobs_config = JobStoreConfig(url=postgres, lease_s=6)
        self._port = free_port()
        self._document = _document(folder, s3, self.jobs_config, model, self._port)
        self._cluster: Any = None
        self.nodes: dict[str, Any] = {}  # by tier

    def start(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 16,
                "num_gpus": 0,
                "labels": {"role": "head"},
                "include_dashboard": True,
                "dashboard_host": "127.0.0.1",
                "dashboard_port": free_port(),
                "gcs_server_port": free_port(),
                "object_store_memory": 200 << 20,
                "temp_dir": str(SCRATCH / "r"),
            },
        )
        for tier in ("a100", "rtx4090"):
            self.add_node(tier)
        ray.init(self._cluster.address, log_to_driver=False)
        client = ServeSubmissionClient(f"http://{self._cluster.webui_url}")
        client.deploy_applications(self._document)
        self.until(lambda: self.status() == "RUNNING", 200, lambda: client.get_serve_details())
        self.until(lambda: self.replicas()["Denoiser-a100"] == 2, 60, self.replicas)
        self.jobs = SqlJobStore(self.jobs_config)

    def stop(self) -> None:
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()

    def add_node(self, tier: str) -> None:
        self.nodes[tier] = self._cluster.add_node(
            num_cpus=4, num_gpus=1, labels={"tier": tier}, object_store_memory=100 << 20
        )

    def remove_node(self, tier: str) -> None:
        """As a machine that loses power."""
        self._cluster.remove_node(self.nodes.pop(tier), allow_graceful=False)

    def drain_node(self, tier: str, seconds: float) -> None:
        """A spot notice: the node goes in so many seconds."""
        deadline_ms = int((time.time() + seconds) * 1000)
        gcs = GcsClient(address=self._cluster.address)
        accepted, why = gcs.drain_node(self.nodes[tier].node_id, 2, "spot", deadline_ms)
        assert accepted, why

    def status(self) -> str:
        application = serve.status().applications.get("shopreel")
        return application.status if application else "NONE"

    def replicas(self) -> dict[str, int]:
        deployments = serve.status().applications["shopreel"].deployments
        return {name: d.replica_states.get("RUNNING", 0) for name, d in deployments.items()}

    def nodes_of(self, deployment: str) -> list[str]:
        """The node id of each running replica."""
        client = ServeSubmissionClient(f"http://{self._cluster.webui_url}")
        application = client.get_serve_details()["applications"]["shopreel"]
        replicas = application["deployments"][deployment]["replicas"]
        return [r["node_id"] for r in replicas if r["state"] == "RUNNING"]

    def handle(self, deployment: str) -> DeploymentHandle:
        return serve.get_deployment_handle(deployment, "shopreel")

    def processes(self, deployment: str) -> list[psutil.Process]:
        """The replicas of a deployment, for tests that end them."""
        title = f"ServeReplica:shopreel:{deployment}"
        return [
            process
            for process in psutil.Process().children(recursive=True) + _orphans()
            if title in " ".join(_cmdline(process))
        ]

    def create(self, **fields: Any) -> str:
        with self.client() as client:
            video = client.create(PHOTO, **{"prompt": "a watch turns", **SMALL, **fields})
        video_id: str = video["id"]
        return video_id

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self._port}")

    def job(self, job_id: str) -> Job:
        return self.jobs.get(TENANT, job_id)

    def step_reached(self, job_id: str, step: int, patience_s: float = 60) -> Job:
        self.until(lambda: self.job(job_id).step >= step, patience_s, lambda: self.job(job_id))
        return self.job(job_id)

    def completed(self, *job_ids: str, patience_s: float = 200) -> list[Job]:
        def all_ended() -> bool:
            return all(self.job(job_id).status.is_terminal for job_id in job_ids)

        self.until(all_ended, patience_s, lambda: [self.job(job_id) for job_id in job_ids])
        jobs = [self.job(job_id) for job_id in job_ids]
        assert [job.status for job in jobs] == [JobStatus.COMPLETED] * len(jobs), jobs
        return jobs

    def until(
        self,
        reached: Callable[[], bool],
        patience_s: float,
        told: Callable[[], object] = lambda: "",
    ) -> None:
        deadline = time.monotonic() + patience_s
        while not reached():
            assert time.monotonic() < deadline, told()
            time.sleep(0.2)


def _document(
    folder: Path, s3: ObjectStoreConfig, jobs: JobStoreConfig, model: Path, port: int
) -> dict[str, Any]:
    engine = {"checkpoint_steps": CHECKPOINT_STEPS}
    common = {
        "device": "cpu",
        "num_cpus": 0.1,
        "engine": engine,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 4.0,
        "tflops": 0.05,
        "orphan_s": 8.0,
    }
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
            "stages.api.min_replicas": 2,
            "stages.api.max_replicas": 2,
            "stages.dispatcher.labels": head,  # as tests/multinode/test_fleet.py ends other nodes
            "stages.housekeeper.labels": head,
            "tiers": [
                {
                    "name": "a100",
                    "labels": {"tier": "a100"},
                    "num_gpus": 0.5,
                    "vram_gb": 80,
                    "min_replicas": 2,
                    "max_replicas": 2,
                    **common,
                },
                {
                    "name": "rtx4090",
                    "labels": {"tier": "rtx4090"},
                    "num_gpus": 1,
                    "vram_gb": _too_small_for_large(model),
                    "min_replicas": 0,
                    "max_replicas": 1,
                    "slo_s": 2.0,
                    "cold_start_s": 5.0,
                    **common,
                },
            ],
        },
    )
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    return document


def _too_small_for_large(model: Path) -> float:
    """GB of a card that a LARGE clip of the tiny model just does not fit."""
    architecture = Architecture.of(ModelFolder(model))
    width, height = map(int, LARGE["size"].split("x"))
    needed = architecture.denoiser_bytes(width, height, LARGE["num_frames"], 1, 4, True)
    return 0.6 + 0.9 * needed / 1e9  # a replica's share is what CUDA's context leaves


def _orphans() -> list[psutil.Process]:
    """Workers of a raylet that was killed are children of init for a moment."""
    return [p for p in psutil.process_iter() if str(SCRATCH) in " ".join(_cmdline(p))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def running(folder: Path, s3: EmbeddedS3, postgres: str, model: Path) -> Iterator[MultiNode]:
    rig = MultiNode(folder, s3.config, postgres, model)
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
