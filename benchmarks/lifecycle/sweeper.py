"""A process that sweeps as the Housekeeper does, and tells what that took."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from sqlalchemy import Connection

from benchmarks.lifecycle.beside import spread_ms
from benchmarks.processes import peak_mb
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.lifecycle.collector import Collector
from storage.lifecycle.orphans import Orphans
from storage.lifecycle.retention import Report, Retention, Tally
from storage.object_store import ObjectStoreConfig, S3ObjectStore

Work = Callable[[Collector], Report]


@dataclass(frozen=True, slots=True)
class Stores:
    url: str  # of the job table
    objects: ObjectStoreConfig


def swept(stores: Stores, retention: Retention, work: Work) -> dict[str, Any]:
    """`work`, importable, in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_sweep, stores, retention, work).result()


def run_once(collector: Collector) -> Report:
    return collector.run_once()


def expire(collector: Collector) -> Report:
    """The job table's part alone."""
    tally = Tally()
    collector.expire(tally)
    return tally.report()


def finish_purges(collector: Collector) -> Report:
    return collector.finish_purges()


def purge_first_tenant(collector: Collector) -> Report:
    return collector.purge_tenant("shop-0")


def _sweep(stores: Stores, retention: Retention, work: Work) -> dict[str, Any]:
    requests = Counter[str]()

    def hear(op: str, seconds: float, size_bytes: int, failure: str | None) -> None:
        requests[op] += 1

    table = SqlJobStore(JobStoreConfig(url=stores.url))
    held_s = _timed_writing(table)
    collector = Collector(table, S3ObjectStore(stores.objects, hear), retention)
    by_class = _timed_classes()
    before_mb, cpu, begun = peak_mb(), time.process_time(), time.perf_counter()
    report = work(collector)
    seconds = time.perf_counter() - begun
    collector.close()
    table.close()
    return {
        "seconds": round(seconds, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "deleted": {kind: number for kind, number in report.deleted.items() if number},
        "left": {kind: number for kind, number in report.left.items() if number},
        "seconds_by_class": {name: round(s, 1) for name, s in by_class.items()},
        "calls_of_the_store": dict(requests),
        "writer_held_ms": spread_ms(held_s),
        "writer_held_share": round(sum(held_s) / seconds, 2),
        "peak_mb": peak_mb(),
        "peak_mb_before": before_mb,
    }


def _timed_writing(table: SqlJobStore) -> list[float]:
    """Seconds from when a transaction may write to the end of its commit."""
    held_s: list[float] = []
    writing = table.database.writing

    @contextmanager
    def timed() -> Iterator[Connection]:
        with writing() as db:
            begun = time.perf_counter()
            yield db
        held_s.append(time.perf_counter() - begun)

    vars(table.database)["writing"] = timed
    return held_s


def _timed_classes() -> dict[str, float]:
    seconds = defaultdict[str, float](float)

    def timed(name: str, collect: Callable[[Orphans], None]) -> Callable[[Orphans], None]:
        def run(orphans: Orphans) -> None:
            begun = time.perf_counter()
            collect(orphans)
            seconds[name.removeprefix("collect_")] += time.perf_counter() - begun

        return run

    for name in [name for name in vars(Orphans) if name.startswith("collect_")]:
        setattr(Orphans, name, timed(name, getattr(Orphans, name)))
    return seconds
