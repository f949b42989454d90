"""The HTTP API as the page calls it, with the key of whoever looks at the page."""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.requests import HTTPConnection

KEY_COOKIE = "shopreel_key"
NO_KEY = ("missing_api_key", "invalid_api_key", "too_many_failed_authentications")
_TIMEOUT_S = 30.0

Json = dict[str, Any]


class Refused(Exception):
    """The API's error, or that nothing answers (`unreachable`)."""

    def __init__(self, code: str, message: str = ""):
        super().__init__(code, message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class UploadedPhoto:
    """A photo that the service has."""

    file_id: str
    name: str  # of the file that a person added

    def __str__(self) -> str:
        """As the form keeps it; `read` undoes it."""
        return f"{self.file_id}/{self.name}"

    @classmethod
    def read(cls, text: str) -> "UploadedPhoto | None":
        file_id, _, name = text.partition("/")
        return cls(file_id, name) if file_id else None


@dataclass(frozen=True, slots=True)
class Api:
    """Every method raises Refused."""

    http: httpx2.AsyncClient
    base_url: str
    headers: Mapping[str, str]

    @classmethod
    def of(
        cls, http: httpx2.AsyncClient, request: HTTPConnection, api_url: str | None = None
    ) -> "Api":
        """On behalf of the browser whose request this is."""
        key = request.cookies.get(KEY_COOKIE)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return cls(http, api_url or _came_in_at(request), headers)

    async def models(self) -> Json:
        return await self._json("GET", "/v1/models")

    async def presets(self) -> Json:
        return await self._json("GET", "/v1/presets")

    async def cluster(self) -> Json:
        """How the service stands; what is broken as well."""
        return await self._json("GET", "/v1/cluster")

    async def preview_prompt(self, fields: Json) -> Json:
        return await self._json("POST", "/v1/prompts:preview", json=fields)

    async def upload(self, photo: Path) -> UploadedPhoto:
        data = await asyncio.to_thread(photo.read_bytes)
        return UploadedPhoto(await self._store(photo.name, data, "vision"), photo.name)

    async def upload_manifest(self, name: str, data: bytes) -> str:
        """Its file's id."""
        return await self._store(name, data, "batch")

    async def _store(self, name: str, data: bytes, purpose: str) -> str:
        file = {"file": (name, data)}
        stored = await self._json("POST", "/v1/files", data={"purpose": purpose}, files=file)
        return str(stored["id"])

    async def create(self, fields: Json) -> Json:
        return await self._once("/v1/videos", fields)

    async def create_batch(self, fields: Json) -> Json:
        return await self._once("/v1/batches", fields)

    async def _once(self, path: str, fields: Json) -> Json:
        """A lost answer is asked for again under an idempotency key: it is one job all the same."""
        once = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            return await self._json("POST", path, json=fields, headers=once)
        except Refused as e:
            if e.code != "unreachable":
                raise
        return await self._json("POST", path, json=fields, headers=once)

    async def video(self, video_id: str) -> Json:
        return await self._json("GET", f"/v1/videos/{video_id}")

    async def videos(self, **asked: str) -> Json:
        """A page of them, newest first."""
        return await self._json("GET", "/v1/videos", params=_said(asked))

    async def batch(self, batch_id: str) -> Json:
        return await self._json("GET", f"/v1/batches/{batch_id}")

    async def batches(self, **asked: str) -> Json:
        """A page of them, newest first."""
        return await self._json("GET", "/v1/batches", params=_said(asked))

    async def items(self, batch_id: str, **asked: str) -> Json:
        """A page of a batch's rows, in order."""
        return await self._json("GET", f"/v1/batches/{batch_id}/items", params=_said(asked))

    async def cancel_batch(self, batch_id: str) -> Json:
        return await self._json("POST", f"/v1/batches/{batch_id}/cancel")

    async def delete(self, video_id: str) -> Json:
        return await self._json("DELETE", f"/v1/videos/{video_id}")

    async def cancel(self, video_id: str) -> Json:
        return await self._json("POST", f"/v1/videos/{video_id}/cancel")

    async def rate(self, video_id: str, rating: int) -> Json:
        return await self._json("POST", f"/v1/videos/{video_id}/feedback", json={"rating": rating})

    async def file(
        self, ends: AsyncExitStack, path: str, query: Mapping[str, str], more: Mapping[str, str]
    ) -> httpx2.Response:
        """The answer to a request for a file with `more` headers, its body not read yet; `ends`
        closes it."""
        request = self.http.build_request(
            "GET",
            f"{self.base_url}{path}",
            params=dict(query),
            headers={**self.headers, **more},
        )
        try:
            response = await self.http.send(request, stream=True)
        except httpx2.TransportError as e:
            raise Refused("unreachable", str(e)) from e
        ends.push_async_callback(response.aclose)
        return response

    async def refusal(self, response: httpx2.Response) -> Refused:
        """What an answer of `file` says that is an error."""
        await response.aread()
        try:
            return _refused(_document(response))
        except Refused as e:
            return e

    async def _json(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Json:
        response = await self._answer(method, path, headers, **more)
        answer = _document(response)
        if response.is_error:
            raise _refused(answer)
        return answer

    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        said = {**self.headers, **(headers or {})}
        try:
            return await self.http.request(
                method, f"{self.base_url}{path}", headers=said, timeout=_TIMEOUT_S, **more
            )
        except httpx2.TransportError as e:
            raise Refused("unreachable", str(e)) from e


def _document(response: httpx2.Response) -> Json:
    try:
        document: Json = response.json()
    except ValueError as e:  # Serve's proxy itself speaks no JSON
        raise Refused("unreachable", str(e)) from e
    return document


def _refused(answer: Json) -> Refused:
    error = answer.get("error") or {}
    return Refused(error.get("code") or "internal", error.get("message") or "")


def _said(asked: Mapping[str, str]) -> dict[str, str]:
    """What is asked for as "" is not."""
    return {name: value for name, value in asked.items() if value}


def _came_in_at(request: HTTPConnection) -> str:
    """Where the proxy took this request: its own end of the connection, not what a caller says."""
    host, port = request.scope["server"]
    return f"{request.scope['scheme']}://{f'[{host}]' if ':' in host else host}:{port}"
