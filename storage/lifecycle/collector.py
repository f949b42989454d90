"""The life of what is kept: deletions are finished, what is old expires, garbage is collected."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

from sqlalchemy import Table, delete, exists, select

from storage import keys
from storage.errors import StoreUnavailable
from storage.job_store import SqlJobStore
from storage.lifecycle import forgetting
from storage.lifecycle.birth import knows_since
from storage.lifecycle.orphans import Orphans
from storage.lifecycle.pages import delete_page, pages
from storage.lifecycle.purging import Purger
from storage.lifecycle.retention import Report, Retention, Tally
from storage.object_store import ObjectStore
from storage.sql import tenancy
from storage.sql.tables import api_keys, batches, creations, deliveries, endpoints, files, tenants

_CONNECTIONS = 8
_BATCH = 500  # rows per transaction: others write in between
_HELD_S = 0.1
_FILES = "files of batches"


class Collector:
    """Keep one per deployment: two would do the same work twice, though nothing worse. `clock` is
    that of the job store, in Unix seconds."""

    def __init__(
        self,
        jobs: SqlJobStore,
        objects: ObjectStore,
        retention: Retention,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = jobs.database
        self._objects, self._retention, self._clock = objects, retention, clock
        self._pool = ThreadPoolExecutor(_CONNECTIONS, "collector")
        self._purger = Purger(jobs, objects, self._pool, clock)
        knows_since(self._database, clock())

    def run_once(self) -> Report:
        """Everything that is due. Costs a listing of the whole bucket: run it every hour or so.
        Raises StoreUnavailable; a later run goes on with what is left."""
        tally = Tally()
        self.expire(tally)
        orphans = Orphans(
            self._database,
            self._objects,
            self._pool,
            self._retention,
            self._clock(),
            self._store_now(),
            knows_since(self._database, self._clock()),
            tally,
        )
        orphans.collect_results()  # before the purges, which are how these are deleted
        self._purger.run(tally)
        orphans.collect_records()
        orphans.collect_checkpoints()
        orphans.collect_attempts()
        orphans.collect_inputs()
        orphans.collect_probes()
        self._forget_batches(tally)
        return tally.report()

    def finish_purges(self) -> Report:
        """What was deleted since, of whichever age. Costs a few requests a job and no listing of
        the bucket: run it every few seconds, since a job with the same result waits for it."""
        tally = Tally()
        self._purger.run(tally)
        return tally.report()

    def expire(self, tally: Tally) -> None:
        """The job table's part: results, jobs and webhooks whose time is over."""
        now, kept = self._clock(), self._retention
        expire = partial(forgetting.expire_results, now=now)
        forget = partial(forgetting.forget_ended, now=now)
        for kind, keep_s, step in (
            ("expired results", kept.results_s, expire),
            ("jobs", kept.rows_s, forget),
            ("deliveries", kept.deliveries_s, forgetting.forget_deliveries),
            ("endpoints", kept.endpoints_s, forgetting.forget_endpoints),
        ):
            if keep_s is not None:
                self._in_batches(kind, tally, partial(step, before=now - keep_s))

    def purge_tenant(self, tenant: str) -> Report:
        """Everything that is a tenant's. Its keys and the tenant itself go first, so that nobody
        creates anew what was deleted; a run that broke off is run again. Raises StoreUnavailable.

        What a worker was writing at that moment is left to the collection of garbage.
        """
        tally, now = Tally(), self._clock()
        for table in (api_keys, tenants):
            self._delete_few(table, tenant, tally)
        self._delete_rows(batches, tenant, tally)  # whose drivers stop without a key
        forget = partial(forgetting.forget_tenant, tenant=tenant, now=now)
        self._in_batches("jobs", tally, forget)
        while self._is_left(tenant):
            time.sleep(_HELD_S)  # by a worker that tells of it
            self._in_batches("jobs", tally, forget)
        for page in pages(self._objects.iter_objects(keys.results_prefix(tenant))):
            ids = (info.key.rpartition("/")[2].removesuffix(".json") for info in page)
            self._purger.delete_results([(tenant, result_id) for result_id in ids])
            tally.deleted["results"] += len(page)
        self._purger.run_tenant(tenant, tally)
        self._delete_folder(keys.inputs_prefix(tenant), "inputs", tally)
        self._delete_folder(keys.batches_prefix(tenant), _FILES, tally)
        for table in (files, creations, deliveries):
            self._delete_rows(table, tenant, tally)
        self._delete_few(endpoints, tenant, tally)
        return tally.report()

    def close(self) -> None:
        self._pool.shutdown()

    def _forget_batches(self, tally: Tally) -> None:
        """Those that ended so long ago; their folders first: a run that breaks off finds the row
        again. One whose folder a later batch goes on with stays for as long as that."""
        if self._retention.rows_s is None:
            return
        before, seen = self._clock() - self._retention.rows_s, 0
        # None ended before it was created.
        over = batches.c.due_at.is_(None) & (batches.c.created_at < before)
        later = batches.alias()
        over &= ~exists().where(
            later.c.output_uri == batches.c.output_uri, later.c.seq > batches.c.seq
        )
        names = select(batches.c.seq, batches.c.id, batches.c.tenant, batches.c.moments)
        while True:
            page = names.where(over, batches.c.seq > seen).order_by(batches.c.seq).limit(_BATCH)
            with self._database.reading() as db:
                found = list(db.execute(page))
            for row in found:
                if max(json.loads(row.moments).values(), default=0.0) < before:
                    self._delete_batch(row.id, row.tenant, tally)
            if len(found) < _BATCH:
                return
            seen = found[-1].seq

    def _delete_batch(self, batch_id: str, tenant: str, tally: Tally) -> None:
        self._delete_folder(f"{keys.batch_folder(tenant, batch_id)}/", _FILES, tally)
        with self._database.writing() as db:
            db.execute(delete(batches).where(batches.c.id == batch_id))
        tally.deleted["batches"] += 1

    def _delete_folder(self, prefix: str, kind: str, tally: Tally) -> None:
        for page in pages(self._objects.iter_objects(prefix)):
            delete_page(self._objects, self._pool, (info.key for info in page))
            tally.deleted[kind] += len(page)

    def _is_left(self, tenant: str) -> bool:
        with self._database.reading() as db:
            return forgetting.is_left(db, tenant)

    def _in_batches(self, kind: str, tally: Tally, step: Callable[..., int]) -> None:
        while True:
            with self._database.writing() as db:
                begun = time.monotonic()
                done = step(db, limit=_BATCH)
            tally.deleted[kind] += done
            if done < _BATCH:
                return
            # SQLite's lock has no line: who comes back for it at once takes it from those who wait.
            time.sleep(time.monotonic() - begun)

    def _delete_rows(self, table: Table, tenant: str, tally: Tally) -> None:
        """Of a tenant that is gone. They are looked for while nobody is kept from writing."""
        seq, last = table.c.seq, 0
        mine = select(seq).where(table.c.tenant == tenant).order_by(seq).limit(_BATCH)
        while True:
            with self._database.reading() as db:
                found = db.scalars(mine.where(seq > last)).all()
            if not found:
                return
            last = found[-1]
            with self._database.writing() as db:
                gone = db.execute(delete(table).where(seq.in_(found))).rowcount
            tally.deleted[table.name] += gone

    def _delete_few(self, table: Table, tenant: str, tally: Tally) -> None:
        column = table.c.name if table is tenants else table.c.tenant
        with self._database.writing() as db:
            tenancy.end(db, tenant)
            tally.deleted[table.name] += db.execute(delete(table).where(column == tenant)).rowcount

    def _store_now(self) -> float:
        """Unix seconds by the clock that dates the objects: ours may go differently."""
        key = f"_probe/{uuid4().hex}"
        self._objects.put(key, b"", "text/plain")
        probe = self._objects.stat(key)
        self._objects.delete(key)
        if probe is None:
            raise StoreUnavailable(f"{key} was written and is not there")
        return probe.modified_at
