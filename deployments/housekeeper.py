"""Housekeeper: what has to be done beside the jobs. Sends webhooks, tidies and audits the
stores, counts what has ended, and does the chores that it is given.

One replica will do, and nothing depends on there being just one: webhooks are claimed in the table,
and collecting twice finds nothing the second time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pydantic import Field

from cluster.stage import StageConfig
from deployments.egress.client import Egress, EgressConfig
from deployments.egress.courier import Courier
from deployments.egress.webhooks import WebhookConfig
from deployments.job_ends import begin_counting_ends, count_end
from monitoring import metrics
from monitoring.store_calls import count_store_call
from storage.deliveries import SqlDeliveries
from storage.errors import StorageError
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.lifecycle.audit import Audit
from storage.lifecycle.collector import Collector
from storage.lifecycle.records import record_ends
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig, S3ObjectStore

log = logging.getLogger(__name__)

_LAST_WRITES_S = 5.0
_ENDS_AT_ONCE = 200


class HousekeeperConfig(StageConfig):
    num_cpus: float = Field(0.1, ge=0)
    follow_every_s: float = Field(
        5.0, gt=0, description="records of ended jobs, objects of deleted ones"
    )
    tidy_every_s: float = Field(3600.0, gt=0, description="each time lists the whole bucket")
    audit_every_s: float = Field(
        60.0,
        gt=0,
        description="looks up the results of jobs completed since, and of 200 of the day's again",
    )


class Chore(Protocol):
    """Work of a package above this one."""

    @property
    def every_s(self) -> float: ...

    @property
    def at_once(self) -> int:
        """Rounds side by side, in threads."""
        ...

    def begin(self, jobs: SqlJobStore) -> Callable[[], None]:
        """Gives a round. That may raise StorageError: the next one goes on with it."""
        ...


class Housekeeper:
    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: HousekeeperConfig,
        jobs: JobStoreConfig,
        objects: ObjectStoreConfig,
        webhooks: WebhookConfig,
        egress: EgressConfig,
        retention: Retention,
        chores: Sequence[Chore] = (),
        tiers: Sequence[str] = (),
    ):
        self._config = config
        store, self._objects = SqlJobStore(jobs), S3ObjectStore(objects, count_store_call)
        self._database = store.database
        self._courier = Courier(webhooks, Egress(egress), SqlDeliveries(self._database))
        self._collector = Collector(store, self._objects, retention)
        self._auditor = Audit(self._database, self._objects)
        begin_counting_ends(tiers)
        rounds = [
            (self._record, config.follow_every_s),
            (self._purge, config.follow_every_s),  # by itself: after a sweep it may take minutes
            (self._tidy, config.tidy_every_s),
            (self._audit, config.audit_every_s),
            *(
                (chore.begin(store), chore.every_s)
                for chore in chores
                for _ in range(chore.at_once)
            ),
        ]
        # A sweep lasts minutes, a purge too: neither takes a thread from the webhooks.
        self._threads = ThreadPoolExecutor(len(rounds), "housekeeping")
        self._loops = [
            asyncio.create_task(self._courier.run()),
            *(asyncio.create_task(self._repeat(*each)) for each in rounds),
        ]

    async def check_health(self) -> None:
        """Fail when a loop has ended, so that Serve replaces this replica."""
        for loop in self._loops:
            if loop.done():
                why = None if loop.cancelled() else loop.exception()
                raise RuntimeError("a housekeeper loop has ended") from why

    async def __del__(self) -> None:
        """Serve awaits this when it replaces the replica."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._threads.shutdown(wait=False)
        await self._courier.drain(max(0.0, self._config.drain_s - _LAST_WRITES_S))

    async def _repeat(self, work: Callable[[], None], every_s: float) -> None:
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except StorageError:
                log.exception("the stores are not all tidied; the next round goes on with it")
            await asyncio.sleep(every_s)

    def _record(self) -> None:
        while record_ends(self._database, self._objects, _ENDS_AT_ONCE, count_end):
            pass

    def _purge(self) -> None:
        self._collector.finish_purges()

    def _tidy(self) -> None:
        log.info("tidied: %s", self._collector.run_once())

    def _audit(self) -> None:
        while True:
            found = self._auditor.look()
            metrics.LOST_RESULTS.keep(len(found.lost))
            metrics.DUPLICATE_RESULTS.keep(len(found.duplicate))
            metrics.AUDIT_LAG.keep(self._auditor.behind_s or 0.0)
            for what, job_ids in (("lost", found.lost), ("another one", found.duplicate)):
                if job_ids:
                    log.error("results that are %s: %s", what, ", ".join(sorted(job_ids)[:20]))
            if self._auditor.behind_s is None:
                metrics.AUDITED_AT.keep(time.time())
                return
