"""Webhooks in the table: claimed once at a time, tried again, over; and what an answer means."""

import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import insert
from standardwebhooks import Webhook, WebhookVerificationError

from deployments.egress.client import AddressRefused, EgressConfig, FetchFailed, Response
from deployments.egress.webhooks import (
    WebhookConfig,
    WebhookNotAllowed,
    check_webhook_url,
    judge,
    signed_headers,
    webhook_secret,
)
from storage.deliveries import Delivery, Outcome, SqlDeliveries
from storage.job_store import SqlJobStore
from storage.sql.database import Database
from storage.sql.tables import deliveries as table
from tests.sample_jobs import VIDEO, Clock, lease_one, make_request

LEASE_S = 60.0
OLD, NEW = SecretStr("the old secret, at least 24 bytes"), SecretStr("the new secret, 24 bytes too")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def queue(database: Database, clock: Clock) -> SqlDeliveries:
    return SqlDeliveries(database, clock)


def announce(
    database: Database, message_id: str, host: str = "a.example", due_at: float = 0.0
) -> None:
    row = {
        "id": message_id,
        "tenant": "shop",
        "job_id": f"job of {message_id}",
        "url": f"https://{host}/hook",
        "host": host,
        "body": "{}",
        "created_at": 1000.0,
        "due_at": due_at,
    }
    with database.writing() as db:
        db.execute(insert(table).values(row))


def claim(queue: SqlDeliveries, limit: int = 10, per_host: int = 10, **in_flight: int) -> list[str]:
    busy = {f"{name}.example": number for name, number in in_flight.items()}
    return [delivery.id for delivery in queue.claim(limit, LEASE_S, per_host, busy)]


def the_only(queue: SqlDeliveries) -> Delivery:
    (delivery,) = queue.claim(10, LEASE_S, 10, {})
    return delivery


# The table.


def test_the_end_of_a_job_is_told_to_the_address_it_named(store: SqlJobStore, clock: Clock) -> None:
    hook = "https://Shop.example:8443?job=1"
    store.create(replace(make_request("v1"), webhook=hook))
    store.create(make_request("v2"))
    epoch = store.next_epoch()
    for _ in range(2):
        store.complete(lease_one(store, epoch), VIDEO)
    queue = SqlDeliveries(store.database, clock)
    delivery = the_only(queue)
    assert (delivery.job_id, delivery.url, delivery.tries) == ("v1", hook, 1)
    assert delivery.host == "shop.example:8443"
    assert queue.of_job("v1") == [delivery]
    assert queue.of_job("v2") == []


def test_a_claim_holds_until_its_lease_ends(
    queue: SqlDeliveries, database: Database, clock: Clock
) -> None:
    announce(database, "m")
    assert claim(queue) == ["m"]
    clock.now += LEASE_S - 1
    assert claim(queue) == []
    clock.now += 1
    assert the_only(queue).tries == 2


def test_what_is_due_longest_is_claimed_first(
    queue: SqlDeliveries, database: Database, clock: Clock
) -> None:
    for message_id, due_at in (
        ("late", 999.0),
        ("later", 1000.0),
        ("not yet", 1000.1),
        ("first", 1),
    ):
        announce(database, message_id, due_at=due_at)
    assert claim(queue, limit=2) == ["first", "late"]
    assert claim(queue, limit=2) == ["later"]


def test_one_hosts_backlog_does_not_hold_up_another_host(
    queue: SqlDeliveries, database: Database
) -> None:
    for number in range(50):
        announce(database, f"a{number}", "a.example", due_at=1.0)
    announce(database, "b", "b.example", due_at=900.0)
    assert claim(queue, limit=5, per_host=3) == ["a0", "a1", "a2", "b"]
    announce(database, "c", "c.example", due_at=900.0)
    assert claim(queue, limit=5, per_host=3, a=3) == ["c"]
    assert claim(queue, limit=5, per_host=3, a=2) == ["a3"]
    assert claim(queue, limit=2, per_host=3) == ["a4", "a5"]


