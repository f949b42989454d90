"""Which tenant a request comes from: API keys in `Authorization: Bearer`.

`authenticator` makes the FastAPI dependency, `Annotated[Tenant, Depends(authenticator(...))]`.
The Tenant that it gives always has a quota: its own, or the server's default.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable
from dataclasses import replace
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from serve.edge.rate import FailureRate, RequestRate
from serve.errors import AUTHENTICATION, CHALLENGE, ApiError
from storage.errors import StoreUnavailable, UnknownKey
from storage.tenants import Quota, SqlTenants, Tenant

DEFAULT_TENANT = "default"
"""Everybody, where keys are off."""

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="reel_<id>_<secret>",
    description="A key that `shopreel keys create TENANT` has printed.",
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


class AuthConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        True, description="false: everybody is the tenant `default`; only on loopback"
    )
    cache_s: float = Field(5.0, ge=0)  # so long a revoked key may live on
    failures_per_minute: int = Field(30, ge=1)  # wrong keys, per client address and API replica


class Authenticator(Protocol):
    """Itself is the dependency."""

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Tenant]: ...

    async def still_knows(self, request: Request) -> bool:
        """Whether the key of a request that it let in holds still, for those that last."""
        ...


def authenticator(config: AuthConfig, quota: Quota, tenants: SqlTenants) -> Authenticator:
    """`quota` is that of tenants who have none of their own."""
    return KeyHolders(config, quota, tenants) if config.enabled else Everybody(quota)


class Everybody:
    """Keys are off: one tenant, whatever header comes (openai's client always sends one)."""

    def __init__(self, quota: Quota) -> None:
        self._tenant, self._quota = Tenant(DEFAULT_TENANT, quota, created_at=0.0), quota
        self._rate = RequestRate()

    async def __call__(self, request: Request) -> Tenant:
        return _counted(self._rate, request, self._tenant, self._quota)

    async def still_knows(self, request: Request) -> bool:
        return True


class KeyHolders:
    """The holder of the key that comes with a request; raises ApiError 401 and 429."""

    def __init__(self, config: AuthConfig, quota: Quota, tenants: SqlTenants) -> None:
        self._default, self._tenants = quota, tenants
        self._rate, self._failures = RequestRate(), FailureRate(config.failures_per_minute)

    async def __call__(self, request: Request, credentials: Credentials) -> Tenant:
        if "authorization" not in request.headers:
            raise _refusal("missing_api_key", "send your API key as `Authorization: Bearer KEY`")
        if credentials is None:
            raise _refusal("invalid_api_key", "not of the form `Authorization: Bearer KEY`")
        key = credentials.credentials
        tenant = self._tenants.recall(key) or await self._look_up(key, _network(request))
        return _counted(self._rate, request, tenant, tenant.quota or self._default)

    async def still_knows(self, request: Request) -> bool:
        _, _, key = request.headers["authorization"].partition(" ")
        try:
            await asyncio.to_thread(self._tenants.authenticate, key.strip())
        except UnknownKey:
            return False
        except StoreUnavailable:  # not known now; a stream outlives a table that is away
            return True
        return True

    async def _look_up(self, key: str, address: str) -> Tenant:
        # Looked up in any case: behind a gateway, whoever guesses has everybody's address.
        try:
            return await asyncio.to_thread(self._tenants.authenticate, key)
        except UnknownKey:
            self._failures.check(address)
            self._failures.count(address)
            raise


def _counted(rate: RequestRate, request: Request, tenant: Tenant, quota: Quota) -> Tenant:
    if quota.requests_per_second is not None:
        rate.count(request, tenant.name, quota.requests_per_second)
    return replace(tenant, quota=quota)


def _refusal(code: str, message: str) -> ApiError:
    return ApiError(401, AUTHENTICATION, code, message, headers=CHALLENGE)


def _network(request: Request) -> str:
    """The client's address; of IPv6 the /64, all of which one client has."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a socket without addresses
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False))
