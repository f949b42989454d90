"""HTTP to hosts that tenants name, without letting them reach what only we can reach (SSRF).

EgressError              `code` is for the caller, `reason` for the log
├── UrlNotAllowed        its form, host or port is not what the operator allows
├── Unreachable          no connection: no such name, nobody answers, not the host's certificate
│   └── AddressRefused   the name leads elsewhere than to the public internet; worded as its parent,
│                        so that nobody can map our network by asking
├── FetchFailed          connected, but no usable answer
└── TooLarge             more bytes than the caller takes

The rules: allow-listed hosts only, one look-up, every address of it must be public, the connection
goes to one of these (so a second look-up with another answer, DNS rebinding, cannot happen), the
certificate must be the host's, no redirects, no proxies, no compression, caps on bytes and time.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.egress.allow_list import (
    Address,
    HostPattern,
    Network,
    Target,
    UrlNotUsable,
    find_target,
    is_public,
    literal_address,
    unwrapped,
)

_TEXT_BYTES, _TEXT_S = 400, 2.0
"""Of an answer to a POST: enough to see in the table what went wrong."""
_LOOK_UPS = 8
_WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)

Resolver = Callable[[str, int], Sequence[str]]
"""Addresses of a host. Blocks; raises OSError when there are none."""


class EgressError(Exception):
    """`retryable` says whether the same request may succeed later."""

    code = "fetch_blocked"
    retryable = False

    @property
    def reason(self) -> str:
        return str(self)


class UrlNotAllowed(EgressError):
    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule

    def __str__(self) -> str:
        return f"the URL {self.rule}"


class Unreachable(EgressError):
    retryable = True

    def __init__(self, host: str, why: str) -> None:
        super().__init__(host, why)
        self.host, self.why = host, why

    def __str__(self) -> str:
        return f"{self.host} cannot be reached at a public address"

    @property
    def reason(self) -> str:
        return f"{self.host} cannot be reached: {self.why}"


class AddressRefused(Unreachable):
    retryable = False


class FetchFailed(EgressError):
    code = "fetch_failed"

    def __init__(self, host: str, what: str, retryable: bool) -> None:
        super().__init__(host, what, retryable)
        self.host, self.what, self.retryable = host, what, retryable

    def __str__(self) -> str:
        return f"{self.host} {self.what}"


class TooLarge(EgressError):
    code = "image_too_large"

    def __init__(self, host: str, max_bytes: int) -> None:
        super().__init__(host, max_bytes)
        self.host, self.max_bytes = host, max_bytes

    def __str__(self) -> str:
        return f"what {self.host} sends is larger than {self.max_bytes} bytes"


class EgressConfig(BaseModel):
    """Whom this server contacts on behalf of its callers; nobody, unless it is listed here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_hosts: tuple[HostPattern, ...] = Field((), description="for image_url; none: it is off")
    webhook_hosts: tuple[HostPattern, ...] = Field((), description="none: webhooks are off")
    networks: tuple[Network, ...] = Field(
        (),
        description="internal addresses that listed hosts may have, say 10.8.0.0/16; webhooks to"
        " these may be http",
    )
    ca_file: Path | None = Field(None, description="PEM; trusted beside the public authorities")
    connect_timeout_s: float = Field(5.0, gt=0, description="for the look-up, and per address")
    total_timeout_s: float = Field(20.0, gt=0, description="for one image")

    @model_validator(mode="after")
    def _literal_addresses_are_internal(self) -> "EgressConfig":
        for pattern in (*self.image_hosts, *self.webhook_hosts):
            address = literal_address(pattern)
            if address is not None and not self.lists(address):
                raise ValueError(f"{pattern} is an address: list a host name, or its network too")
        return self

    def lists(self, address: Address) -> bool:
        return any(unwrapped(address) in network for network in self.networks)

    @property
    def webhook_schemes(self) -> tuple[str, ...]:
        return ("https", "http") if self.networks else ("https",)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    text: str  # the beginning of the body, "" for a 2xx