def test_several_claim_at_once_and_none_gets_the_others(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    for number in range(60):
        announce(databases[0], f"m{number}")
    claimed: list[str] = []
    start = threading.Barrier(len(databases))

    def work(database: Database) -> None:
        queue = SqlDeliveries(database)
        start.wait()
        while got := claim(queue, limit=3):
            claimed.extend(got)

    threads = [threading.Thread(target=work, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"m{number}" for number in range(60))
    for database in databases:
        database.close()


def test_a_failed_try_is_made_again_when_it_is_due(
    queue: SqlDeliveries, database: Database, clock: Clock
) -> None:
    announce(database, "m")
    queue.retry(the_only(queue), clock.now + 5, "answered 500")
    assert claim(queue) == []
    clock.now += 5
    delivery = the_only(queue)
    assert (delivery.id, delivery.tries, delivery.detail) == ("m", 2, "answered 500")


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_over_is_not_sent_again(
    queue: SqlDeliveries, database: Database, clock: Clock, outcome: Outcome
) -> None:
    announce(database, "m")
    delivery = the_only(queue)
    queue.end(delivery, outcome, "why")
    queue.retry(delivery, clock.now, "too late")
    clock.now += 2 * LEASE_S
    assert claim(queue) == []
    (kept,) = queue.of_job(delivery.job_id)
    assert (kept.outcome, kept.detail, kept.due_at) == (outcome, "why", None)


def test_who_lost_its_claim_can_only_tell_of_a_delivery(
    queue: SqlDeliveries, database: Database, clock: Clock
) -> None:
    announce(database, "m")
    slow = the_only(queue)
    clock.now += LEASE_S
    current = the_only(queue)
    queue.retry(slow, clock.now, "mine failed")
    queue.end(slow, Outcome.GIVEN_UP, "mine failed")
    assert queue.of_job(slow.job_id) == [current]
    queue.end(slow, Outcome.DELIVERED, "it arrived")
    queue.end(current, Outcome.GIVEN_UP, "mine failed")
    (kept,) = queue.of_job(slow.job_id)
    assert kept.outcome is Outcome.DELIVERED


def test_an_endpoint_is_disabled_for_its_tenant_until_it_is_enabled(queue: SqlDeliveries) -> None:
    url = "https://a.example/hook"
    queue.disable("shop", url, "410")
    queue.disable("shop", url, "410 again")
    assert queue.is_disabled("shop", url)
    assert not queue.is_disabled("other", url)
    assert not queue.is_disabled("shop", url + "2")
    queue.enable("shop", url)
    assert not queue.is_disabled("shop", url)


# Signatures.

DELIVERY = Delivery(
    "msg_1",
    "shop",
    "v",
    "https://a.example",
    "a.example",
    '{"a":"ä"}',
    1000.0,
    1001.0,
    1,
    None,
    None,
)


def test_both_secrets_verify_while_they_are_rotated() -> None:
    both, new_only = WebhookConfig(secrets=(NEW, OLD)), WebhookConfig(secrets=(NEW,))
    headers = signed_headers(both, DELIVERY, time.time())
    for secret in (NEW, OLD):
        receiver = Webhook(webhook_secret(WebhookConfig(secrets=(secret,)), "shop"))
        assert receiver.verify(DELIVERY.body, headers) == {"a": "ä"}
    old = Webhook(webhook_secret(WebhookConfig(secrets=(OLD,)), "shop"))
    with pytest.raises(WebhookVerificationError):
        old.verify(DELIVERY.body, signed_headers(new_only, DELIVERY, time.time()))


def test_a_tenants_secret_is_its_own_and_tells_nothing_of_the_servers() -> None:
    config = WebhookConfig(secrets=(NEW, OLD))
    shop, other = webhook_secret(config, "shop"), webhook_secret(config, "other")
    assert shop != other
    assert shop == webhook_secret(WebhookConfig(secrets=(NEW,)), "shop")
    assert len(base64.b64decode(shop.removeprefix("whsec_"))) == 32
    assert NEW.get_secret_value() not in repr(config)
    with pytest.raises(ValueError, match="secrets"):
        webhook_secret(WebhookConfig(), "shop")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValidationError, match="24 bytes"):
        WebhookConfig(secrets=(NEW, SecretStr("x" * 23)))


# What a job may name.


def test_only_listed_hosts_may_be_told() -> None:
    config = EgressConfig(webhook_hosts=("a.example",))
    check_webhook_url("https://a.example/hook?x=1", config)
    for url in ("https://b.example/", "http://a.example/", "https://a.example:81/", "nonsense"):
        with pytest.raises(WebhookNotAllowed) as refused:
            check_webhook_url(url, config)
        assert refused.value.code == "webhook_not_allowed"
    with pytest.raises(WebhookNotAllowed):
        check_webhook_url("https://a.example/", EgressConfig(image_hosts=("a.example",)))
    check_webhook_url("http://a.example/", config.model_copy(update={"networks": ("any",)}))


# What an answer means.

CONFIG = WebhookConfig(first_retry_s=4, max_retry_s=100, give_up_after_s=1000)


def answer(status: int, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, "text")


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (answer(200), Outcome.DELIVERED),
        (answer(204), Outcome.DELIVERED),
        (answer(410), Outcome.DISABLED),
        (answer(302), None),
        (answer(400), None),
        (answer(404), None),
        (answer(500), None),
        (FetchFailed("h", "took longer than 15 s", True), None),
        (AddressRefused("h", "its name leads to an address not allowed"), Outcome.GIVEN_UP),
    ],
)
def test_what_an_answer_means(result: Response, outcome: Outcome | None) -> None:
    assert judge(CONFIG, DELIVERY, result, 1000).outcome is outcome


@pytest.mark.parametrize(("tries", "longest_s"), [(1, 4), (2, 8), (3, 16), (6, 100), (5000, 100)])
def test_waits_double_up_to_a_limit_and_are_spread(tries: int, longest_s: float) -> None:
    tried = replace(DELIVERY, tries=tries)
    waits = [judge(CONFIG, tried, answer(500), 1000).retry_in_s for _ in range(300)]
    assert 0 <= min(waits) < longest_s * 0.2
    assert longest_s * 0.8 < max(waits) <= longest_s


@pytest.mark.parametrize(
    ("status", "asked", "least_s"),
    [
        (429, "50", 50),
        (502, "50", 50),
        (503, "99999999", 100),
        (504, "Thu, 01 Jan 1970 00:17:30 GMT", 50),
        (503, "soon", 0),
        (503, "-5", 0),
        (503, "²", 0),
        (500, "50", 0),
    ],
)
def test_retry_after_is_heeded_within_reason(status: int, asked: str, least_s: float) -> None:
    waits = [
        judge(CONFIG, DELIVERY, answer(status, retry_after=asked), 1000).retry_in_s
        for _ in range(30)
    ]
    assert min(waits) >= least_s
    assert max(waits) <= max(least_s, 4)


def test_it_is_given_up_when_the_next_try_would_be_too_late() -> None:
    late = judge(CONFIG, DELIVERY, answer(503, retry_after="50"), 1000 + 951)
    assert late.outcome is Outcome.GIVEN_UP
    assert late.detail == "answered 503 text"
    in_time = judge(CONFIG, DELIVERY, answer(503, retry_after="50"), 1000 + 940)
    assert in_time.outcome is None
