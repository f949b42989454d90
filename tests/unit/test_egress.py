"""Whom the server contacts for its callers, and that nothing leads it elsewhere."""

import asyncio
import logging
import pickle
import socket
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.egress.allow_list import is_public
from deployments.egress.client import (
    AddressRefused,
    Egress,
    EgressConfig,
    EgressError,
    FetchFailed,
    Resolver,
    Response,
    TooLarge,
    Unreachable,
    UrlNotAllowed,
)
from tests.receivers import Answer, Received, TestAuthority, plain, receiver

HOST = "images.example.com"
PHOTO = b"\x89PNG the photo"
IMAGE = plain("200 OK", "Content-Type: image/png", body=PHOTO)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("ca"))


def answers(*addresses: str) -> Resolver:
    return lambda host, port: addresses


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up")


def fetch(client: Egress, url: str, max_bytes: int = 1000) -> bytes:
    return asyncio.run(client.fetch_image(url, max_bytes))


def fetch_from(
    answer: Answer,
    authority: TestAuthority,
    *,
    name: str = HOST,
    resolve: Resolver | None = None,
    max_bytes: int = 1000,
    **config: Any,
) -> tuple[bytes, list[Received]]:
    """Fetch from a TLS server on loopback that is `name`, asking for HOST."""

    async def go() -> tuple[bytes, list[Received]]:
        async with receiver(answer, authority.server(name)) as (port, got):
            settings = {"networks": ("127.0.0.1/32",), "ca_file": authority.file} | config
            known = EgressConfig(image_hosts=(f"{HOST}:{port}",), **settings)
            client = Egress(known, resolve or answers("127.0.0.1"))
            return await client.fetch_image(f"https://{HOST}:{port}/a/b?c=d", max_bytes), got

    return asyncio.run(go())


# The URL.


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/",
        f"ftp://{HOST}/",
        f"file:///{HOST}",
        f"//{HOST}/",
        HOST,
        "",
        f"https://user:secret@{HOST}/",
        f"https://{HOST}:8443/",
        f"https://{HOST}:80/",
        f"https://{HOST}:99999/",
        f"https://{HOST}:x/",
        f"https://{HOST}./",
        f"https://{HOST}.evil.example/",
        f"https://evil.example/{HOST}",
        f"https://evil.example#@{HOST}/",
        f"https://{HOST}@evil.example/",
        f"https://{HOST}\\@evil.example/",
        f"https://{HOST}%2eevil.example/",
        f"https://{HOST}\n/",
        "https://images。example.com.evil.example/",
        "https://cdn.example.org/",  # the wildcard is for what is below it
        "https://.cdn.example.org/",
        "https://a..cdn.example.org/",
        "https://a%2f.cdn.example.org/",
        "https://evilcdn.example.org/",
        "https://\ud800.cdn.example.org/",
        f"https://{HOST}/{'a' * 3000}",
    ],
)
def test_a_url_that_is_not_plainly_one_of_an_allowed_host_is_refused(url: str) -> None:
    config = EgressConfig(image_hosts=(HOST, "*.cdn.example.org"))
    with pytest.raises(UrlNotAllowed) as refused:
        fetch(Egress(config, never), url)
    assert refused.value.code == "fetch_blocked"
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "127。0。0。1",
        "１２７.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[::]",
        "8.8.8.8",
        "[2001:4860:4860::8888]",
    ],
)
def test_an_address_in_the_place_of_a_host_is_refused_however_it_is_spelt(host: str) -> None:
    config = EgressConfig(image_hosts=("*.example.com",), networks=("127.0.0.0/8", "::1/128"))
    with pytest.raises(UrlNotAllowed):
        fetch(Egress(config, never), f"https://{host}/")


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        (HOST, f"https://{HOST}/a.png"),
        (HOST, f"HTTPS://{HOST.upper()}:443/a.png"),
        ("Images.Example.com", f"https://{HOST}"),
        ("*.example.com", f"https://{HOST}/"),
        ("*.example.com", f"https://a.b.{HOST}/"),
        (f"{HOST}:8443", f"https://{HOST}:8443/"),
        ("*.example.com:8443", f"https://{HOST}:8443/"),
        ("bücher.example", "https://BÜCHER.example/"),
        ("*.bücher.example", "https://a.xn--bcher-kva.example/"),
    ],
)
def test_an_allowed_host_is_looked_up(pattern: str, url: str) -> None:
    client = Egress(EgressConfig(image_hosts=(pattern,)), answers("10.0.0.1"))
    with pytest.raises(AddressRefused):
        fetch(client, url)


