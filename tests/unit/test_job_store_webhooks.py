"""Webhooks are written with the end of their job, on SQLite and Postgres."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Row, delete, select

from storage.errors import ResultPurged
from storage.job_store import Idempotency, JobStore, SqlJobStore
from storage.jobs import JobRequest
from storage.sql import outbox
from storage.sql.tables import deliveries, jobs
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, VIDEO, Clock, lease_one, make_request

URL = "https://example.com/hook"


def hooked(job_id: str, deadline_at: float | None = None) -> JobRequest:
    return dataclasses.replace(make_request(job_id, deadline_at=deadline_at), webhook=URL)


def queued_webhooks(store: SqlJobStore) -> list[Row[Any]]:
    with store.database.reading() as db:
        return list(db.execute(select(deliveries).order_by(deliveries.c.seq)).all())


def completed(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    store.complete(lease_one(store, store.next_epoch()), VIDEO)


def completed_at_once(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"), results=[VIDEO])


def failed(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    store.fail(lease_one(store, store.next_epoch()), "internal", "")


def given_back_too_often(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    epoch = store.next_epoch()
    for _ in range(MAX_ATTEMPTS):
        store.release(lease_one(store, epoch), "worker_lost")


def lost_too_often(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    epoch = store.next_epoch()
    for _ in range(MAX_ATTEMPTS):
        lease_one(store, epoch)
        clock.now += LEASE_S
    store.lease(epoch, {})


def waited_too_long(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a", deadline_at=clock.now + 1))
    clock.now += 2
    store.expire(store.next_epoch())


def cancelled_in_the_queue(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    store.cancel("shop", "a")


def cancelled_at_work(store: JobStore, clock: Clock) -> None:
    store.create(hooked("a"))
    lease_one(store, store.next_epoch())
    store.cancel("shop", "a")


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (completed, "video.completed"),
        (completed_at_once, "video.completed"),
        (failed, "video.failed"),
        (given_back_too_often, "video.failed"),
        (lost_too_often, "video.failed"),
        (waited_too_long, "video.failed"),
        (cancelled_in_the_queue, "video.cancelled"),
        (cancelled_at_work, "video.cancelled"),
    ],
)
def test_every_end_queues_one_webhook(
    store: SqlJobStore, clock: Clock, end: Callable[[JobStore, Clock], None], kind: str
) -> None:
    end(store, clock)
    (webhook,) = queued_webhooks(store)
    assert (webhook.tenant, webhook.job_id, webhook.url) == ("shop", "a", URL)
    assert (webhook.tries, webhook.due_at, webhook.created_at) == (0, clock.now, clock.now)
    assert json.loads(webhook.body) == {
        "id": webhook.id,
        "object": "event",
        "type": kind,
        "created_at": int(clock.now),
        "data": {"id": "a"},
    }


def test_what_did_not_end_or_asked_for_none_is_not_told(store: SqlJobStore) -> None:
    store.create(make_request("unasked"), results=[VIDEO])
    key = Idempotency("key", "body")
    store.create(hooked("a"), key)
    epoch = store.next_epoch()
    store.release(lease_one(store, epoch), "preempted")
    attempt = lease_one(store, epoch)
    store.create(hooked("a"), key, results=[VIDEO])  # a repeat
    store.delete("shop", "unasked")
    with pytest.raises(ResultPurged):
        store.complete(attempt, VIDEO)
    store.delete("shop", "a")
    assert queued_webhooks(store) == []


def test_an_end_that_is_repeated_is_told_once(store: SqlJobStore) -> None:
    store.create(hooked("a"))
    store.cancel("shop", "a")
    store.cancel("shop", "a")
    assert len(queued_webhooks(store)) == 1


def test_a_second_chance_tells_its_own_end(store: SqlJobStore) -> None:
    store.create(hooked("a"))
    epoch = store.next_epoch()
    store.fail(lease_one(store, epoch), "internal", "")
    store.retry("a")
    store.complete(lease_one(store, epoch), VIDEO)
    first, second = queued_webhooks(store)
    assert first.id != second.id
    kinds = [json.loads(webhook.body)["type"] for webhook in (first, second)]
    assert kinds == ["video.failed", "video.completed"]


def test_every_end_of_a_job_has_an_id_of_its_own_that_is_not_drawn(
    store: SqlJobStore, clock: Clock
) -> None:
    store.create(hooked("a"))
    epoch = store.next_epoch()
    store.fail(lease_one(store, epoch), "internal", "")
    store.retry("a")
    store.fail(lease_one(store, epoch), "internal", "")
    store.retry("a")
    store.complete(lease_one(store, epoch), VIDEO)
    store.create(hooked("b"), results=[VIDEO])
    first = [webhook.id for webhook in queued_webhooks(store)]
    assert len(set(first)) == 4
    with store.database.writing() as db:
        ended = db.execute(select(jobs).order_by(jobs.c.seq)).all()
        outbox.announce(db, ended, clock.now)
    assert [webhook.id for webhook in queued_webhooks(store)] == first  # queued before
    with store.database.writing() as db:
        db.execute(delete(deliveries))
        outbox.announce(db, ended, clock.now)
    assert [webhook.id for webhook in queued_webhooks(store)] == first[2:]


def test_a_webhook_stands_and_falls_with_its_end(
    store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction breaks after the webhook was written: neither it nor the end is there."""
    store.create(hooked("a"))

    def breaks(*_: object) -> None:
        raise RuntimeError("after the webhook")

    with monkeypatch.context() as patch:
        patch.setattr("storage.sql.families.to_jobs", breaks)
        with pytest.raises(RuntimeError, match="after the webhook"):
            store.cancel("shop", "a")
    assert not store.get("shop", "a").status.is_terminal
    assert queued_webhooks(store) == []
