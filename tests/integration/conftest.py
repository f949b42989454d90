"""What integration tests share: one real S3 server for the session, one fresh bucket per test."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.embedded_s3 import EmbeddedS3
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration import RAY_TOKEN
from tests.integration.live import LiveCluster, write_config


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: EmbeddedS3) -> Iterator[ObjectStoreConfig]:
    config = s3_server.config.model_copy(update={"bucket": f"test-{uuid4().hex[:12]}"})
    S3ObjectStore(config).ensure_bucket()
    yield config
    remove_bucket(config)


def remove_bucket(config: ObjectStoreConfig) -> None:
    """SeaweedFS gives each bucket volumes of its own, of which a server has so many."""
    store = S3ObjectStore(config)
    for found in store.iter_objects(""):
        store.delete(found.key)
    store._client.remove_bucket(config.bucket)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """One cluster for all tests that leave it as they found it; its Dispatcher is audited."""
    folder = tmp_path_factory.mktemp("live")
    scaling = {"max_replicas": 2, "upscale_delay_s": 0.5, "downscale_delay_s": 3.0}
    config = write_config(
        folder / "config.yaml",
        **{
            "import_path": "tests.integration.audited:build_app",
            **{f"tiers.0.{name}": value for name, value in scaling.items()},
            "tiers.0.slo_s": 8.0,
            "tiers.0.cost_per_hour": 3.6,
            **{
                f"stages.{stage}.{name}": value
                for stage in ("text_encoder", "video_encoder")
                for name, value in scaling.items()
            },
        },
    )
    cluster = LiveCluster(folder / "data", config)
    cluster.data.mkdir()
    (cluster.data / "ray-token").write_text(RAY_TOKEN.read_text())
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def handles(live: LiveCluster) -> Iterator[Callable[[str], DeploymentHandle]]:
    """Deployments by name, for calls that have no HTTP route. Connects this process to Ray."""
    ray.init(live.endpoints.ray_address, log_to_driver=False)
    yield lambda name: serve.get_deployment_handle(name, "shopreel")
    ray.shutdown()
