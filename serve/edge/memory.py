"""One budget for all that callers make an API replica hold: bodies, photos, files on their way."""

from typing import Self

from starlette.requests import HTTPConnection

from serve.errors import SERVER, ApiError

SHARE = "memory_share"
"""The request's own Share in its ASGI scope; what it took is given back when it is answered."""
_COME_BACK_S = 1


class MemoryBudget:
    """For one event loop. Whoever finds no room is sent away: waiting would take memory too."""

    def __init__(self, most_bytes: int):
        self._most = most_bytes
        self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    def share(self) -> "Share":
        return Share(self)

    def _take(self, size: int) -> None:
        if size > 0 and self._held + size > self._most:
            message = "too many uploads and downloads at once; try again"
            raise ApiError(503, SERVER, "overloaded", message, retry_after_s=_COME_BACK_S)
        self._held += size


class Share:
    """What one caller holds of the budget; a context that gives it back."""

    def __init__(self, budget: MemoryBudget):
        self._budget, self._size = budget, 0

    @property
    def size_bytes(self) -> int:
        return self._size

    def take(self, size: int) -> None:
        """`size` bytes more; fewer where it is negative. Raises ApiError 503."""
        self._budget._take(size)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.take(-self._size)


def share_of(request: HTTPConnection) -> Share:
    share: Share = request.scope[SHARE]
    return share
