"""What a run's job does around its run: its own key, and how it leaves."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus

from catalog.run.options import RunOptions
from catalog.run.submission import AWAY, STOPPED, DriverJob
from cluster.tiers import TierConfig
from diffusion.model_folder import ModelConfig
from serve import catalog_driver
from serve.catalog_driver import main, own_key
from serve.config import AppConfig
from serve.edge.auth import AuthConfig
from storage.errors import StoreUnavailable, UnknownKey
from storage.job_store import JobStoreConfig
from storage.sql.database import Database
from storage.tenants import SqlTenants

OPTIONS = RunOptions(manifest_uri="m.csv", output_uri="s3://bucket/x", patience_s=0.3)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppConfig:
    monkeypatch.setattr(catalog_driver, "_STORE_AGAIN_S", 0.05)
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    with closing(Database(url)) as database:
        SqlTenants(database).put("shop", None)
    settings: dict[str, Any] = {
        "model": ModelConfig(source="tiny"),
        "tiers": (TierConfig(name="cpu"),),
        "auth": AuthConfig(enabled=True),
        "job_store": JobStoreConfig(url=url),
    }
    return AppConfig(**settings)


def live_keys(config: AppConfig) -> int:
    assert config.job_store is not None
    with closing(Database(config.job_store.url)) as database:
        keys = SqlTenants(database).keys("shop")
    return sum(key.revoked_at is None for key in keys)


def failing(monkeypatch: pytest.MonkeyPatch, method: str, times: int) -> None:
    """The job table is away at so many calls of this."""
    real, left = getattr(SqlTenants, method), [StoreUnavailable("no answer")] * times

    def call(*args: object, **kwargs: object) -> object:
        if left:
            raise left.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(SqlTenants, method, call)


def test_a_job_table_that_is_away_for_a_moment_costs_a_driver_nothing(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "issue_key", 3)
    with own_key(config, "shop", OPTIONS) as key:
        assert key is not None
        assert live_keys(config) == 1
    assert live_keys(config) == 0


def test_a_job_table_that_stays_away_is_given_up_after_the_patience(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "issue_key", 1000)
    with pytest.raises(StoreUnavailable), own_key(config, "shop", OPTIONS):
        pass


def test_a_key_that_cannot_be_revoked_fails_no_run_and_is_revoked_by_the_next_driver(
    config: AppConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_key(config, "shop", OPTIONS):
        failing(monkeypatch, "revoke", 1)
    assert live_keys(config) == 1
    with own_key(config, "shop", OPTIONS):
        assert live_keys(config) == 1
    assert live_keys(config) == 0


def test_a_driver_that_leaves_late_leaves_its_successors_key_alone(
    config: AppConfig,
) -> None:
    assert config.job_store is not None
    first = own_key(config, "shop", OPTIONS)
    old = first.__enter__()
    with own_key(config, "shop", OPTIONS) as key, closing(Database(config.job_store.url)) as table:
        assert old is not None
        with pytest.raises(UnknownKey):
            SqlTenants(table).authenticate(old)
        first.__exit__(None, None, None)
        assert key is not None
        assert SqlTenants(table).authenticate(key).name == "shop"
    assert live_keys(config) == 0


def test_a_driver_that_finds_no_cluster_counts_as_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main("http://127.0.0.1:9", "shop", OPTIONS.model_dump_json())
    assert left.value.code == AWAY
    assert "no Ray dashboard answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "is_lost"), [(-9, True), (None, True), (AWAY, True), (1, False), (STOPPED, False)]
)
def test_which_ends_of_a_driver_another_one_mends(code: int | None, is_lost: bool) -> None:
    failed = JobStatus.FAILED
    job = DriverJob("run_1", failed, "", "m", "s3://bucket/x", "shop", 1.0, 2.0, code)
    assert job.is_lost is is_lost
