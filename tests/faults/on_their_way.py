"""Requests that are on their way for as long as a test wants them to be."""

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any
from uuid import uuid4

import httpx2
from sseclient import Event as Told
from sseclient import SSEClient

from tests.faults.head import PHOTO

_TIMEOUT_S = 60


class Order:
    """A create under a key of its own."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, **fields: Any):
        self.halfway, self.go_on = Event(), Event()
        self._request = httpx2.Request(
            "POST",
            f"{url}/v1/videos",
            data={name: str(value) for name, value in fields.items()},
            files={"input_reference": (PHOTO.name, PHOTO.read_bytes())},
            headers={"Idempotency-Key": uuid4().hex, **(headers or {})},
        )
        self._body = self._request.read()

    def send(self) -> httpx2.Response:
        return self._post(self._body)

    def send_halting(self) -> httpx2.Response:
        """The body stops in the middle until `go_on` is set. Raises httpx2.TransportError."""
        return self._post(self._in_two_parts())

    def _post(self, content: Any) -> httpx2.Response:
        headers, url = self._request.headers, self._request.url
        with httpx2.Client(timeout=_TIMEOUT_S, trust_env=False) as http:
            return http.post(url, content=content, headers=headers)

    def _in_two_parts(self) -> Iterator[bytes]:
        half = len(self._body) // 2
        yield self._body[:half]
        self.halfway.set()
        assert self.go_on.wait(_TIMEOUT_S)
        yield self._body[half:]


class Download:
    """A file, of which the reader takes no more than the beginning until `go_on` is set."""

    def __init__(self, url: str):
        self.begun, self.go_on = Event(), Event()
        self._url = url

    def read(self) -> bytes:
        """Raises httpx2.TransportError where it is cut off."""
        with httpx2.stream("GET", self._url, timeout=_TIMEOUT_S, trust_env=False) as answer:
            answer.raise_for_status()
            parts = answer.iter_bytes()
            data = next(parts)
            self.begun.set()
            assert self.go_on.wait(_TIMEOUT_S)
            return data + b"".join(parts)


def follow(url: str, told: list[list[Told]]) -> None:
    """A video's events until its last one, those of each connection apart. As a browser does it,
    the next connection begins where the last one ended. Raises httpx2.TransportError where one is
    cut off."""
    headers: dict[str, str] = {}
    while not (told and told[-1] and _is_last(told[-1][-1])):
        told.append([])
        with httpx2.stream(
            "GET", url, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        ) as answer:
            answer.raise_for_status()
            for event in SSEClient(answer.iter_bytes()).events():
                told[-1].append(event)
                headers["Last-Event-ID"] = event.id or ""


def _is_last(event: Told) -> bool:
    return '"status":"completed"' in event.data
