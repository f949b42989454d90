"""Unit tests cannot start Ray, and share one tiny checkpoint of the real classes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.tiny import write_tiny_model
from storage.job_store import JobStore, SqlJobStore
from tests.sample_jobs import Clock, store_config


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


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    store = SqlJobStore(store_config(tmp_path), clock)
    yield store
    store.close()
