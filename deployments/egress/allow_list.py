"""Which URLs and addresses may be contacted: the operator's host patterns, and the addresses of the
public internet. Pure, no look-up is made here."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated

import httpx2
from pydantic import AfterValidator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_BYTES = 2048
"""In UTF-8: what an index of Postgres can hold beside a tenant's name (2704)."""

_DEFAULT_PORTS = {"https": 443, "http": 80}
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_ENDS_IN_A_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
"""What getaddrinfo takes for an IPv4 address in decimal, octal, hexadecimal or with parts left out
(WHATWG URL, "ends in a number checker")."""

_NAT64 = IPv6Network("64:ff9b::/96")
_IPV6_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, global ones among them
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo and other carriers of an IPv4 address
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
"""Beside those that ipaddress calls not global, which in Python 3.11 are too few."""


class UrlNotUsable(ValueError):
    """The message names the rule that the URL breaks."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host is on the list. What it resolves to is still to be judged."""

    url: httpx2.URL
    host: str  # a name in IDNA's ASCII form, or an address without brackets
    port: int

    @property
    def netloc(self) -> str:
        """The Host header: no port where it is the scheme's own."""
        return self.url.netloc.decode("ascii")

    def at(self, address: Address) -> httpx2.URL:
        """The URL with the host's address in the place of its name."""
        return self.url.copy_with(host=str(address), fragment=None)


def find_target(text: str, hosts: Collection[str], schemes: Collection[str]) -> Target:
    """`hosts` are HostPatterns. Raises UrlNotUsable."""
    if len(text.encode(errors="replace")) > MAX_URL_BYTES:
        raise UrlNotUsable(f"has more than {MAX_URL_BYTES} bytes")
    try:
        url = httpx2.URL(text)
        host = _one_spelling(url.raw_host.decode("ascii"))
    except (httpx2.InvalidURL, ValueError):
        raise UrlNotUsable("is not a URL with a host name in its usual spelling") from None
    if url.scheme not in schemes:
        raise UrlNotUsable(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if url.userinfo:
        raise UrlNotUsable("must not hold a user name or password")
    usual = _DEFAULT_PORTS[url.scheme]
    port = usual if url.port is None else url.port
    spellings = {_netloc(host, port)} | ({_netloc(host)} if port == usual else set())
    if not any(_fits(spelling, pattern) for spelling in spellings for pattern in hosts):
        raise UrlNotUsable("has a host or port that this server does not contact")
    return Target(url, host, port)


def is_public(address: Address) -> bool:
    """Whether it is a unicast address of the public internet, behind NAT64 and IPv4-mapped too."""
    address = unwrapped(address)
    return (
        address.is_global
        and not address.is_multicast
        and (address.version == 4 or address in _IPV6_UNICAST)
        and not any(address in network for network in _NOT_PUBLIC)
    )


def unwrapped(address: Address) -> Address:
    """The IPv4 address that packets to an IPv4-mapped or NAT64 one (RFC 4291, 6052) end up at."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def literal_address(pattern: str) -> Address | None:
    """The address that a HostPattern is, if it is one."""
    host = httpx2.URL(f"//{pattern.removeprefix('*.')}").raw_host.decode("ascii")
    try:
        return ip_address(host)
    except ValueError:
        return None


def _one_spelling(host: str) -> str:
    """Raises ValueError for what is neither a host name nor an address in its usual spelling."""
    try:
        address = ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host) or _ENDS_IN_A_NUMBER.search(host):
            raise ValueError(f"{host!r} is no host name") from None
        return host
    if "%" in host:
        raise ValueError("an address with a zone means another host on every machine")
    return str(address)


def _netloc(host: str, port: int | None = None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _fits(netloc: str, pattern: str) -> bool:
    return netloc.endswith(pattern[1:]) if pattern.startswith("*.") else netloc == pattern


def _canonical(pattern: str) -> str:
    wildcard, name = ("*.", pattern[2:]) if pattern.startswith("*.") else ("", pattern)
    try:
        url = httpx2.URL(f"//{name}")
        host = _one_spelling(url.raw_host.decode("ascii"))
    except (httpx2.InvalidURL, ValueError) as e:
        raise ValueError(f"{pattern!r}: {e}") from None
    if url.userinfo or url.raw_path not in (b"", b"/") or url.fragment:
        raise ValueError(f"{pattern!r} must be a host, or a host and a port")
    netloc = _netloc(host, url.port)
    if wildcard and ("." not in host or literal_address(netloc) is not None):
        raise ValueError(f"{pattern!r}: a wildcard stands for sub-domains of a domain")
    return wildcard + netloc


HostPattern = Annotated[str, AfterValidator(_canonical)]
"""`img.example.com` or, for every name below a domain, `*.example.com`, at the scheme's own port;
`img.example.com:8443` at that port only."""
