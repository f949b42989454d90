"""Window: how many rows of a run are on their way at once, and when nobody may knock."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from catalog.run.errors import ServiceAway, TryLater
from storage.errors import StoreUnavailable

T = TypeVar("T")

_STORE_AGAIN_S = 2.0


class Window:
    """Bounds what is under way, and keeps everybody back for as long as the service asked one to.

    A refusal is the service's word on its own load, so all wait for it, not only the row that
    heard it. Lives on one event loop.
    """

    def __init__(self, size: int, patience_s: float):
        self._room, self._patience_s = asyncio.Semaphore(size), patience_s
        self._closed_until = 0.0  # monotonic seconds
        self._reason = ""
        self.under_way = 0

    async def enter(self) -> None:
        await self._room.acquire()
        self.under_way += 1

    def leave(self) -> None:
        self.under_way -= 1
        self._room.release()

    @property
    def closed_by(self) -> str | None:
        """Why nobody may knock; None: one may."""
        return self._reason if self._closed_until > time.monotonic() else None

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Its answer, as often as TryLater or StoreUnavailable come instead. Raises ServiceAway
        after the run's patience: with a service that answers nobody, or with a store that does not
        answer this. Who answers that he is busy may be so for ever."""
        store_away_s = 0.0
        while True:
            while (wait_s := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            began = time.monotonic()
            try:
                return await call()
            except TryLater as e:
                self._hold(e, e.away_s, e.after_s)
            except StoreUnavailable as e:
                # Not since the first try: the service may have held this back for hours between.
                store_away_s += time.monotonic() - began + _STORE_AGAIN_S
                self._hold(e, store_away_s, _STORE_AGAIN_S)

    def _hold(self, error: Exception, away_s: float, again_s: float) -> None:
        """Raises ServiceAway."""
        if away_s > self._patience_s:
            raise ServiceAway(away_s, str(error)) from error
        self._closed_until = max(self._closed_until, time.monotonic() + again_s)
        self._reason = str(error)
