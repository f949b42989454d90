"""Sweeps of more than a page go through all of it, and on where they broke off; what lives stays.
`make bench PART=lifecycle` does the same with a million rows."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.errors import StoreUnavailable
from storage.job_store import SqlJobStore
from storage.lifecycle.collector import Collector
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.tables import jobs, purges
from tests.integration.bucket import (
    all_keys,
    commit,
    folder_keys,
    put_checkpoint,
    put_photo,
    record,
    request_of,
)
from tests.postgres import Postgres
from tests.sample_jobs import lease_one, sqlite_url, store_config

SOON = Retention(checkpoints_s=1, attempts_s=1, grace_s=1)
SETTLED_S = 2.5  # beyond SOON, and the whole seconds that listings round to
MANY = 1050  # more than a page


class Breaking(S3ObjectStore):
    """Goes away after so many deletions."""

    left = 4

    def delete_many(self, keys: Iterable[str]) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("gone away")
        super().delete_many(keys)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    yield store
    store.close()


def collect(store: SqlJobStore, objects: S3ObjectStore) -> Collector:
    """Of a table that began before anything was written."""
    collector = Collector(store, objects, SOON)
    time.sleep(SOON.grace_s + 1)
    return collector


def test_orphans_of_many_pages_go_though_the_store_breaks_off_and_live_attempts_stay(
    store: SqlJobStore, s3: ObjectStoreConfig
) -> None:
    objects = S3ObjectStore(s3)
    broken = collect(store, Breaking(s3))
    requests = [request_of(f"gone-{number}", f"photo-{number}") for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_checkpoint(objects, f"gone-{number}", 1), range(MANY)))
        list(pool.map(lambda request: commit(objects, request), requests[:120]))
    live = request_of("live", "live")
    put_photo(objects, live)
    record(objects, store.create(live))
    attempt = lease_one(store, store.next_epoch())
    put_checkpoint(objects, "live", 1)
    video = commit(objects, live)  # and nobody was told yet
    mine = {key for key in all_keys(objects) if "gone" not in key and "results" not in key}
    assert folder_keys("live", 1) <= mine
    time.sleep(SETTLED_S)
    with pytest.raises(StoreUnavailable):
        broken.run_once()
    broken.close()
    left = all_keys(objects)
    assert mine < left
    sound = Collector(store, objects, SOON)
    sound.run_once()
    sound.close()
    (the_commit,) = all_keys(objects) - mine
    assert the_commit.startswith("results/shop/")
    assert store.complete(attempt, video).result == video
    # Two to a result, which the first sweep noted before the store went away: none is noted twice.
    with store.database.reading() as db:
        noted = db.scalars(select(purges.c.result_id)).all()
    assert len(noted) == len(set(noted)) == 120


def test_a_job_that_a_worker_holds_is_purged_with_its_tenant_when_it_lets_go(
    s3: ObjectStoreConfig,
) -> None:
    """On Postgres: whoever changes many rows waits for none."""
    objects = S3ObjectStore(s3)
    with Postgres() as server:
        store = SqlJobStore(store_config(server.new_database()))
        for number in range(3):
            store.create(request_of(f"job-{number}"))
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with store.database.writing() as db:
                db.execute(select(jobs).where(jobs.c.id == "job-1").with_for_update()).one()
                held.set()
                let_go.wait(30)

        worker = threading.Thread(target=hold)
        worker.start()
        assert held.wait(30)
        letting_go = threading.Timer(1.0, let_go.set)
        letting_go.start()
        collector = Collector(store, objects, SOON)
        report = collector.purge_tenant("shop")
        collector.close()
        worker.join()
        assert report.deleted["jobs"] == 3
        assert store.list_jobs("shop", limit=9) == []
        store.close()
