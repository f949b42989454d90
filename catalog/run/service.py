"""The video service as a run sees it: the HTTP API of `/v1/videos`, asked by many rows at once."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from catalog.run.errors import NotAllowed, Refused, TryLater

Video = dict[str, Any]
"""The wire's Video object as JSON."""

LIVE = ("queued", "in_progress")
TERMINAL = frozenset({"completed", "failed", "cancelled"})
_TIMEOUT_S = 60.0
_BUSY = (429, 502, 503, 504)
_FAULT_WAITS_S = (1, 5, 20)
_POLL_S = 2.0
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Answer:
    video: Video
    poll_after_s: float


class Service:
    """Lives on one event loop. Every method raises TryLater and NotAllowed."""

    def __init__(self, base_url: str, api_key: str | None, connections: int):
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx2.AsyncClient(
            base_url=base_url, headers=headers, limits=limits, timeout=_TIMEOUT_S, trust_env=False
        )
        self._away_since: float | None = None  # monotonic seconds; None: it answers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create(self, fields: Mapping[str, str], photo: bytes, once: str) -> Answer:
        """`once` is the idempotency key: the same call again, by whomever, is the same video.

        Raises Refused."""
        files = {"input_reference": ("photo", photo)}
        return self._answer(
            await self._request(
                "POST",
                "/v1/videos",
                data=dict(fields),
                files=files,
                headers={"Idempotency-Key": once},
            )
        )

    async def get(self, video_id: str) -> Answer:
        """Raises Refused: it was deleted."""
        return self._answer(await self._request("GET", f"/v1/videos/{video_id}"))

    async def content(self, video_id: str, variant: str) -> bytes:
        """Raises Refused: its files are gone."""
        path = f"/v1/videos/{video_id}/content"
        # The bytes come from the object store itself, past the API.
        asked = {"variant": variant, "redirect": "1"}
        return (await self._request("GET", path, params=asked, follow_redirects=True)).content

    async def cancel(self, video_id: str) -> None:
        """A video that has ended stays as it ended. Raises Refused: it was deleted."""
        await self._request("POST", f"/v1/videos/{video_id}/cancel")

    async def some_of(self, batch_id: str, status: str) -> Sequence[str]:
        """Ids of videos of a run, at most a page."""
        asked = {"batch_id": batch_id, "status": status, "limit": _PAGE}
        found = (await self._request("GET", "/v1/videos", params=asked)).json()
        return [video["id"] for video in found["data"]]

    async def _request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        for wait_s in (*_FAULT_WAITS_S, None):
            try:
                response = await self._http.request(method, path, **kwargs)
            except httpx2.TransportError as e:
                reason = f"the service does not answer ({type(e).__name__})"
                raise TryLater(reason, 1.0, self._away_s()) from e
            if not response.is_error:
                self._away_since = None
                return response
            refused = self._refused(response)
            if response.status_code < 500 or wait_s is None:
                break
            await asyncio.sleep(wait_s)  # a fault; if it is the row's, the run goes on without it
        raise refused

    def _refused(self, response: httpx2.Response) -> Refused | NotAllowed:
        """What an error means that asking again does not change. Raises TryLater for the others."""
        error, status = _error(response), response.status_code
        if error is None and status < 500 and response.history:  # the object store's own answer
            return _kept_back(response)
        if error is None:
            # Without an envelope it is a proxy that speaks: the API behind it is being restarted.
            reason = f"{status} {response.text[:100]}"
            raise TryLater(reason, _retry_after_s(response), self._away_s())
        self._away_since = None
        if status in _BUSY:
            raise TryLater(f"{status} {error['code']}", _retry_after_s(response))
        if status in (401, 403):
            return NotAllowed(f"{error['message']} ({status} {error['code']})")
        return Refused(error["type"], error["code"], error["message"])

    def _away_s(self) -> float:
        """For how long nobody has had an answer, of all who ask here."""
        if self._away_since is None:
            self._away_since = time.monotonic()
        return time.monotonic() - self._away_since

    @staticmethod
    def _answer(response: httpx2.Response) -> Answer:
        after_ms = response.headers.get("openai-poll-after-ms")
        return Answer(response.json(), _POLL_S if after_ms is None else float(after_ms) / 1e3)


def _kept_back(response: httpx2.Response) -> Refused:
    path, status = response.url.path, response.status_code
    if status == 404:
        return Refused("not_found_error", "content_missing", f"no object at {path}")
    message = f"the object store answers {status} for {path}: {response.text[:200]}"
    return Refused("server_error", "content_unreadable", message)


def _error(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        error: dict[str, Any] = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error


def _retry_after_s(response: httpx2.Response) -> float:
    try:
        return max(0.1, float(response.headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0
