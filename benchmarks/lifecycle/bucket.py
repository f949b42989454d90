"""The objects of those jobs, by class, and the orphans among them; put by several processes."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from typing import Self

from benchmarks.lifecycle.sample import (
    Fate,
    Layout,
    checkpoint_of,
    commit_of,
    files_of,
    photo_of,
    records_of,
)
from storage.object_store import ObjectStore, ObjectStoreConfig, S3ObjectStore

_PROCESSES, _CONNECTIONS, _AT_ONCE = 2, 8, 2000


@dataclass(frozen=True, slots=True)
class Planned:
    """An object, and why it is there."""

    key: str
    body: bytes
    number: int  # of its job
    fate: Fate | None  # None: its job was deleted

    @property
    def kind(self) -> str:
        return self.key.partition("/")[0]


def objects_of(layout: Layout, number: int) -> Iterator[Planned]:
    if number >= layout.rows:
        yield from (Planned(*each, number, None) for each in _orphans(layout, number))
        return
    fate = layout.fate(number)
    yield from (Planned(*each, number, fate) for each in _owned(layout, number, fate))


def _owned(layout: Layout, number: int, fate: Fate) -> Iterator[tuple[str, bytes]]:
    yield photo_of(number)
    yield from records_of(layout, number, ended=fate not in (Fate.RUNNING, Fate.QUEUED))
    if fate in (Fate.KEPT, Fate.FAILED, Fate.RUNNING):
        yield from files_of(number)
    if fate is Fate.KEPT or (fate is Fate.RUNNING and number % 2):  # not told yet
        yield commit_of(number)
    if fate in (Fate.FAILED, Fate.RUNNING):
        yield checkpoint_of(number)


def _orphans(layout: Layout, number: int) -> Iterator[tuple[str, bytes]]:
    """What a worker writes that has not heard of the deletion: half of them have committed."""
    yield from records_of(layout, number, ended=bool(number % 3))
    yield from files_of(number)
    yield checkpoint_of(number)
    if number % 2:
        yield commit_of(number)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the bucket is to hold."""

    objects: dict[str, Planned]  # by key

    @classmethod
    def planned(cls, layout: Layout) -> Self:
        every = (one for number in layout.with_objects() for one in objects_of(layout, number))
        # The bytes have been put: only their names are compared.
        return cls({one.key: replace(one, body=b"") for one in every})

    def by_class(self) -> dict[str, int]:
        return dict(Counter(one.kind for one in self.objects.values()))

    def remove(self, goes: Callable[[Planned], bool]) -> int:
        """How many these are."""
        gone = [key for key, one in self.objects.items() if goes(one)]
        for key in gone:
            del self.objects[key]
        return len(gone)

    def check(self, store: ObjectStore) -> None:
        """Raises AssertionError unless the bucket holds these, and nothing else."""
        found = {info.key for info in store.iter_objects("")}
        missing, extra = self.objects.keys() - found, found - self.objects.keys()
        if missing or extra:
            some = sorted(missing)[:3], sorted(extra)[:3]
            raise AssertionError(f"{len(missing)} missing, {len(extra)} too many: {some}")


def put_all(layout: Layout, config: ObjectStoreConfig) -> int:
    """How many that were."""
    numbers = layout.with_objects()
    shares = [numbers[first::_PROCESSES] for first in range(_PROCESSES)]
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as processes:
        return sum(processes.map(_put, [layout] * _PROCESSES, [config] * _PROCESSES, shares))


def _put(layout: Layout, config: ObjectStoreConfig, numbers: list[int]) -> int:
    store, done = S3ObjectStore(config), 0
    planned = (each for number in numbers for each in objects_of(layout, number))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        while some := list(islice(planned, _AT_ONCE)):
            list(pool.map(lambda one: store.put(one.key, one.body, "application/json"), some))
            done += len(some)
    return done