def test_nothing_is_fetched_unless_a_host_is_allowed() -> None:
    with pytest.raises(UrlNotAllowed):
        fetch(Egress(EgressConfig(), never), f"https://{HOST}/")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "*.com",
        "a.*.example",
        "https://a.example",
        "a.example/x",
        "u@a.example",
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "8.8.8.8",
        "[::1]",
        "*.127.0.0.1",
    ],
)
def test_a_pattern_that_allows_too_much_or_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        EgressConfig(image_hosts=(pattern,))


def test_an_internal_address_may_be_listed_with_its_network() -> None:
    async def go() -> Response:
        async with receiver(plain("204 No Content")) as (port, _):
            hosts = (f"127.0.0.1:{port}",)
            config = EgressConfig(webhook_hosts=hosts, networks=("127.0.0.0/8",))
            return await Egress(config).post(f"http://127.0.0.1:{port}/", b"", {}, 5)

    assert asyncio.run(go()).status == 204


# Where its name leads.


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
@pytest.mark.parametrize("others", [(), ("93.184.216.34",)])
def test_a_host_with_any_address_that_is_not_public_is_refused(
    address: str, others: tuple[str, ...]
) -> None:
    client = Egress(EgressConfig(image_hosts=(HOST,)), answers(*others, address))
    with pytest.raises(AddressRefused) as refused:
        fetch(client, f"https://{HOST}/")
    assert address not in str(refused.value) + refused.value.reason


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "192.0.1.1"],
)
def test_public_addresses_are_told_from_others(address: str) -> None:
    assert is_public(ip_address(address))


def test_a_listed_network_lets_its_addresses_pass_mapped_ones_too() -> None:
    config = EgressConfig(networks=("10.0.0.0/8", "fd00::/8"))
    listed = ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1")
    assert all(config.lists(ip_address(address)) for address in listed)
    assert not any(config.lists(ip_address(a)) for a in ("11.0.0.1", "fe80::1", "::1"))


