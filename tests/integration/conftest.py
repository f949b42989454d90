"""What integration tests share: one real S3 server for the session, one fresh bucket per test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cluster.embedded_s3 import EmbeddedS3
from storage.object_store import ObjectStoreConfig, S3ObjectStore


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: EmbeddedS3) -> ObjectStoreConfig:
    config = s3_server.config.model_copy(update={"bucket": f"test-{uuid4().hex[:12]}"})
    S3ObjectStore(config).ensure_bucket()
    return config
