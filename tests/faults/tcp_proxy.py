"""A loopback TCP proxy between a client and a server, which a test makes fail while it runs.

It passes bytes and reads no protocol, so a signed Host header, TLS and Postgres go through it
alike. One event loop in a thread runs it: a socket that no other thread reads can be reset at once.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass
from threading import Thread
from typing import Any, Self

_CHUNK_BYTES = 1 << 16
_TAIL_BYTES = 256  # of a request, kept for words that two packets share
_LINGER_0_S = struct.pack("ii", 1, 0)  # close() then sends RST


@dataclass(frozen=True, slots=True)
class Pass:
    """As if the proxy were not there."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Open connections are closed, and new ones as soon as they are accepted."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept, and forward nothing either way; what has come in goes on when this ends."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Every answer begins so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Of every answer so many bytes, head and body, then the end of the connection."""

    after_bytes: int
    reset: bool = False  # by RST: the other end sees an error in place of an early end


Fault = Pass | Refuse | Hang | Delay | Cut


@dataclass(slots=True)
class _Link:
    """One connection, both halves of it."""

    client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    answered: int = 0  # bytes of the answer under way
    reply_is_lost: bool = False


class TcpProxy:
    """A context. An answer is what the server sends between two sendings of the client: right for
    protocols whose ends take turns, as HTTP/1.1 without pipelining."""

    def __init__(self, upstream: str):
        """`upstream` is host:port."""
        host, port = upstream.rsplit(":", 1)
        self._upstream = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._fault: Fault = Pass()
        self._changed = asyncio.Event()
        self._lose_next: bytes | None = None
        self._running: set[asyncio.Task[Any] | None] = set()
        self._server: asyncio.Server | None = None
        self.endpoint = ""  # host:port, for the client
        self.accepted = 0  # connections
        self.lost_replies = 0

    def set(self, fault: Fault) -> None:
        """From now on, on open connections too."""
        self._do(self._set(fault))

    def lose_reply_to(self, request: bytes) -> None:
        """Deliver the next request that contains these bytes, in any case (`if-none-match: *`), and
        end the connection in place of the first byte of its answer. Once."""
        self._lose_next = request.lower()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = "127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._end_connections()

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if isinstance(fault, Refuse):
            await self._end_connections()

    async def _end_connections(self) -> None:
        running = [task for task in self._running if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _in_force(self) -> Fault:
        """The fault to apply, once it is none that lasts."""
        while isinstance(self._fault, Hang):
            await self._changed.wait()
        return self._fault

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        self._running.add(task)
        writers = [to_client]
        try:
            if isinstance(await self._in_force(), Refuse):
                return
            server, to_server = await asyncio.open_connection(*self._upstream)
            writers.append(to_server)
            for writer in writers:
                writer.transport.set_write_buffer_limits(0)  # drained means sent
            link = _Link(client, to_client, server, to_server)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._ask(link))
                pumps.create_task(self._answer(link))
        except* OSError:  # either end has gone, or a fault ended the connection
            pass
        finally:
            self._running.discard(task)
            for writer in writers:
                writer.transport.abort()

    async def _ask(self, link: _Link) -> None:
        seen = b""
        while data := await link.client.read(_CHUNK_BYTES):
            await self._in_force()
            if link.answered:  # this begins another request
                link.answered, seen = 0, b""
            seen += data.lower()
            if self._lose_next is not None and self._lose_next in seen:
                link.reply_is_lost, self._lose_next = True, None
            seen = seen[-_TAIL_BYTES:]
            link.to_server.write(data)
            await link.to_server.drain()
        link.to_server.write_eof()

    async def _answer(self, link: _Link) -> None:
        while data := await link.server.read(_CHUNK_BYTES):
            fault = await self._in_force()
            if link.reply_is_lost:
                self.lost_replies += 1
                raise ConnectionAbortedError("the reply is lost")
            if isinstance(fault, Delay) and not link.answered:
                await asyncio.sleep(fault.seconds)
            if isinstance(fault, Cut):
                data = data[: max(0, fault.after_bytes - link.answered)]
            link.answered += len(data)
            link.to_client.write(data)
            await link.to_client.drain()
            if isinstance(fault, Cut) and link.answered >= fault.after_bytes:
                if fault.reset:
                    _reset_on_close(link.to_client)
                raise ConnectionAbortedError("the answer is cut")
        link.to_client.write_eof()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
