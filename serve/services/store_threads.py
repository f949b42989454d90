"""Threads for the calls to the object store. Those that read the job table are others, so a store
that hangs holds up who needs it, and nobody else."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from storage.errors import StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 32
_PATIENCE_S = 30.0
"""For a call, the wait for a thread included; the largest upload takes a few seconds."""


class StoreThreads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "object-store")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises StoreUnavailable after 30 s, and what `call` raises. It may go on then."""
        future = self._pool.submit(call, *args, **kwargs)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), _PATIENCE_S)
        except TimeoutError:
            raise StoreUnavailable(f"object store: no answer in {_PATIENCE_S:g} s") from None