def look_up(host: str, port: int) -> list[str]:
    """The addresses of `host` as this machine resolves it. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Egress:
    """One per process. Keeps no connection: one made for a host must not serve another's name."""

    def __init__(self, config: EgressConfig, resolve: Resolver = look_up) -> None:
        self._config, self._resolve = config, resolve
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # below, it writes whole URLs down
        self._tls = httpx2.create_ssl_context(trust_env=False)
        if config.ca_file is not None:
            self._tls.load_verify_locations(config.ca_file)
        # Of its own: a slow name server must not hold up those who wait for another thread.
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="look-up")

    async def fetch_image(
        self, url: str, max_bytes: int, take: Callable[[int], object] = lambda _: None
    ) -> bytes:
        """`take` is told how many bytes more have come, and may raise to refuse them. Raises
        EgressError."""
        target = _target(url, self._config.image_hosts, ("https",))
        headers = {"Accept": "image/*"}
        limit_s = self._config.total_timeout_s
        async with _in_time(target, limit_s), self._request("GET", target, headers) as response:
            _require_image(target, response)
            if int(response.headers.get("content-length", 0)) > max_bytes:
                raise TooLarge(target.host, max_bytes)
            body = bytearray()
            async for chunk in response.aiter_raw():
                take(len(chunk))
                body += chunk
                if len(body) > max_bytes:
                    raise TooLarge(target.host, max_bytes)
        return bytes(body)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Response:
        """To a webhook host; any answer is a Response, a redirect too. Raises EgressError."""
        target = _target(url, self._config.webhook_hosts, self._config.webhook_schemes)
        async with (
            _in_time(target, timeout_s),
            self._request("POST", target, headers, body) as response,
        ):
            text = "" if response.is_success else await _beginning(response)
            return Response(response.status_code, response.headers, text)

    @asynccontextmanager
    async def _request(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """From the first address of the host that answers. Raises Unreachable, FetchFailed."""
        addresses = await self._addresses(target)
        fixed = {"Host": target.netloc, "Accept-Encoding": "identity", "User-Agent": "shopreel"}
        async with httpx2.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=self._config.connect_timeout_s),
        ) as client:
            for address in addresses:
                request = client.build_request(
                    method,
                    target.at(address),
                    headers={**headers, **fixed},
                    content=body,
                    extensions={"sni_hostname": target.host},  # the certificate must be for it
                )
                try:
                    response = await client.send(request, stream=True)
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as e:
                    why = str(e) or type(e).__name__
                    continue
                except httpx2.HTTPError as e:
                    raise _broken_off(target) from e
                try:
                    yield response
                except httpx2.HTTPError as e:
                    raise _broken_off(target) from e
                finally:
                    await response.aclose()
                return
        raise Unreachable(target.host, why)

    async def _addresses(self, target: Target) -> list[Address]:
        """All of the host's, from its only look-up. Raises Unreachable."""
        look_up = asyncio.get_running_loop().run_in_executor(
            self._threads, self._resolve, target.host, target.port
        )
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                found = [ip_address(address) for address in await look_up]
        except (OSError, UnicodeError) as e:  # TimeoutError is an OSError
            raise Unreachable(target.host, "no look-up of its name succeeds") from e
        if not found:
            raise Unreachable(target.host, "its name has no address")
        public_will_do = target.url.scheme == "https"
        for address in found:
            if not self._config.lists(address) and not (public_will_do and is_public(address)):
                raise AddressRefused(target.host, "its name leads to an address not allowed")
        return found


def _target(url: str, hosts: Sequence[str], schemes: Sequence[str]) -> Target:
    try:
        return find_target(url, hosts, schemes)
    except UrlNotUsable as e:
        raise UrlNotAllowed(str(e)) from None


@asynccontextmanager
async def _in_time(target: Target, limit_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise FetchFailed(target.host, f"took longer than {limit_s:g} s", True) from None


def _require_image(target: Target, response: httpx2.Response) -> None:
    """Raises FetchFailed."""
    status = response.status_code
    if status != 200:
        redirects = ", and redirects are not followed" if response.is_redirect else ""
        raise FetchFailed(target.host, f"answers {status}{redirects}", status in _WORTH_A_RETRY)
    media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if not media_type.startswith("image/") and media_type != "application/octet-stream":
        raise FetchFailed(target.host, "answers with something that is no image", False)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        # A few bytes of it may stand for gigabytes, and nobody asked for it.
        raise FetchFailed(target.host, "answers with compressed content", False)


async def _beginning(response: httpx2.Response) -> str:
    """Printable characters only: Postgres takes no NUL, and a log line should stay one."""
    body = bytearray()
    with suppress(TimeoutError, httpx2.HTTPError):  # the status counts, however the rest comes
        async with asyncio.timeout(_TEXT_S):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) >= _TEXT_BYTES:
                    break
    text = body[:_TEXT_BYTES].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text)


def _broken_off(target: Target) -> FetchFailed:
    return FetchFailed(target.host, "broke off, or does not speak HTTP", True)
