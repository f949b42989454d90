"""Webhooks over real sockets: signed, tried again, given up, sent though a sender was killed."""

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from deployments.egress.client import Egress, EgressConfig
from deployments.egress.courier import Courier
from deployments.egress.webhooks import WebhookConfig, webhook_secret
from deployments.housekeeper import Housekeeper, HousekeeperConfig
from storage.deliveries import Delivery, Outcome, SqlDeliveries
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig
from tests.receivers import Answer, Received, TestAuthority, plain, receiver
from tests.sample_jobs import make_request, sqlite_url

SECRET = SecretStr("a secret of at least 24 bytes")
OK = plain("200 OK")
LOOPBACK = ("127.0.0.0/8",)


def hooks(**changes: Any) -> WebhookConfig:
    settings = {"secrets": (SECRET,), "first_retry_s": 0.1, "poll_s": 0.05, "timeout_s": 20.0}
    return WebhookConfig(**settings | changes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore(JobStoreConfig(url=sqlite_url(tmp_path)))
    yield store
    store.close()


def end_job(store: SqlJobStore, job_id: str, url: str) -> None:
    store.create(replace(make_request(job_id), webhook=url))
    store.cancel("shop", job_id)


@asynccontextmanager
async def courier(
    store: SqlJobStore, egress: EgressConfig, config: WebhookConfig
) -> AsyncIterator[SqlDeliveries]:
    deliveries = SqlDeliveries(store.database)
    sender = Courier(config, Egress(egress, lambda host, port: ["127.0.0.1"]), deliveries)
    running = asyncio.create_task(sender.run())
    try:
        yield deliveries
        assert not running.done()
    finally:
        running.cancel()
        await sender.drain(5)


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def outcome_of(deliveries: SqlDeliveries, job_id: str) -> Delivery:
    await until(lambda: deliveries.of_job(job_id)[0].outcome)
    return deliveries.of_job(job_id)[0]


def in_turn(*answers: Answer) -> Answer:
    left = list(answers)

    async def answer(got: Received, writer: asyncio.StreamWriter) -> None:
        await left.pop(0)(got, writer)

    return answer


async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def run(
    store: SqlJobStore,
    answer: Answer,
    scenario: Callable[[SqlDeliveries, str, list[Received]], Awaitable[None]],
    *,
    networks: tuple[str, ...] = LOOPBACK,
    config: WebhookConfig | None = None,
    tls: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
) -> None:
    """`scenario` with a courier at work and a receiver at the URL that it is given."""

    async def go() -> None:
        async with receiver(answer, tls) as (port, got):
            listed = (f"hook.test:{port}",)
            egress = EgressConfig(webhook_hosts=listed, networks=networks, ca_file=ca_file)
            async with courier(store, egress, config or hooks()) as deliveries:
                scheme = "http" if tls is None else "https"
                await scenario(deliveries, f"{scheme}://hook.test:{port}/shop", got)

    asyncio.run(go())


def test_a_webhook_says_how_the_job_ended_and_verifies(store: SqlJobStore, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)

    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        delivery = await outcome_of(deliveries, "v1")
        assert (delivery.outcome, delivery.tries) == (Outcome.DELIVERED, 1)
        (request,) = got
        assert (request.method, request.path) == ("POST", "/shop")
        assert request.server_name == "hook.test"
        assert request.headers["webhook-id"] == delivery.id
        shop = Webhook(webhook_secret(hooks(), "shop"))
        event = shop.verify(request.body, dict(request.headers))
        assert event == json.loads(delivery.body)
        assert (event["type"], event["data"]) == ("video.cancelled", {"id": "v1"})

    run(store, OK, scenario, tls=authority.server("hook.test"), ca_file=authority.file)


def test_a_failed_try_is_repeated_under_the_same_id_with_a_new_time(store: SqlJobStore) -> None:
    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        delivery = await outcome_of(deliveries, "v1")
        assert (delivery.outcome, delivery.tries) == (Outcome.DELIVERED, 3)
        assert len({request.headers["webhook-id"] for request in got}) == 1
        assert len({request.body for request in got}) == 1
        shop = Webhook(webhook_secret(hooks(), "shop"))
        for request in got:
            shop.verify(request.body, dict(request.headers))

    run(store, in_turn(plain("500 Oh"), plain("302 F", "Location: /x"), OK), scenario)


def test_retry_after_is_waited_for(store: SqlJobStore) -> None:
    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        await until(lambda: got)
        begun = time.monotonic()
        assert (await outcome_of(deliveries, "v1")).tries == 2
        assert time.monotonic() - begun > 0.9

    run(store, in_turn(plain("503 Busy", "Retry-After: 1"), OK), scenario)


def test_410_disables_the_endpoint_for_later_jobs_too(store: SqlJobStore) -> None:
    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        assert (await outcome_of(deliveries, "v1")).outcome is Outcome.DISABLED
        assert deliveries.is_disabled("shop", url)
        end_job(store, "v2", url)
        assert (await outcome_of(deliveries, "v2")).outcome is Outcome.DISABLED
        assert len(got) == 1
        deliveries.enable("shop", url)
        end_job(store, "v3", url)
        assert (await outcome_of(deliveries, "v3")).outcome is Outcome.DELIVERED

    run(store, in_turn(plain("410 Gone"), OK), scenario)


def test_a_private_address_is_given_up_with_the_reason_in_the_row(
    store: SqlJobStore, tmp_path: Path
) -> None:
    authority = TestAuthority(tmp_path)

    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        delivery = await outcome_of(deliveries, "v1")
        assert (delivery.outcome, delivery.tries) == (Outcome.GIVEN_UP, 1)
        assert "address not allowed" in (delivery.detail or "")
        assert got == []

    run(store, OK, scenario, networks=(), tls=authority.server("hook.test"), ca_file=authority.file)


def test_it_is_given_up_in_the_end(store: SqlJobStore) -> None:
    async def scenario(deliveries: SqlDeliveries, url: str, got: list[Received]) -> None:
        end_job(store, "v1", url)
        delivery = await outcome_of(deliveries, "v1")
        assert delivery.outcome is Outcome.GIVEN_UP
        assert delivery.detail == "answered 500 no room"
        assert len(got) == delivery.tries > 1

    config = hooks(give_up_after_s=2.0)
    run(store, plain("500 Oh", body=b"no room"), scenario, config=config)


def test_a_slow_receiver_holds_up_only_itself(store: SqlJobStore) -> None:
    async def go() -> None:
        async with receiver(silent) as (slow, waiting), receiver(OK) as (quick, _):
            hosts = (f"slow.test:{slow}", f"quick.test:{quick}")
            egress = EgressConfig(webhook_hosts=hosts, networks=LOOPBACK)
            for number in range(20):
                end_job(store, f"slow{number}", f"http://{hosts[0]}/")
            for number in range(20):
                end_job(store, f"quick{number}", f"http://{hosts[1]}/")
            config = hooks(max_concurrent=8, max_per_host=4, timeout_s=8.0)
            async with courier(store, egress, config) as deliveries:
                await until(lambda: len(waiting) == 4)
                for number in range(20):
                    quick_one = await outcome_of(deliveries, f"quick{number}")
                    assert quick_one.outcome is Outcome.DELIVERED
                assert len(waiting) == 4  # their time was not over yet, and no fifth was begun
                await until(lambda: deliveries.of_job("slow0")[0].detail)
                assert "longer than 8 s" in (deliveries.of_job("slow0")[0].detail or "")

    asyncio.run(go())


CLAIM_AND_HANG = """
import asyncio, sys, time
from deployments.egress.courier import Courier
from deployments.egress.client import Egress, EgressConfig
from deployments.egress.webhooks import WebhookConfig
from storage.sql.database import Database
from storage.deliveries import SqlDeliveries

database_url, host, lag_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
egress = EgressConfig(webhook_hosts=(host,), networks=("127.0.0.0/8",))
config = WebhookConfig(secrets=("a secret of at least 24 bytes",))
deliveries = SqlDeliveries(Database(database_url), lambda: time.time() - lag_s)
asyncio.run(Courier(config, Egress(egress, lambda host, port: ["127.0.0.1"]), deliveries).run())
"""


def test_what_a_killed_sender_had_claimed_is_sent_by_the_next(
    store: SqlJobStore, tmp_path: Path
) -> None:
    """The first sender gets no answer and is killed. Its clock is so far behind that its lease
    (60 s) ends in two seconds by ours."""
    lag_s = 58.0

    async def go() -> None:
        async with receiver(in_turn(silent, OK)) as (port, got):
            host = f"hook.test:{port}"
            store_then = SqlJobStore(
                JobStoreConfig(url=sqlite_url(tmp_path)), lambda: time.time() - lag_s
            )
            end_job(store_then, "v1", f"http://{host}/")
            store_then.close()
            command = [sys.executable, "-c", CLAIM_AND_HANG, sqlite_url(tmp_path), host, str(lag_s)]
            sender = subprocess.Popen(command)
            try:
                await until(lambda: got, 60)
            finally:
                sender.kill()
                sender.wait()
            egress = EgressConfig(webhook_hosts=(host,), networks=LOOPBACK)
            async with courier(store, egress, hooks()) as deliveries:
                assert deliveries.of_job("v1")[0].outcome is None
                delivery = await outcome_of(deliveries, "v1")
            assert (delivery.outcome, delivery.tries) == (Outcome.DELIVERED, 2)
            assert len({request.headers["webhook-id"] for request in got}) == 1
            assert len(got) == 2

    asyncio.run(go())


def test_two_senders_send_each_webhook_once(store: SqlJobStore, tmp_path: Path) -> None:
    other = SqlJobStore(JobStoreConfig(url=sqlite_url(tmp_path)))

    async def go() -> None:
        async with receiver(OK) as (port, got):
            host = f"hook.test:{port}"
            egress = EgressConfig(webhook_hosts=(host,), networks=LOOPBACK)
            for number in range(40):
                end_job(store, f"v{number}", f"http://{host}/")
            async with courier(store, egress, hooks()) as mine, courier(other, egress, hooks()):
                for number in range(40):
                    assert (await outcome_of(mine, f"v{number}")).tries == 1
            ids = [request.headers["webhook-id"] for request in got]
            assert len(ids) == len(set(ids)) == 40

    asyncio.run(go())
    other.close()


@pytest.mark.filterwarnings("ignore:coroutine 'Housekeeper.__del__'")
def test_the_housekeeper_delivers_and_is_unwell_when_a_loop_has_ended(
    store: SqlJobStore, s3: ObjectStoreConfig, tmp_path: Path
) -> None:
    async def go() -> None:
        async with receiver(OK) as (port, _):
            url = f"http://127.0.0.1:{port}/"
            end_job(store, "v1", url)
            hosts = (f"127.0.0.1:{port}",)
            keeper = Housekeeper.__new__(Housekeeper)
            await keeper.__init__(  # type: ignore[misc]  # as Serve does
                HousekeeperConfig(),
                JobStoreConfig(url=sqlite_url(tmp_path)),
                s3,
                hooks(),
                EgressConfig(webhook_hosts=hosts, networks=LOOPBACK),
                Retention(),
            )
            delivery = await outcome_of(SqlDeliveries(store.database), "v1")
            assert delivery.outcome is Outcome.DELIVERED
            await keeper.check_health()
            await keeper.__del__()
            with pytest.raises(RuntimeError, match="loop has ended"):
                await keeper.check_health()

    asyncio.run(go())
