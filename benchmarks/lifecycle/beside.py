"""What callers see while something is swept: one creates, one asks for a page, both without end."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from benchmarks.lifecycle.sample import TENANTS, request_of
from storage.files import SqlFiles
from storage.job_contract import NO_CAPS, Caps
from storage.job_store import SqlJobStore
from storage.sql import admission

CAPS = Caps(
    queued=100_000, tenant_queued=10_000, tenant_unfinished=10_000, tenant_creates_per_minute=6000
)
"""The first is what `limits.max_queued_jobs` is unless it is set."""

FILED = "shop-1"
"""Has uploaded many files."""

_PAUSE_S, _PAGE, _CREATES = 0.04, 21, 200
_numbers = count(10**9)  # far from those of the table: their photos are others


@dataclass(slots=True)
class Seen:
    """Seconds of each call."""

    creates: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {
            "creates": len(self.creates),
            "create_ms": spread_ms(self.creates),
            "list_ms": spread_ms(self.lists),
        }


def create(store: SqlJobStore, caps: Caps = CAPS) -> None:
    number = next(_numbers)
    request = replace(request_of(number), id=f"beside_{number}")
    store.create(request, caps=caps)


@contextmanager
def callers(store: SqlJobStore) -> Iterator[Seen]:
    seen, ended, failed = Seen(), threading.Event(), list[BaseException]()

    def call(work: Callable[[], object], seconds: list[float]) -> None:
        try:
            while not ended.wait(_PAUSE_S):
                begun = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begun)
        except BaseException as error:
            failed.append(error)

    def page() -> None:
        store.list_jobs(f"shop-{len(seen.lists) % TENANTS}", limit=_PAGE)

    works = (lambda: create(store), seen.creates), (page, seen.lists)
    threads = [threading.Thread(target=call, args=each) for each in works]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


def quota(store: SqlJobStore) -> dict[str, Any]:
    """Creations with and without caps, in turns; and the queries of the caps, and of the
    stored bytes, by themselves."""
    seconds: dict[str, list[float]] = {"capped": [], "uncapped": [], "caps alone": []}
    for number in range(_CREATES):
        for name, caps in (("capped", CAPS), ("uncapped", NO_CAPS)):
            begun = time.perf_counter()
            create(store, caps)
            seconds[name].append(time.perf_counter() - begun)
        with store.database.writing() as db:
            begun = time.perf_counter()
            admission.admit(db, f"shop-{number % TENANTS}", CAPS, time.time(), waiting=1)
            seconds["caps alone"].append(time.perf_counter() - begun)
    uploads, seconds["stored bytes"] = SqlFiles(store.database), []
    for _ in range(_CREATES):
        begun = time.perf_counter()
        uploads.require_room(FILED, size_bytes=1, max_stored_bytes=10**15)
        seconds["stored bytes"].append(time.perf_counter() - begun)
    return {f"{name}_ms": spread_ms(of) for name, of in seconds.items()}


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"longest": round(1000 * max(seconds, default=0.0), 2)}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "longest": max(seconds)}
    return {name: round(1000 * value, 2) for name, value in named.items()}
