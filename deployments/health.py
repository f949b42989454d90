"""A replica whose device or library fails for good ends itself; one whose work hangs is unwell."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.5
"""For callers to hear of the error, before the process ends."""
_LAST_SAVES_S = 5.0


async def _nothing_to_save() -> None:
    return None


async def go_down(why: object, save: Callable[[], Awaitable[None]] = _nothing_to_save) -> None:
    """End this process, so that Serve starts another at once.

    Not left to the health check: until it has failed three times, a broken replica, which fails
    fast and is never busy, would draw jobs and fail them all.
    """
    log.error("this replica ends itself: %s", why)
    await asyncio.sleep(_LAST_WORDS_S)
    try:
        await asyncio.wait_for(save(), _LAST_SAVES_S)
    finally:
        os._exit(1)


class Work:
    """What a replica does one at a time, in a thread that cannot be interrupted."""

    def __init__(self, stall_s: float):
        self._stall_s = stall_s
        self._begun: float | None = None

    @contextmanager
    def under_way(self) -> Iterator[None]:
        self._begun = time.monotonic()
        try:
            yield
        finally:
            self._begun = None

    def check(self) -> None:
        """Raises RuntimeError when the work under way has taken too long: it hangs."""
        begun = self._begun
        if begun is not None and time.monotonic() - begun > self._stall_s:
            raise RuntimeError(f"work has been under way for {time.monotonic() - begun:.0f} s")
