"""Unit tests cannot start Ray, and share one tiny checkpoint of the real classes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.tiny import write_tiny_model
from storage.job_store import JobStoreConfig, SqlJobStore
from tests.postgres import Postgres
from tests.sample_jobs import Clock, sqlite_url, store_config


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a unit test tried to start Ray: it belongs in tests/integration")

    monkeypatch.setattr(ray, "init", refuse)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return ModelFolder.open(ModelConfig(source=str(folder)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database at the head of the migrations; every test that asks runs on both."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture
def config(database_url: str) -> JobStoreConfig:
    return store_config(database_url)


@pytest.fixture
def store(config: JobStoreConfig, clock: Clock) -> Iterator[SqlJobStore]:
    store = SqlJobStore(config, clock)
    yield store
    store.close()
