"""How many requests a second: per tenant, counted at each API replica.

A limit on all replicas together would cost a query per request; the quotas that cost GPU time
(storage.tenants.Quota) are counted in the database and hold for all.
"""

import math
import time

from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import RATE_LIMIT, ApiError

_HEADERS = "rate_limit_headers"
_WINDOW_S = 1
_MINUTE_S = 60


class RateLimitHeaders:
    """Put what `RequestRate` counted into the answer, whatever that is: a video, a 404, a 429."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers: dict[str, str] = {}
        scope[_HEADERS] = headers

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        return await self._app(scope, receive, send_with_rate)


class RequestRate:
    """A moving window of one second per tenant."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, request: Request, tenant: str, per_second: int) -> None:
        """Raises ApiError 429. Headers as in draft-ietf-httpapi-ratelimit-headers-11."""
        limit = RateLimitItemPerSecond(per_second)
        passed = self._limiter.hit(limit, tenant)
        stats = self._limiter.get_window_stats(limit, tenant)
        reset_s = max(0, math.ceil(stats.reset_time - time.time()))
        request.scope[_HEADERS].update(
            {
                "RateLimit-Policy": f'"requests";q={per_second};w={_WINDOW_S}',
                "RateLimit": f'"requests";r={max(0, stats.remaining)};t={reset_s}',
            }
        )
        if not passed:
            raise ApiError(
                429,
                RATE_LIMIT,
                "rate_limit_exceeded",
                f"more than {per_second} requests a second; slow down",
                retry_after_s=max(1, reset_s),
            )


class FailureRate:
    """Wrong keys per client address and minute. Behind a gateway all clients have one address, so
    ask only about those who are not known to be good."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        # Its entries go after a minute; the moving window's would stay, one per address.
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def check(self, address: str) -> None:
        """Raises ApiError 429."""
        if not self._limiter.test(self._limit, address):
            reset = self._limiter.get_window_stats(self._limit, address).reset_time
            raise ApiError(
                429,
                RATE_LIMIT,
                "too_many_failed_authentications",
                "too many wrong API keys came from your address",
                retry_after_s=min(_MINUTE_S, max(1, math.ceil(reset - time.time()))),
            )

    def count(self, address: str) -> None:
        self._limiter.hit(self._limit, address)
