"""`shopreel keys` and `shopreel tenants` on a job table as `shopreel up` leaves it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from serve.cli import app
from serve.commands import LOCAL_CONFIG
from storage.sql.database import Database
from storage.tenants import Quota, SqlTenants


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}").close()
    return tmp_path


def shopreel(data: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data", str(data)], env={"COLUMNS": "200"})


def table(data: Path) -> SqlTenants:
    return SqlTenants(Database(f"sqlite:///{data / 'jobs.sqlite'}"))


def test_a_new_key_is_alone_on_stdout_and_works(data: Path) -> None:
    created = shopreel(data, "keys", "create", "shop", "--label", "ci [x]")
    assert created.exit_code == 0
    assert "new tenant shop" in created.stderr
    tenant = table(data).authenticate(created.stdout.removesuffix("\n"))
    assert (tenant.name, tenant.quota) == ("shop", None)
    listed = shopreel(data, "keys", "list").stdout
    assert "ci [x]" in listed
    assert created.stdout.split("_")[2].strip() not in listed


def test_a_revoked_key_works_no_more_and_is_still_listed(data: Path) -> None:
    created = json.loads(shopreel(data, "keys", "create", "shop", "--json").stdout)
    assert shopreel(data, "keys", "revoke", created["id"]).exit_code == 0
    (listed,) = json.loads(shopreel(data, "keys", "list", "shop", "--json").stdout)
    assert (listed["id"], listed["revoked_at"] > 0) == (created["id"], True)
    assert "key" not in listed
    ran = shopreel(data, "keys", "revoke", "0" * 16)
    assert (ran.exit_code, "not known" in ran.stderr) == (1, True)


def test_a_quota_is_set_shown_and_taken_back(data: Path) -> None:
    shown = shopreel(data, "tenants", "set", "shop", "--queued-jobs", "5", "--stored-bytes", "9")
    assert "queued jobs 5, stored bytes 9" in shown.stdout
    assert table(data).get("shop").quota == Quota(queued_jobs=5, stored_bytes=9)
    shopreel(data, "tenants", "set", "shop", "--default")
    (listed,) = json.loads(shopreel(data, "tenants", "list", "--json").stdout)
    assert (listed["name"], listed["quota"]) == ("shop", None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("keys", "create", "a/b"), 1, "tenant's name"),
        (("keys", "create", "shop", "--label", "x" * 201), 1, "200 characters"),
        (("keys", "list", "nobody"), 1, "no tenant 'nobody'"),
        (("tenants", "set", "shop"), 2, "one limit at least"),
        (("tenants", "set", "shop", "--default", "--queued-jobs", "1"), 2, "one limit at least"),
    ],
)
def test_what_cannot_be_is_said(data: Path, words: tuple[str, ...], code: int, said: str) -> None:
    ran = shopreel(data, *words)
    assert (ran.exit_code, said in ran.stderr, ran.stdout) == (code, True, "")


def test_a_folder_without_a_job_table_gets_none(tmp_path: Path) -> None:
    ran = shopreel(tmp_path / "typo", "keys", "create", "shop")
    assert (ran.exit_code, "no job table" in ran.stderr) == (1, True)
    assert not (tmp_path / "typo").exists()


def test_the_configured_table_is_used(tmp_path: Path) -> None:
    document = yaml.safe_load(LOCAL_CONFIG.read_text())
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    document["applications"][0]["args"]["job_store"] = {"url": url}
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(document))
    ran = shopreel(tmp_path, "keys", "create", "shop", "--config", str(config))
    assert SqlTenants(Database(url)).authenticate(ran.stdout.strip()).name == "shop"
