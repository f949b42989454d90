"""Calls of the object store, told to whoever measures them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from storage.errors import ObjectNotFound, StorageError, StoreMisconfigured, StoreUnavailable
from storage.s3_errors import storage_errors

Hear = Callable[[str, float, int, str | None], object]
"""Called after each call, on its thread, with what was done (`put`, `get`, …), its seconds, the
bytes of content that moved, and the kind of its failure. That nothing is there is no failure."""


def unheard(op: str, seconds: float, size_bytes: int, failure: str | None) -> None:
    """Nobody measures."""


@dataclass(slots=True)
class Call:
    """One under way; what is known of it later is filled in by whoever makes it."""

    size_bytes: int = 0
    away_s: float = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The store is not waited for."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.away_s += time.perf_counter() - begun


@contextmanager
def told(hear: Hear, op: str, key: str) -> Iterator[Call]:
    """Raises as `storage_errors` does."""
    call, failure, begun = Call(), None, time.perf_counter()
    try:
        with storage_errors(key):
            yield call
    except StorageError as error:
        failure = _kind(error)
        raise
    finally:
        hear(op, time.perf_counter() - begun - call.away_s, call.size_bytes, failure)


def _kind(error: StorageError) -> str | None:
    match error:
        case ObjectNotFound():
            return None
        case StoreUnavailable():
            return "unavailable"
        case StoreMisconfigured():
            return "misconfigured"
    return "other"
