"""A bucket's worth of keys, a page at a time: it does not fit into memory."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

from storage.object_store import ObjectStore

T = TypeVar("T")

_PAGE = 1000
_DELETED_AT_ONCE = 250
"""Keys a request. It could be a thousand, but then most connections wait while one is busy."""


def pages(listing: Iterable[T], size: int = _PAGE) -> Iterator[list[T]]:
    """At most so many each."""
    rest = iter(listing)
    while page := list(islice(rest, size)):
        yield page


def delete_page(objects: ObjectStore, pool: Executor, keys: Iterable[str]) -> None:
    """Over several connections. Raises StoreUnavailable: some may be gone then."""
    list(pool.map(objects.delete_many, pages(keys, _DELETED_AT_ONCE)))
