"""An S3 server that is asked too much: it answers 500 and 503 SlowDown before it does its work."""

import http.client
import time
from collections import defaultdict
from threading import Lock

from tests.integration.s3_proxies import Forward

_BUSY = ((500, "InternalError"), (503, "SlowDown"))
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>Reduce your rate</Message></Error>"


class Storm(Forward):
    """Passes all on while `refusals` is 0. Then the first so many tries of each request are
    refused. One per process: its state is the class's."""

    refusals = 0
    requests = 0  # that came in
    tried_at: defaultdict[tuple[str, str], list[float]] = defaultdict(list)  # method, path
    _lock = Lock()

    @classmethod
    def rage(cls, refusals: int) -> None:
        with Storm._lock:
            Storm.refusals = refusals
            Storm.tried_at.clear()

    def forward(self) -> None:
        request = (self.command, self.path)
        with Storm._lock:
            Storm.requests += 1
            Storm.tried_at[request].append(time.monotonic())
            number = len(Storm.tried_at[request])
        if number <= Storm.refusals:
            return self._refuse(*_BUSY[number % 2])
        try:
            super().forward()
        except (OSError, http.client.HTTPException):  # the server is away, or the client is
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = _ERROR.format(code).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
