"""Ray's dashboard over HTTP: what a cluster says of itself, to whoever has its token. Unlike Ray's
own client this gives up on a host that does not answer, and RAY_ADDRESS leads it nowhere else."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx2
from ray.exceptions import AuthenticationError

_TIMEOUT_S = 10.0
_MOST_NODES = 10_000  # what the state API gives at most


class ClusterUnreachable(Exception):
    """No dashboard answers there, or it wants another token than ours; says which."""


class RayDashboard:
    """One cluster's, at http://HOST:8265. Everything here may raise ClusterUnreachable."""

    def __init__(self, url: str):
        from ray._private.authentication.http_token_authentication import (
            get_auth_headers_if_auth_enabled,
        )

        try:
            self._token: dict[str, str] = get_auth_headers_if_auth_enabled({})
        except AuthenticationError as e:
            raise ClusterUnreachable(f"RAY_AUTH_MODE is token, and here is none: {e}") from e
        self.url = url.rstrip("/")
        self._http = httpx2.Client(timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def ray_version(self) -> str:
        version: str = self._get("/api/ray/version").json()["ray_version"]
        return version

    def wants_token(self) -> bool:
        """Whether it refuses those who have none."""
        return self._ask("/api/ray/version", {}).status_code == httpx2.codes.UNAUTHORIZED

    def clock_ahead_s(self) -> float:
        """How far the head's clock is ahead of ours; HTTP tells whole seconds."""
        return ahead_s(self._get("/api/ray/version").headers)

    def nodes(self) -> list[dict[str, Any]]:
        """Those that live, as `ray.nodes()` lists them."""
        found = self._get("/api/v0/nodes", limit=_MOST_NODES).json()["data"]["result"]["result"]
        return [
            {"Alive": True, "Labels": node["labels"], "Resources": node["resources_total"]}
            for node in found
            if node["state"] == "ALIVE"
        ]

    def serve_address(self) -> tuple[str, int] | None:
        """Where Serve's proxies listen; None while Serve does not run."""
        http = self._get("/api/serve/applications/").json().get("http_options")
        return (http["host"], http["port"]) if http else None

    def _get(self, path: str, **query: int) -> httpx2.Response:
        response = self._ask(path, self._token, **query)
        if response.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            ours = "another token than RAY_AUTH_TOKEN's" if self._token else "a token"
            raise ClusterUnreachable(f"{self.url} wants {ours}")
        if response.is_error:
            raise ClusterUnreachable(f"{self.url}{path} answers {response.status_code}")
        return response

    def _ask(self, path: str, headers: Mapping[str, str], **query: int) -> httpx2.Response:
        try:
            return self._http.get(f"{self.url}{path}", headers=dict(headers), params=query)
        except (httpx2.TransportError, httpx2.InvalidURL) as e:
            raise ClusterUnreachable(f"no Ray dashboard answers at {self.url}: {e}") from e


def ahead_s(headers: Mapping[str, str]) -> float:
    """How far the clock that set `Date` (RFC 9110) is ahead of ours."""
    return parsedate_to_datetime(headers["date"]).timestamp() - time.time()
