"""Room for requests that stay: event streams and `Prefer: wait`. Each holds a place of the API
replica for minutes, so together they must leave places for the others, and a tenant for tenants."""

from collections import Counter

from serve.errors import RATE_LIMIT, SERVER, ApiError

_COME_BACK_S = 5


class Lingering:
    def __init__(self, most: int, most_per_tenant: int):
        self._most, self._most_per_tenant = most, most_per_tenant
        self._staying = Counter[str]()

    def enter(self, tenant: str) -> None:
        """Takes a place, to be given back by `leave`. Raises ApiError 429 and 503."""
        if self._staying[tenant] >= self._most_per_tenant:
            message = f"{self._most_per_tenant} of your requests wait or listen here already"
            raise ApiError(
                429, RATE_LIMIT, "too_many_listeners", message, retry_after_s=_COME_BACK_S
            )
        if self._staying.total() >= self._most:
            message = "too many requests wait or listen here; poll instead, or try again"
            raise ApiError(503, SERVER, "overloaded", message, retry_after_s=_COME_BACK_S)
        self._staying[tenant] += 1

    def leave(self, tenant: str) -> None:
        self._staying[tenant] -= 1
        if not self._staying[tenant]:
            del self._staying[tenant]
