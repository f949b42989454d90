"""Loopback HTTP proxies that stand in front of a real S3 server and spoil one thing."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from storage.object_store import ObjectStoreConfig, S3ObjectStore


class Forward(BaseHTTPRequestHandler):
    """Passes everything on unchanged, the Host header too: it is part of the signature."""

    protocol_version = "HTTP/1.1"
    upstream: ObjectStoreConfig

    def do_GET(self) -> None:
        self.forward()

    def do_HEAD(self) -> None:
        self.forward()

    def do_PUT(self) -> None:
        self.forward()

    def do_POST(self) -> None:
        self.forward()

    def do_DELETE(self) -> None:
        self.forward()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = http.client.HTTPConnection(self.upstream.endpoint, timeout=10)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            server.putheader(name, value)
        server.endheaders(body)
        answer = server.getresponse()
        content = answer.read()
        server.close()
        self.reply(answer, content)

    def reply(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class IgnoreConditions(Forward):
    """A server that knows no conditional PUT and overwrites. Dropping the header would break the
    signature, which covers it, so the object in the way is removed instead."""

    def do_PUT(self) -> None:
        if self.headers["If-None-Match"]:
            _, _bucket, key = self.path.split("/", 2)
            S3ObjectStore(self.upstream).delete(key)
        self.forward()


class LoseFirstReply(Forward):
    """Carries out the first conditional PUT, then drops the connection instead of answering."""

    lost = 0

    def reply(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        if self.headers["If-None-Match"] and not type(self).lost:
            type(self).lost += 1
            self.close_connection = True
        else:
            super().reply(answer, content)


class CutBodies(Forward):
    """Promises whole objects and breaks off after the first byte."""

    def reply(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        super().reply(answer, content[:1] if self.command == "GET" else content)
        self.close_connection = self.command == "GET"


@contextmanager
def proxy(kind: type[Forward], upstream: ObjectStoreConfig) -> Iterator[ObjectStoreConfig]:
    """The config of a client that goes through the proxy."""
    handler = type(kind.__name__, (kind,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield upstream.model_copy(update={"endpoint": f"127.0.0.1:{server.server_port}"})
        finally:
            server.shutdown()
            thread.join()
