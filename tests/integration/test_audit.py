"""The audit of results: real rows, real objects; what is wrong is found, and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from deployments.housekeeper import Housekeeper
from monitoring import metrics
from monitoring.instruments import Gauge
from storage import keys
from storage.errors import StoreUnavailable
from storage.job_store import SqlJobStore
from storage.jobs import VideoFile
from storage.lifecycle import audit
from storage.lifecycle.audit import Audit, Findings
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.tables import jobs
from tests.recorded import Recorded
from tests.sample_jobs import VIDEO, Clock, make_request, sqlite_url, store_config

NOTHING = Findings()


class Shop:
    """A job table and a bucket."""

    def __init__(self, store: SqlJobStore, objects: S3ObjectStore, clock: Clock):
        self.store, self.objects, self.clock = store, objects, clock
        self.audit = Audit(store.database, objects, clock)

    def complete(self, job_id: str) -> VideoFile:
        """A job whose video and commit are in the bucket."""
        self.clock.now += 1
        folder = f"attempts/{job_id}/1/"
        video = replace(VIDEO, result_id=f"of-{job_id}", video_key=f"{folder}video.mp4")
        self.objects.put(video.video_key, b"video", "video/mp4")
        self.commit(video)
        self.store.create(make_request(job_id), results=[video])
        return video

    def commit(self, video: VideoFile) -> None:
        self.objects.put(result_key(video), video.to_json(), "application/json")

    def expire(self, job_id: str) -> None:
        with self.store.database.writing() as db:
            db.execute(update(jobs).where(jobs.c.id == job_id).values(expired=True))


def result_key(video: VideoFile) -> str:
    return keys.result_key("shop", video.result_id)


def away(_: str) -> bytes:
    raise StoreUnavailable("away")


@pytest.fixture
def shop(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Shop]:
    clock = Clock()
    store = SqlJobStore(store_config(sqlite_url(tmp_path)), clock)
    yield Shop(store, S3ObjectStore(s3), clock)
    store.close()


def test_results_that_stand_are_not_found_wrong(shop: Shop) -> None:
    shop.complete("a")
    shop.store.create(make_request("queued"))
    assert shop.audit.look() == NOTHING


def test_a_result_without_its_commit_or_its_video_is_lost_until_it_is_mended(shop: Shop) -> None:
    a, b = shop.complete("a"), shop.complete("b")
    shop.objects.delete(result_key(a))
    shop.objects.delete(b.video_key)
    assert shop.audit.look() == Findings(lost=frozenset({"a", "b"}))
    assert shop.audit.look() == Findings(lost=frozenset({"a", "b"}))
    shop.commit(a)
    assert shop.audit.look() == Findings(lost=frozenset({"b"}))


def test_a_damaged_commit_is_a_lost_result(shop: Shop) -> None:
    shop.objects.put(result_key(shop.complete("a")), b"{}", "application/json")
    assert shop.audit.look() == Findings(lost=frozenset({"a"}))


def test_a_job_that_shows_another_video_than_was_committed_is_a_duplicate(shop: Shop) -> None:
    a, b = shop.complete("a"), shop.complete("b")
    shop.commit(replace(a, video_key=b.video_key))
    assert shop.audit.look() == Findings(duplicate=frozenset({"a"}))


def test_what_was_deleted_or_has_expired_is_not_lost(shop: Shop) -> None:
    for job_id in ("a", "b"):
        shop.objects.delete(result_key(shop.complete(job_id)))
    assert len(shop.audit.look().lost) == 2
    shop.store.delete("shop", "a")
    shop.expire("b")
    assert shop.audit.look() == NOTHING


def test_each_look_goes_on_where_the_last_one_ended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_AT_ONCE", 2)
    for job_id in ("a", "b", "c"):
        shop.objects.delete(result_key(shop.complete(job_id)))
    shop.clock.now += 10
    assert shop.audit.look() == Findings(lost=frozenset({"a", "b"}))
    assert shop.audit.behind_s == 11  # since the end of b
    assert shop.audit.look() == Findings(lost=frozenset({"a", "b", "c"}))
    assert shop.audit.behind_s is None


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(Gauge, "keep", Gauge.set)  # no thread that says it again into other tests
    return Recorded(monkeypatch)


def test_a_round_of_the_housekeeper_goes_on_until_it_has_seen_all(
    shop: Shop, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_AT_ONCE", 2)
    keeper = object.__new__(Housekeeper)
    keeper._auditor = shop.audit
    for job_id in ("a", "b", "c"):
        shop.objects.delete(result_key(shop.complete(job_id)))
    keeper._audit()
    assert recorded.values(metrics.LOST_RESULTS) == [2, 3]
    assert recorded.values(metrics.AUDIT_LAG) == [1, 0]  # c ended a second after b
    assert len(recorded.values(metrics.AUDITED_AT)) == 1


def test_a_round_that_fails_is_no_success(
    shop: Shop, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = object.__new__(Housekeeper)
    keeper._auditor = shop.audit
    shop.complete("a")
    monkeypatch.setattr(shop.objects, "get", away)
    with pytest.raises(StoreUnavailable):
        keeper._audit()
    assert recorded.values(metrics.AUDITED_AT) == []


def test_an_object_that_is_deleted_after_its_first_look_is_found_too(shop: Shop) -> None:
    a, b = shop.complete("a"), shop.complete("b")
    assert shop.audit.look() == NOTHING
    shop.objects.delete(result_key(a))
    assert shop.audit.look() == Findings(lost=frozenset({"a"}))
    shop.objects.delete(b.video_key)
    assert shop.audit.look() == Findings(lost=frozenset({"a", "b"}))


def test_of_many_some_are_drawn_until_the_lost_one_is_among_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_AT_ONCE", 3)
    first = shop.complete("a")
    for number in range(5):
        shop.complete(f"other-{number}")
    while shop.audit.look() == NOTHING and shop.audit.behind_s is not None:
        pass
    shop.objects.delete(result_key(first))
    looks = 0
    while shop.audit.look() == NOTHING:  # three of six each time: 1 in 2^200 that it never comes
        looks += 1
        assert looks < 200


def test_the_day_is_looked_at_again_and_nothing_older(shop: Shop) -> None:
    a = shop.complete("a")
    assert shop.audit.look() == NOTHING
    shop.clock.now += 86_401
    shop.objects.delete(result_key(a))
    assert shop.audit.look() == NOTHING


def test_jobs_that_ended_in_an_outage_of_days_are_not_passed_over(shop: Shop) -> None:
    shop.complete("a")
    assert shop.audit.look() == NOTHING
    shop.objects.delete(result_key(shop.complete("b")))
    shop.clock.now += 3 * 86_400
    assert shop.audit.look() == Findings(lost=frozenset({"b"}))


def test_after_an_outage_of_the_store_the_same_jobs_are_looked_at(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.objects.delete(result_key(shop.complete("a")))

    with monkeypatch.context() as outage:
        outage.setattr(shop.objects, "get", away)
        with pytest.raises(StoreUnavailable):
            shop.audit.look()
    assert shop.audit.look().lost == {"a"}