def test_refused_and_unreachable_read_the_same_to_the_caller(authority: TestAuthority) -> None:
    def no_such_name(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        hosts, url = (f"{HOST}:{port}",), f"https://{HOST}:{port}/"
        outside, inside = (
            EgressConfig(image_hosts=hosts),
            EgressConfig(image_hosts=hosts, networks=("127.0.0.1/32",)),
        )
        errors = []
        for client in (
            Egress(outside, answers("127.0.0.1")),
            Egress(outside, no_such_name),
            Egress(outside, answers()),
            Egress(inside, answers("127.0.0.1")),  # nobody listens there
        ):
            with pytest.raises(Unreachable) as refused:
                fetch(client, url)
            errors.append(refused.value)
    assert len({(str(error), error.code) for error in errors}) == 1
    assert len({error.reason for error in errors}) == 4
    assert [error.retryable for error in errors] == [False, True, True, True]


def test_a_slow_name_server_does_not_hold_a_caller_up() -> None:
    given_up, answered = threading.Event(), list[str]()

    def slow(host: str, port: int) -> list[str]:
        given_up.wait(60)
        answered.append("8.8.8.8")
        return answered

    async def go() -> None:
        client = Egress(EgressConfig(image_hosts=(HOST,), connect_timeout_s=0.1), slow)
        try:
            with pytest.raises(Unreachable):
                await client.fetch_image(f"https://{HOST}/", 1000)
            assert answered == []
        finally:
            given_up.set()

    asyncio.run(go())


def test_the_machines_own_resolver_is_used_and_its_answer_judged() -> None:
    with pytest.raises(AddressRefused):
        fetch(Egress(EgressConfig(image_hosts=("localhost",))), "https://localhost/")


# The connection.


def test_an_image_comes_from_the_pinned_address_under_the_hosts_own_name(
    authority: TestAuthority,
) -> None:
    image, (request,) = fetch_from(IMAGE, authority)
    assert image == PHOTO
    assert (request.method, request.path) == ("GET", "/a/b?c=d")
    assert request.headers["host"].split(":")[0] == HOST
    assert request.headers["accept-encoding"] == "identity"
    assert request.server_name == HOST


def test_no_log_line_holds_a_url(
    authority: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("httpx2").setLevel(logging.NOTSET)  # as it is in a process that starts
    caplog.set_level(logging.INFO)  # as Serve sets it
    fetch_from(IMAGE, authority)
    assert "/a/b" not in caplog.text


def test_a_name_that_leads_elsewhere_the_second_time_is_looked_up_once(
    authority: TestAuthority,
) -> None:
    looked_up: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

    image, _ = fetch_from(IMAGE, authority, resolve=rebinding)
    assert image == PHOTO
    assert looked_up == [HOST]


def test_the_next_address_is_tried_when_one_does_not_answer(authority: TestAuthority) -> None:
    image, _ = fetch_from(
        IMAGE,
        authority,
        resolve=answers("127.0.0.2", "127.0.0.1"),  # the server listens at the latter
        networks=("127.0.0.0/8",),
    )
    assert image == PHOTO


def test_a_certificate_of_another_host_or_authority_is_refused(
    authority: TestAuthority, tmp_path: Path
) -> None:
    with pytest.raises(Unreachable, match=HOST):
        fetch_from(IMAGE, authority, name="other.example.com")
    with pytest.raises(Unreachable):
        fetch_from(IMAGE, authority, ca_file=TestAuthority(tmp_path).file)
    with pytest.raises(Unreachable):
        fetch_from(IMAGE, authority, ca_file=None)


def test_proxies_of_the_environment_are_not_used(
    authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetch_from(IMAGE, authority)[0] == PHOTO


# The answer.


async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def trickle(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def cut_off(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx")


async def gibberish(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(authority: TestAuthority, status: int) -> None:
    answer = plain(f"{status} Moved", "Location: https://images.example.com/secret")
    with pytest.raises(FetchFailed, match="redirects are not followed"):
        fetch_from(answer, authority)


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (plain("404 Not Found"), False),
        (plain("503 Busy"), True),
        (plain("200 OK", body=PHOTO), False),
        (plain("200 OK", "Content-Type: text/html", body=PHOTO), False),
        (plain("200 OK", "Content-Type: image/png", "Content-Encoding: gzip", body=PHOTO), False),
        (cut_off, True),
        (gibberish, True),
    ],
)
def test_an_answer_that_is_no_image_fails(
    authority: TestAuthority, answer: Answer, retryable: bool
) -> None:
    with pytest.raises(FetchFailed) as failed:
        fetch_from(answer, authority)
    assert failed.value.retryable is retryable


@pytest.mark.parametrize("media_type", ["application/octet-stream", "IMAGE/JPEG; q=1"])
def test_what_may_be_an_image_is_taken(authority: TestAuthority, media_type: str) -> None:
    answer = plain("200 OK", f"Content-Type: {media_type}", body=PHOTO)
    assert fetch_from(answer, authority)[0] == PHOTO


@pytest.mark.parametrize("answer", [trickle, silent])
def test_a_slow_answer_ends_in_time(authority: TestAuthority, answer: Answer) -> None:
    with pytest.raises(FetchFailed, match=r"longer than 0\.3 s") as failed:
        fetch_from(answer, authority, total_timeout_s=0.3)
    assert failed.value.retryable


@pytest.mark.parametrize(
    "answer", [endless, plain("200 OK", "Content-Type: image/png", body=b"x" * 1001)]
)
def test_a_large_answer_is_cut_off(authority: TestAuthority, answer: Answer) -> None:
    with pytest.raises(TooLarge) as failed:
        fetch_from(answer, authority)
    assert failed.value.code == "image_too_large"


def test_who_has_no_room_for_more_ends_the_answer(authority: TestAuthority) -> None:
    taken = []

    def take(size: int) -> None:
        taken.append(size)
        if sum(taken) > 5000:
            raise MemoryError

    async def go() -> None:
        async with receiver(endless, authority.server(HOST)) as (port, _):
            config = EgressConfig(
                image_hosts=(f"{HOST}:{port}",),
                networks=("127.0.0.1/32",),
                ca_file=authority.file,
            )
            client = Egress(config, answers("127.0.0.1"))
            await client.fetch_image(f"https://{HOST}:{port}/", 1 << 40, take)

    with pytest.raises(MemoryError):
        asyncio.run(go())
    assert sum(taken[:-1]) <= 5000


def test_an_image_of_just_the_limit_is_taken(authority: TestAuthority) -> None:
    assert fetch_from(IMAGE, authority, max_bytes=len(PHOTO))[0] == PHOTO
    with pytest.raises(TooLarge):
        fetch_from(IMAGE, authority, max_bytes=len(PHOTO) - 1)


# Posting.


def post(answer: Answer, scheme: str, networks: tuple[str, ...]) -> Response:
    async def go() -> Response:
        async with receiver(answer) as (port, _):
            config = EgressConfig(webhook_hosts=(f"hook.test:{port}",), networks=networks)
            client = Egress(config, answers("127.0.0.1"))
            return await client.post(f"{scheme}://hook.test:{port}/", b"{}", {}, 5)

    return asyncio.run(go())


def test_http_is_for_listed_networks_only() -> None:
    ok = plain("200 OK")
    assert post(ok, "http", ("127.0.0.0/8",)).status == 200
    with pytest.raises(UrlNotAllowed, match="https"):
        post(ok, "http", ())
    with pytest.raises(AddressRefused):
        post(ok, "http", ("10.0.0.0/8",))
    public = EgressConfig(webhook_hosts=("hook.test",), networks=("10.0.0.0/8",))
    with pytest.raises(AddressRefused):
        asyncio.run(Egress(public, answers("8.8.8.8")).post("http://hook.test/", b"", {}, 5))


@pytest.mark.parametrize(
    "answer",
    [
        plain("500 Oh", "Content-Type: text/plain", body=b"no\x00room\n" + b"!" * 10_000),
        lambda got, writer: endless_error(writer),
    ],
)
def test_of_a_refusal_only_the_beginning_is_read(answer: Answer) -> None:
    response = post(answer, "http", ("127.0.0.0/8",))
    assert response.status == 500
    assert response.text.startswith("no room !!!")
    assert len(response.text) == 400


async def endless_error(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oh\r\n\r\nno\x00room\n")
    while True:
        writer.write(b"!" * 1000)
        await writer.drain()


def test_a_redirect_of_a_post_is_an_answer_like_others() -> None:
    answer = plain("307 Over there", "Location: http://169.254.169.254/")
    assert post(answer, "http", ("127.0.0.0/8",)).status == 307


@pytest.mark.parametrize(
    "error",
    [
        UrlNotAllowed("is too long"),
        Unreachable("h", "why"),
        AddressRefused("h", "why"),
        FetchFailed("h", "answers 500", True),
        TooLarge("h", 5),
    ],
)
def test_errors_cross_processes(error: EgressError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.retryable) == (type(error), str(error), error.retryable)
