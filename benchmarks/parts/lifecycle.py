"""The life of what is stored, at size: quotas, orphans, retention by class, the purge of a tenant
on a million jobs beside a full bucket; then a smaller table on Postgres.

Every sweep is a process of its own, as the Housekeeper is one; beside it this process creates jobs
and lists them as the API does. What has to go goes and nothing else: of every key that is asserted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.lifecycle import sweeper
from benchmarks.lifecycle.beside import CAPS, FILED, callers, quota
from benchmarks.lifecycle.bucket import Contents, put_all
from benchmarks.lifecycle.postgres import postgres_url
from benchmarks.lifecycle.sample import SHARES, Fate, Layout, tenant_of
from benchmarks.lifecycle.sweeper import Stores, Work, swept
from benchmarks.lifecycle.table import count, fill, fill_files
from cluster.embedded_s3 import EmbeddedS3
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.lifecycle.collector import Collector
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig, S3ObjectStore

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    rows: int
    orphans: int  # deleted jobs that left something
    postgres_rows: int


FULL, SMALL = Scale(1_000_000, 2000, 200_000), Scale(10_000, 100, 10_000)

_TOO_OLD = 0.55
"""Of all rows, so many are too old to have a video: half of all have lost it long ago."""
_ALONE_S = 10.0
_SETTLED_S = 3.0  # beyond the grace period, and the whole seconds that listings round to
_PURGED = "shop-0"
_FOR_EVER = Retention(
    inputs_s=None, attempts_s=None, checkpoints_s=None, deliveries_s=None, grace_s=1
)


def measure(scale: Scale = FULL) -> Figures:
    layout = Layout(scale.rows, scale.orphans, time.time())
    with TemporaryDirectory(prefix="reel-") as temp, EmbeddedS3(Path(temp) / "s3") as server:
        # It stores what is measured on the disk that is measured: let it be slow.
        objects = server.config.model_copy(update={"read_timeout_s": 300.0})
        with _opened(layout, f"sqlite:///{Path(temp) / 'jobs.sqlite'}", objects) as bench:
            figures = bench.table() | bench.bucket()
        layout = Layout(scale.postgres_rows, 0, time.time())
        with postgres_url() as url, _opened(layout, url, objects) as bench:
            return figures | {"on Postgres": bench.table() | bench.forget()}


@contextmanager
def _opened(layout: Layout, url: str, objects: ObjectStoreConfig) -> Iterator["Bench"]:
    store = SqlJobStore(JobStoreConfig(url=url))
    try:
        yield Bench(layout, store, Stores(url, objects), Console(stderr=True))
    finally:
        store.close()


@dataclass(frozen=True, slots=True)
class Bench:
    layout: Layout
    store: SqlJobStore
    stores: Stores
    console: Console

    def table(self) -> Figures:
        """Filled, and used while nothing is swept."""
        begun = time.perf_counter()
        fill(self.store.database, self.layout)
        seconds = time.perf_counter() - begun
        fill_files(self.store.database, FILED, self.layout.rows // 10)
        self._say(f"{self.layout.rows:,} rows in {seconds:.0f} s")
        with callers(self.store) as seen:
            time.sleep(_ALONE_S)
        return {
            "rows": self.layout.rows,
            "rows_by_fate": {
                fate: round(share * self.layout.rows) for fate, share in SHARES.items()
            },
            "rows_filled_per_second": round(self.layout.rows / seconds),
            "callers alone": seen.figures(),
            "quota": {
                "caps": asdict(CAPS),
                "files of a tenant": self.layout.rows // 10,
                **quota(self.store),
            },
        }

    def bucket(self) -> Figures:
        """Swept class by class, until only what is not over is left."""
        objects = S3ObjectStore(self.stores.objects)
        objects.ensure_bucket()
        # The table begins before what is written beside it.
        Collector(self.store, objects, _FOR_EVER).close()
        begun = time.perf_counter()
        put = put_all(self.layout, self.stores.objects)
        seconds = time.perf_counter() - begun
        self._say(f"{put:,} objects in {seconds:.0f} s")
        contents = Contents.planned(self.layout)
        figures: Figures = {
            "objects": put,
            "objects_by_class": contents.by_class(),
            "objects_put_per_second": round(put / seconds),
        }
        assert put == len(contents.objects)
        time.sleep(_SETTLED_S)
        return figures | {
            "orphans": self._orphans(contents, objects),
            "inputs, attempts, checkpoints": self._by_class(contents, objects),
            "results": self._results(contents, objects),
            "a tenant": self._tenant(contents, objects),
            "jobs": self.forget(),
        }

    def _orphans(self, contents: Contents, objects: S3ObjectStore) -> Figures:
        figures = self._swept("orphans", sweeper.run_once, _FOR_EVER)
        gone = contents.remove(lambda one: one.fate is None)
        contents.check(objects)
        return figures | {"objects_gone": gone}

    def _by_class(self, contents: Contents, objects: S3ObjectStore) -> Figures:
        soon = {"inputs_s": 1.0, "attempts_s": 1.0, "checkpoints_s": 1.0}
        retention = _FOR_EVER.model_copy(update=soon)
        figures = self._swept("by class", sweeper.run_once, retention)
        live = (Fate.RUNNING, Fate.QUEUED)
        gone = contents.remove(
            lambda one: (
                one.fate not in live
                and (one.kind == "inputs" or (one.fate is Fate.FAILED and one.kind != "jobs"))
            )
        )
        contents.check(objects)
        return figures | {"objects_gone": gone}

    def _results(self, contents: Contents, objects: S3ObjectStore) -> Figures:
        first_kept = round(_TOO_OLD * self.layout.rows)
        # Between two rows' ends, and told anew: minutes have passed since the table was filled.
        cut = (self.layout.completed_at(first_kept - 1) + self.layout.completed_at(first_kept)) / 2
        retention = _FOR_EVER.model_copy(update={"results_s": time.time() - cut})
        expired = self._swept("results, rows", sweeper.expire, retention)
        purged = self._swept("results, objects", sweeper.finish_purges, _FOR_EVER)
        gone = contents.remove(
            lambda one: (
                one.fate is Fate.KEPT
                and one.number < first_kept
                and one.kind in ("results", "attempts")
            )
        )
        contents.check(objects)
        assert expired["deleted"]["expired results"] == first_kept - round(
            SHARES[Fate.EXPIRED] * self.layout.rows
        )
        return {"rows": expired, "objects": purged, "objects_gone": gone}

    def _tenant(self, contents: Contents, objects: S3ObjectStore) -> Figures:
        before = count(self.store.database)
        theirs = before.pop(_PURGED)
        figures = self._swept("tenant", sweeper.purge_first_tenant, _FOR_EVER)
        gone = contents.remove(lambda one: tenant_of(one.number) == _PURGED)
        contents.check(objects)
        assert count(self.store.database) == before
        return figures | {"jobs": theirs, "objects_gone": gone}

    def forget(self) -> Figures:
        """Every job that has ended, the row alone: their objects are as many purges as above."""
        before = sum(count(self.store.database).values())
        retention = _FOR_EVER.model_copy(update={"rows_s": 1.0})
        figures = self._swept("jobs", sweeper.expire, retention)
        left = sum(count(self.store.database).values())
        assert before - left == figures["deleted"]["jobs"]
        return figures | {"rows_per_second": round((before - left) / figures["seconds"])}

    def _swept(self, name: str, work: Work, retention: Retention) -> Figures:
        with callers(self.store) as seen:
            figures = swept(self.stores, retention, work)
        self._say(f"{name}: {figures['seconds']} s, {figures['deleted']}")
        return figures | {"callers beside it": seen.figures()}

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)
