"""The TCP proxy of the fault tests, in front of a small HTTP server on a real socket."""

import asyncio
import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.faults.tcp_proxy import Cut, Delay, Hang, Pass, Refuse, TcpProxy

BODY = b"0123456789" * 20_000  # more than one packet, and than one read of the proxy


class Shelf(BaseHTTPRequestHandler):
    """Answers GET with BODY; remembers the names that PUT brought, and each Host header."""

    protocol_version = "HTTP/1.1"
    puts: list[str]
    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self._answer(BODY)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.puts.append(self.path)
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shelf() -> type[Shelf]:
    return type("FreshShelf", (Shelf,), {"puts": [], "hosts": []})


@pytest.fixture
def proxy(shelf: type[Shelf]) -> Iterator[TcpProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), shelf) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with TcpProxy(f"127.0.0.1:{server.server_port}") as through:
                yield through
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def client(proxy: TcpProxy, timeout_s: float = 5) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint, timeout=timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def get(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/", headers={"Host": "as.signed:1"})
    return connection.getresponse().read()


def put(connection: http.client.HTTPConnection, name: str, **headers: str) -> None:
    connection.request("PUT", name, body=b"x" * 100_000, headers=headers)
    connection.getresponse().read()


def test_passes_every_byte_and_the_host_header(proxy: TcpProxy, shelf: type[Shelf]) -> None:
    with client(proxy) as connection:
        assert get(connection) == get(connection) == BODY  # one connection, kept alive
    assert shelf.hosts == ["as.signed:1"] * 2
    assert proxy.accepted == 1


def test_refuses_old_and_new_connections_until_it_passes_again(proxy: TcpProxy) -> None:
    with client(proxy) as old, client(proxy) as new:
        assert get(old) == BODY
        proxy.set(Refuse())
        for connection in (old, new):
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                get(connection)
        proxy.set(Pass())
        new.close()
        assert get(new) == BODY


def test_a_hang_forwards_nothing_and_what_waited_goes_on(
    proxy: TcpProxy, shelf: type[Shelf]
) -> None:
    with client(proxy, timeout_s=0.3) as impatient, client(proxy) as patient:
        assert get(impatient) == BODY  # open before the hang, and held up all the same
        proxy.set(Hang())
        patient.request("PUT", "/late", body=b"x")
        with pytest.raises(TimeoutError):
            get(impatient)
        assert shelf.puts == []
        assert len(shelf.hosts) == 1
        proxy.set(Pass())
        assert patient.getresponse().status == 200
    assert shelf.puts == ["/late"]


def test_delays_each_answer_once(proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, slept = asyncio.sleep, list[float]()

    async def counted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", counted)
    proxy.set(Delay(0.2))
    with client(proxy) as connection:
        for answers in (1, 2):
            begun = time.monotonic()
            assert get(connection) == BODY
            assert time.monotonic() - begun >= 0.2
            assert slept.count(0.2) == answers  # not once for each packet


def test_cuts_every_answer_after_so_many_bytes(proxy: TcpProxy) -> None:
    proxy.set(Cut(1_000))
    with client(proxy) as connection:
        for _ in range(2):
            with pytest.raises(http.client.IncompleteRead) as cut:
                get(connection)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
            assert len(cut.value.partial) == 1_000 - len(head)
            connection.close()
    proxy.set(Cut(1_000))
    with client(proxy) as connection:
        put(connection, "/short")  # its answer is shorter


def test_resets_in_the_middle_of_a_body(proxy: TcpProxy) -> None:
    proxy.set(Cut(70_000, reset=True))
    with client(proxy) as connection, pytest.raises(ConnectionResetError):
        get(connection)


def test_loses_the_reply_of_the_one_request_that_it_was_told(
    proxy: TcpProxy, shelf: type[Shelf]
) -> None:
    condition = {"If-None-Match": "*"}
    with client(proxy) as connection:
        put(connection, "/before", **condition)
        proxy.lose_reply_to(b"if-none-match: *")
        put(connection, "/other")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            put(connection, "/lost", **condition)
        connection.close()
        put(connection, "/after", **condition)
    assert shelf.puts == ["/before", "/other", "/lost", "/after"]  # it was carried out
    assert proxy.lost_replies == 1


def test_a_server_that_is_gone_is_a_closed_connection() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        gone = f"127.0.0.1:{server.server_port}"
    with (
        TcpProxy(gone) as proxy,
        client(proxy) as connection,
        pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)),
    ):
        get(connection)
