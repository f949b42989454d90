"""Looking after batches as a chore of the Housekeeper."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from catalog.batches.keeper import BatchKeeper, Command
from catalog.batches.preparing import Preparing
from catalog.run.config import CatalogConfig
from catalog.run.submission import DriverJobs
from monitoring.store_calls import count_store_call
from storage.batches import SqlBatches
from storage.files import SqlFiles
from storage.job_store import SqlJobStore
from storage.object_store import ObjectStoreConfig, in_bucket

_BUCKETS_KEPT = 16
"""Open, with their connections."""


@dataclass(frozen=True)
class FollowBatches:
    """Several at once, so that a long check holds up nobody."""

    config: CatalogConfig
    objects: ObjectStoreConfig
    model: str
    command: Command
    at_once: int = 4

    @property
    def every_s(self) -> float:
        return self.config.follow_every_s / 2

    def begin(self, jobs: SqlJobStore) -> Callable[[], None]:
        bucket = lru_cache(_BUCKETS_KEPT)(partial(in_bucket, self.objects, hear=count_store_call))
        batches, own = SqlBatches(jobs.database), self.objects.bucket
        preparing = Preparing(bucket, own, SqlFiles(jobs.database), self.model)
        return BatchKeeper(
            self.config,
            batches,
            jobs,
            preparing,
            bucket,
            own,
            DriverJobs.of_this_cluster,
            self.command,
        ).round
