"""Who is let in, how often, and what those read who are not: through a FastAPI application."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Response
from fastapi.testclient import TestClient

from serve.edge.auth import AuthConfig, authenticator
from serve.edge.rate import RateLimitHeaders
from serve.errors import ANSWERED, as_api_error, respond
from storage.errors import (
    FileNotFound,
    IllegalTransition,
    JobNotFound,
    QueueFull,
    QuotaExceeded,
    TenantNotFound,
)
from storage.sql.database import Database
from storage.tenants import Quota, SqlTenants, Tenant
from tests.sample_jobs import Clock

DEFAULT = Quota(queued_jobs=7)


@pytest.fixture
def tenants(tmp_path: Path, clock: Clock) -> Iterator[SqlTenants]:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    tenants = SqlTenants(database, clock, cache_s=5.0)
    tenants.put("shop", None)
    yield tenants
    database.close()


def client(tenants: SqlTenants, quota: Quota = DEFAULT, **auth: Any) -> TestClient:
    app = FastAPI()
    app.add_middleware(RateLimitHeaders)
    for error in ANSWERED:
        app.add_exception_handler(error, respond)
    caller_of = authenticator(AuthConfig(**auth), quota, tenants)

    @app.get("/me")
    async def me(caller: Annotated[Tenant, Depends(caller_of)]) -> dict[str, Any]:
        return {"name": caller.name, "quota": caller.quota}

    @app.get("/bytes")
    async def content(caller: Annotated[Tenant, Depends(caller_of)]) -> Response:
        return Response(b"mp4")

    @app.get("/missing")
    async def missing(caller: Annotated[Tenant, Depends(caller_of)]) -> None:
        raise JobNotFound("v1")

    @app.get("/healthz")
    async def healthz() -> None: ...

    return TestClient(app)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": ""}, "invalid_api_key"),
        ({"Authorization": "Bearer"}, "invalid_api_key"),
        ({"Authorization": "Basic c2hvcDpzaG9w"}, "invalid_api_key"),
        (bearer("sk-1234"), "invalid_api_key"),
        (bearer("reel_0123456789abcdef_" + "A" * 43), "invalid_api_key"),
        ({"Authorization": "Bearer schl\xfcssel".encode("latin-1")}, "invalid_api_key"),
    ],
)
def test_without_a_good_key_nobody_comes_in(
    tenants: SqlTenants, headers: dict[str, str], code: str
) -> None:
    answer = client(tenants).get("/me", headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.json()["error"]["code"] == code
    assert client(tenants).get("/healthz").status_code == 200


def test_a_key_brings_its_tenant_and_a_quota(tenants: SqlTenants) -> None:
    tenants.put("mall", Quota(stored_bytes=5))
    mine, theirs = tenants.issue_key("shop")[1], tenants.issue_key("mall")[1]
    api = client(tenants)
    assert api.get("/me", headers=bearer(mine)).json() == {
        "name": "shop",
        "quota": DEFAULT.model_dump(),
    }
    answer = api.get("/me", headers={"authorization": f"bearer {theirs}"}).json()
    assert answer == {"name": "mall", "quota": Quota(stored_bytes=5).model_dump()}


def test_a_revoked_key_is_refused_once_the_cache_is_old(tenants: SqlTenants, clock: Clock) -> None:
    issued, key = tenants.issue_key("shop")
    api = client(tenants)
    assert api.get("/me", headers=bearer(key)).status_code == 200
    tenants.revoke(issued.id)
    clock.now += 5
    assert api.get("/me", headers=bearer(key)).status_code == 401


def test_with_keys_off_everybody_is_the_default_tenant(tenants: SqlTenants) -> None:
    api = client(tenants, enabled=False)
    for headers in ({}, bearer("not-needed"), {"Authorization": "Basic x"}):
        answer = api.get("/me", headers=headers)
        assert answer.json() == {"name": "default", "quota": DEFAULT.model_dump()}


@pytest.mark.parametrize("enabled", [True, False])
def test_openapi_tells_whether_and_how_to_authenticate(tenants: SqlTenants, enabled: bool) -> None:
    described = client(tenants, enabled=enabled).get("/openapi.json").json()
    schemes = described.get("components", {}).get("securitySchemes", {})
    assert [(s["type"], s["scheme"]) for s in schemes.values()] == [("http", "bearer")] * enabled
    assert described["paths"]["/me"]["get"].get("security", []) == [{"ApiKey": []}] * enabled
    assert "security" not in described["paths"]["/healthz"]["get"]


def test_more_requests_a_second_than_allowed_are_told_when_to_come_back(
    tenants: SqlTenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    tenants.put("mall", Quota(requests_per_second=1))
    mine, theirs = tenants.issue_key("shop")[1], tenants.issue_key("mall")[1]
    api = client(tenants, Quota(requests_per_second=3))
    paths = ("/me", "/bytes", "/missing", "/me")
    answers = [api.get(path, headers=bearer(mine)) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 429]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"requests";q=3;w=1'}
    left = [answer.headers["RateLimit"] for answer in answers]
    assert left == [f'"requests";r={r};t=1' for r in (2, 1, 0, 0)]
    assert answers[-1].headers["Retry-After"] == "1"
    error = answers[-1].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert api.get("/me", headers=bearer(theirs)).status_code == 200  # a window of its own
    monkeypatch.setattr(time, "time", lambda: now + 1.05)
    assert api.get("/me", headers=bearer(mine)).status_code == 200


def test_without_a_limit_no_rate_is_told(tenants: SqlTenants) -> None:
    answer = client(tenants, enabled=False).get("/me")
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_who_guesses_keys_is_sent_away_and_others_at_his_address_are_not(
    tenants: SqlTenants, clock: Clock
) -> None:
    key, unused = tenants.issue_key("shop")[1], tenants.issue_key("shop")[1]
    api = client(tenants, failures_per_minute=3)
    assert api.get("/me", headers=bearer(key)).status_code == 200
    guesses = [api.get("/me", headers=bearer(f"guess-{n}")) for n in range(5)]
    assert [guess.status_code for guess in guesses] == [401, 401, 401, 429, 429]
    assert 1 <= int(guesses[-1].headers["Retry-After"]) <= 60
    assert api.get("/me", headers=bearer(unused)).status_code == 200
    clock.now += 60  # not in the cache any more
    assert api.get("/me", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after_s"),
    [
        (QueueFull(5), 503, "queue_full", 5),
        (QuotaExceeded("creates_per_minute", 2, 41), 429, "quota_exceeded", 41),
        (IllegalTransition("v", "failed", "rated"), 409, "illegal_state", None),
        (FileNotFound("f"), 404, "file_not_found", None),
        (TenantNotFound("t"), 401, "invalid_api_key", None),
    ],
)
def test_refusals_of_the_stores_have_their_answers(
    error: Exception, status: int, code: str, retry_after_s: int | None
) -> None:
    answer = as_api_error(error)
    assert (answer.status, answer.code, answer.retry_after_s) == (status, code, retry_after_s)
