"""What was found for an API key, kept for a moment by the key's digest."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Found = TypeVar("_Found")


class KeyCache(Generic[_Found]):
    """The keys used last. Only good ones come in, so that strangers cannot push anybody out."""

    def __init__(self, clock: Callable[[], float], fresh_s: float, most: int = 1024) -> None:
        self._clock, self._fresh_s, self._most = clock, fresh_s, most
        self._lock = threading.Lock()
        self._found: OrderedDict[str, tuple[_Found, float]] = OrderedDict()

    def fresh(self, digest: str) -> _Found | None:
        """None when it was found too long ago, or never."""
        with self._lock:
            found, at = self._found.get(digest, (None, 0.0))
            if found is None or not 0 <= self._clock() - at < self._fresh_s:
                return None
            self._found.move_to_end(digest)
            return found

    def put(self, digest: str, found: _Found) -> None:
        with self._lock:
            self._found[digest] = found, self._clock()
            self._found.move_to_end(digest)
            if len(self._found) > self._most:
                self._found.popitem(last=False)

    def forget(self, digest: str) -> None:
        with self._lock:
            self._found.pop(digest, None)

    def __len__(self) -> int:
        return len(self._found)
