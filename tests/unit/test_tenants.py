"""Tenants, quotas and API keys, on a real database file."""

import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from storage import tenants as module
from storage.errors import TenantNotFound, UnknownKey
from storage.job_contract import Caps
from storage.key_cache import KeyCache
from storage.keys import input_key
from storage.sql.database import Database
from storage.tenants import Quota, SqlTenants
from tests.sample_jobs import Clock


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    yield database
    database.close()


@pytest.fixture
def tenants(database: Database, clock: Clock) -> SqlTenants:
    return SqlTenants(database, clock, cache_s=5.0)


def test_a_key_names_its_tenant_and_nobody_elses(tenants: SqlTenants) -> None:
    shop, mall = tenants.put("shop", None), tenants.put("mall", Quota(queued_jobs=3))
    (issued, key), (_, other) = tenants.issue_key("shop", "ci"), tenants.issue_key("mall")
    assert key.startswith(f"reel_{issued.id}_")
    assert (tenants.authenticate(key), tenants.authenticate(other)) == (shop, mall)
    assert (issued.tenant, issued.label, issued.created_at) == ("shop", "ci", 1000.0)


def test_no_file_of_the_database_holds_a_key(tenants: SqlTenants, tmp_path: Path) -> None:
    tenants.put("shop", None)
    issued, key = tenants.issue_key("shop")
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    secret = key.removeprefix(f"reel_{issued.id}_")
    assert len(secret) == 43  # 256 bits in base64
    assert issued.id.encode() in stored
    assert secret.encode() not in stored
    assert secret not in repr(tenants.keys())


@pytest.mark.parametrize("change", ["id", "secret", "empty", "shape", "no ASCII"])
def test_what_is_no_key_is_compared_all_the_same(
    tenants: SqlTenants, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    tenants.put("shop", None)
    issued, key = tenants.issue_key("shop")
    wrong = {
        "id": key.replace(issued.id, "0" * 16),
        "secret": key[:-1] + ("A" if key[-1] != "A" else "B"),
        "empty": "",
        "shape": "sk-1234",
        "no ASCII": "schlüssel",
    }[change]
    compared = []

    def compare(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(module, "hmac", type("hmac", (), {"compare_digest": compare}))
    with pytest.raises(UnknownKey):
        tenants.authenticate(wrong)
    assert compared == [(64, 64)]


def test_a_revoked_key_lives_as_long_as_the_cache_and_no_longer(
    tenants: SqlTenants, database: Database, clock: Clock
) -> None:
    tenants.put("shop", None)
    issued, key = tenants.issue_key("shop")
    tenants.authenticate(key)
    SqlTenants(database, clock).revoke(issued.id)  # in another process, that is
    clock.now += 4.9
    assert tenants.authenticate(key).name == "shop"
    clock.now += 0.1
    with pytest.raises(UnknownKey):
        tenants.authenticate(key)
    assert tenants.recall(key) is None
    assert [k.revoked_at for k in tenants.keys("shop")] == [1000.0]
    tenants.revoke(issued.id)
    assert [k.revoked_at for k in tenants.keys("shop")] == [1000.0]


def test_a_removed_tenants_keys_do_not_come_back_with_its_name(
    tenants: SqlTenants, clock: Clock
) -> None:
    tenants.put("shop", None)
    _, key = tenants.issue_key("shop")
    tenants.remove("shop")
    with pytest.raises(UnknownKey):
        tenants.authenticate(key)
    tenants.put("shop", None)
    with pytest.raises(UnknownKey):
        tenants.authenticate(key)


def test_quotas_come_back_as_they_were_put(tenants: SqlTenants) -> None:
    quota = Quota(
        queued_jobs=0,
        unfinished_jobs=2,
        creates_per_minute=3,
        requests_per_second=4,
        stored_bytes=1 << 40,
    )
    assert tenants.put("b", quota).quota == quota
    tenants.put("a", Quota())
    assert [(t.name, t.quota) for t in tenants.list_tenants()] == [("a", Quota()), ("b", quota)]
    tenants.put("b", None)
    assert tenants.get("b").quota is None
    assert quota.caps(9) == Caps(9, 0, 2, 3)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ä", "a" * 129, "a\n", "a" * 128, "_-9Z"])
def test_a_tenants_name_is_usable_in_object_keys(tenants: SqlTenants, name: str) -> None:
    try:
        input_key(name, "0")
    except ValueError:
        with pytest.raises(ValueError, match="tenant's name"):
            tenants.put(name, None)
    else:
        assert tenants.put(name, None) == tenants.get(name)


def test_what_is_not_there_is_said(tenants: SqlTenants) -> None:
    for call in (tenants.get, tenants.remove, tenants.issue_key, tenants.keys):
        with pytest.raises(TenantNotFound, match="nobody"):
            call("nobody")
    with pytest.raises(UnknownKey):
        tenants.revoke("0" * 16)


@pytest.mark.parametrize("quota", [{"queued_jobs": -1}, {"requests_per_second": 0}, {"jobs": 1}])
def test_a_quota_that_cannot_be_is_refused(quota: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Quota.model_validate(quota)


def test_the_cache_is_bounded_and_keeps_those_used_last(clock: Clock) -> None:
    cache: KeyCache[str] = KeyCache(clock, fresh_s=5, most=3)
    for name in ("a", "b", "c"):
        cache.put(name, name)
    assert cache.fresh("a") == "a"
    cache.put("d", "d")
    assert (len(cache), cache.fresh("b"), cache.fresh("a")) == (3, None, "a")
    clock.now -= 60  # a clock that was set back makes nothing fresh for longer
    assert (cache.fresh("a"), len(cache)) == (None, 3)


def test_wrong_keys_fill_no_cache(tenants: SqlTenants) -> None:
    for number in range(20):
        with pytest.raises(UnknownKey):
            tenants.authenticate(f"reel_{number:016x}_{'A' * 43}")
    assert len(tenants._known) == 0
