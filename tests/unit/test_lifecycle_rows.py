"""Forgetting jobs in bulk keeps the rules of forgetting one, in transactions that let others in."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from storage.deliveries import Outcome, SqlDeliveries
from storage.job_store import SqlJobStore
from storage.jobs import JobStatus
from storage.lifecycle import forgetting
from storage.lifecycle.birth import knows_since, note_rebuilt
from storage.lifecycle.retention import Retention
from storage.sql.tables import files, jobs, purges
from tests.sample_jobs import (
    VIDEO,
    Clock,
    lease_one,
    make_request,
    sqlite_url,
    store_config,
)


def complete(store: SqlJobStore, job_id: str, result_id: str = "r", tenant: str = "shop") -> None:
    video = replace(VIDEO, result_id=result_id)
    store.create(make_request(job_id, tenant), results=[video])


def noted(store: SqlJobStore) -> dict[str, str | None]:
    return {purge.job_id: purge.result_id for purge in store.purges(100)}


def forget(store: SqlJobStore, before: float, limit: int = 1000) -> int:
    with store.database.writing() as db:
        return forgetting.forget_ended(db, before, limit, 0.0)


def test_a_result_goes_with_the_last_job_that_refers_to_it(
    store: SqlJobStore, clock: Clock
) -> None:
    complete(store, "old-1")
    complete(store, "old-2")
    clock.now += 100
    complete(store, "new")
    assert forget(store, clock.now) == 2
    assert noted(store) == {"old-1": None, "old-2": None}
    clock.now += 100
    assert forget(store, clock.now) == 1
    assert noted(store)["new"] == "r"


def test_of_jobs_forgotten_together_one_takes_the_shared_result_along(
    store: SqlJobStore, clock: Clock
) -> None:
    for job_id in ("a", "b", "c"):
        complete(store, job_id)
    complete(store, "other", tenant="rival")  # the same id, another tenant's result
    clock.now += 1
    assert forget(store, clock.now) == 4
    going = [(p.tenant, p.result_id) for p in store.purges(9) if p.result_id]
    assert sorted(going) == [("rival", "r"), ("shop", "r")]


def test_only_jobs_that_have_ended_are_forgotten(store: SqlJobStore, clock: Clock) -> None:
    store.create(make_request("running"))
    epoch = store.next_epoch()
    lease_one(store, epoch)
    store.create(make_request("failed"))
    attempt = lease_one(store, epoch)
    store.fail(attempt, "internal", "broken")
    store.create(make_request("cancelled"))
    store.cancel("shop", "cancelled")
    store.create(make_request("queued"))
    clock.now += 1e6
    assert forget(store, clock.now) == 2
    left = store.get_many(["running", "failed", "cancelled", "queued"])
    assert {job.id for job in left} == {"running", "queued"}


def test_nobody_refers_to_a_result_while_it_is_noted(store: SqlJobStore, clock: Clock) -> None:
    complete(store, "a")
    clock.now += 1
    forget(store, clock.now)
    job = store.create(make_request("b"), results=[replace(VIDEO, result_id="r")])
    assert job.status is JobStatus.QUEUED


def test_a_job_whose_video_expires_stays_and_says_so(store: SqlJobStore, clock: Clock) -> None:
    complete(store, "unrecorded")
    complete(store, "recorded")
    complete(store, "shared", "s")
    clock.now += 100
    complete(store, "fresh", "s")
    with store.database.writing() as db:
        db.execute(text("UPDATE jobs SET recorded = true WHERE id <> 'unrecorded'"))
    with store.database.writing() as db:
        assert forgetting.expire_results(db, clock.now, 1000, clock.now) == 2
    expired = {job.id: job.expired for job in store.get_many(["unrecorded", "recorded", "fresh"])}
    assert expired == {"unrecorded": False, "recorded": True, "fresh": False}
    # The unrecorded one still refers to r, the fresh one to s.
    assert noted(store) == {"recorded": None, "shared": None}


def test_an_orphaned_result_is_not_noted_once_a_job_refers_to_it(store: SqlJobStore) -> None:
    complete(store, "a", "mine")
    with store.database.writing() as db:
        assert not forgetting.doom_result(db, ("shop", "mine"), "x", 0.0)
        assert forgetting.doom_result(db, ("shop", "nobodys"), "x", 0.0)
        assert not forgetting.doom_result(db, ("shop", "nobodys"), "x", 0.0)  # noted already


def test_a_photo_is_used_by_live_jobs_recent_jobs_and_files(
    store: SqlJobStore, clock: Clock
) -> None:
    def create(job_id: str, sha256: str) -> None:
        store.create(replace(make_request(job_id), photo_sha256=sha256))

    create("ended-long-ago", "old")
    store.cancel("shop", "ended-long-ago")
    create("queued", "live")
    clock.now += 100
    create("ended-lately", "recent")
    store.cancel("shop", "ended-lately")
    with store.database.writing() as db:
        values = {
            "id": "f",
            "tenant": "shop",
            "purpose": "vision",
            "filename": "a.png",
            "media_type": "image/png",
            "size_bytes": 1,
            "sha256": "uploaded",
            "created_at": 0.0,
        }
        db.execute(insert(files).values(values))
    asked = {("shop", sha) for sha in ("old", "live", "recent", "uploaded", "unknown")}
    asked.add(("rival", "live"))
    with store.database.reading() as db:
        used = forgetting.used_photos(db, asked, clock.now - 50)
        known = forgetting.known_photos(db, asked)
    assert used == {("shop", "live"), ("shop", "recent"), ("shop", "uploaded")}
    assert known == {("shop", "old"), ("shop", "live"), ("shop", "recent")}


def test_only_webhooks_that_are_over_are_forgotten(store: SqlJobStore, clock: Clock) -> None:
    sent = SqlDeliveries(store.database, clock)
    for job_id in ("told", "untold"):
        store.create(replace(make_request(job_id), webhook=f"https://{job_id}.example/"))
        store.cancel("shop", job_id)
    (told,) = sent.of_job("told")
    sent.end(told, Outcome.DELIVERED, "204")
    with store.database.writing() as db:
        assert forgetting.forget_deliveries(db, clock.now + 1, 1000) == 1
    assert (sent.of_job("told"), len(sent.of_job("untold"))) == ([], 1)


def test_a_webhook_address_that_was_given_up_is_tried_again_some_day(
    store: SqlJobStore, clock: Clock
) -> None:
    sent = SqlDeliveries(store.database, clock)
    for number in range(5):
        sent.disable("shop", f"https://{number}.example/", "410")
    sent.disable("rival", "https://fresh.example/", "410")
    clock.now += 100
    sent.disable("shop", "https://fresh.example/", "410")
    forgotten = []
    for _ in range(4):
        with store.database.writing() as db:
            forgotten.append(forgetting.forget_endpoints(db, clock.now, 2))
    assert forgotten == [2, 2, 2, 0]
    assert not sent.is_disabled("shop", "https://0.example/")
    assert sent.is_disabled("shop", "https://fresh.example/")


def test_a_table_knows_only_what_came_after_its_beginning(store: SqlJobStore, clock: Clock) -> None:
    assert knows_since(store.database, clock.now) == clock.now
    assert knows_since(store.database, clock.now + 50) == clock.now
    note_rebuilt(store.database, clock.now + 60)
    assert knows_since(store.database, clock.now + 70) == 0.0


def test_a_table_of_an_earlier_release_is_as_old_as_its_first_job(
    store: SqlJobStore, clock: Clock
) -> None:
    store.create(make_request("a"))
    assert knows_since(store.database, clock.now + 500) == clock.now


def test_retention_refuses_what_would_collect_at_once() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Retention(grace_s=0)
    with pytest.raises(ValueError, match="extra"):
        Retention.model_validate({"videos_s": 3})


def test_a_backlog_of_old_jobs_goes_in_short_transactions_while_new_ones_are_created(
    tmp_path: Path,
) -> None:
    """`make bench PART=lifecycle` does so with a million and a clock."""
    rows, batch = 5_000, 500
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    store.create(make_request("template"), results=[VIDEO])
    with store.database.writing() as db:
        insert_copies(db, "template", rows)
    created = 0
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with store.database.writing() as db:
            forgotten.append(forgetting.forget_ended(db, 1e6, batch, time.time()))
        created += store.create(make_request(f"new-{created}")).status is JobStatus.QUEUED
    assert sum(forgotten) == rows
    assert max(forgotten) == batch
    assert created == len(forgotten) == rows // batch + 1
    with store.database.reading() as db:
        assert len(db.execute(select(purges.c.seq)).all()) == rows
        assert db.scalar(text("SELECT count(DISTINCT result_id) FROM purges")) == rows // 2 + 1
    store.close()


def insert_copies(db: Connection, job_id: str, count: int) -> None:
    """Rows like that of an ended job, by plain SQL: completed at 0.001 s, 0.002 s, ... after 1970,
    each two with one result."""
    own = ("seq", "id", "result_id", "completed_at")
    names = ", ".join(column.name for column in jobs.c if column.name not in own)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
    rows = f"SELECT 'copy-' || i, 'r' || (i / 2), i / 1000.0, {names} FROM n, jobs WHERE id = :id"
    db.execute(
        text(f"{numbers} INSERT INTO jobs (id, result_id, completed_at, {names}) {rows}"),
        {"count": count, "id": job_id},
    )
