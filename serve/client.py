"""A small client of the HTTP API, for the command line."""

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx2

Video = dict[str, Any]
"""The wire's Video object (serve.schemas.Video) as JSON."""

PATIENCE_S = 60.0
_CREATE_TRIES = 2
TERMINAL = frozenset({"completed", "failed", "cancelled"})


class ServiceError(Exception):
    """The service refused or could not be reached; the message is fit for a person."""


class ServiceUnreachable(ServiceError):
    """Nothing answers at the address, for now."""


class Client:
    def __init__(self, base_url: str, api_key: str | None = None, timeout_s: float = 30.0):
        self._base_url = base_url
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx2.Client(
            base_url=base_url, headers=headers, timeout=timeout_s, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(self, photo: Path, **fields: Any) -> Video:
        """Submit a job. Fields that are None are left to the server. Raises ServiceError.

        A lost answer is asked for again under an idempotency key: it is one job all the same."""
        form = {name: str(value) for name, value in fields.items() if value is not None}
        files = {"input_reference": (photo.name, photo.read_bytes())}
        once = {"Idempotency-Key": uuid.uuid4().hex}
        for tries_left in reversed(range(_CREATE_TRIES)):
            try:
                answer = self._request("POST", "/v1/videos", data=form, files=files, headers=once)
            except ServiceUnreachable:
                if tries_left == 0:
                    raise
                time.sleep(0.5)
            else:
                break
        return self._json(answer)

    def get(self, video_id: str) -> Video:
        return self._json(self._request("GET", f"/v1/videos/{video_id}"))

    def wait(
        self, video_id: str, on_update: Callable[[Video], None], poll_s: float = 0.25
    ) -> Video:
        """Poll until the job has ended, telling every state on the way.

        A service that is away for less than PATIENCE_S (a restart) does not end the wait.
        """
        answered = time.monotonic()
        while True:
            try:
                video = self.get(video_id)
            except ServiceUnreachable:
                if time.monotonic() - answered > PATIENCE_S:
                    raise
                time.sleep(1)
                continue
            answered = time.monotonic()
            on_update(video)
            if video["status"] in TERMINAL:
                return video
            time.sleep(poll_s)

    def content(self, video_id: str, variant: str = "video", candidate: int | None = None) -> bytes:
        path = f"/v1/videos/{video_id}/content"
        params: dict[str, str | int] = {"variant": variant}
        if candidate is not None:
            params["candidate"] = candidate
        return self._request("GET", path, params=params).content

    def cancel(self, video_id: str) -> Video:
        """A video that has ended stays as it ended."""
        return self._json(self._request("POST", f"/v1/videos/{video_id}/cancel"))

    def batch_report(self, batch_id: str) -> str:
        """report.html of a catalogue run."""
        return self._request("GET", f"/v1/batches/{batch_id}/report").text

    def models(self) -> list[dict[str, Any]]:
        """What the service has, and the limits of each."""
        cards: list[dict[str, Any]] = self._json(self._request("GET", "/v1/models"))["data"]
        return cards

    def cluster(self) -> dict[str, Any]:
        """How the service stands: the wire's Cluster object (serve.schemas.Cluster) as JSON."""
        return self._json(self._request("GET", "/v1/cluster"))

    def preview_prompt(self, fields: Mapping[str, str]) -> dict[str, Any]:
        return self._json(self._request("POST", "/v1/prompts:preview", json=dict(fields)))

    def delete(self, video_id: str) -> None:
        self._request("DELETE", f"/v1/videos/{video_id}")

    def _request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx2.TransportError as e:
            raise ServiceUnreachable(
                f"no service answers at {self._base_url} ({e}); start one with `shopreel up`"
            ) from e
        if response.is_error:
            if response.status_code == 404 and _error(response) is None:
                # Serve's proxy, which does not know its routes yet: a restart.
                raise ServiceUnreachable(f"{self._base_url} is not ready yet")
            raise ServiceError(_message(response))
        return response

    @staticmethod
    def _json(response: httpx2.Response) -> Video:
        parsed: Video = response.json()
        return parsed


def _error(response: httpx2.Response) -> dict[str, Any] | None:
    """The envelope's content; None where something else than the API has answered."""
    try:
        error: dict[str, Any] = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error


def _message(response: httpx2.Response) -> str:
    error = _error(response)
    if error is None:
        return f"{response.status_code} {response.text[:200]}"
    return f"{error['message']} ({response.status_code} {error['code']})"
