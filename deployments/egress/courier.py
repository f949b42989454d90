"""Courier: claims webhooks that are due and sends them, until they arrive or it is in vain.

At least once: a try whose end was not written, because its courier died, is made again with the
same webhook-id. Any number of couriers may run.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from deployments.egress.client import Egress, EgressError, Response
from deployments.egress.webhooks import WebhookConfig, judge, signed_headers
from monitoring import metrics
from storage.deliveries import Delivery, Outcome, SqlDeliveries
from storage.errors import StoreUnavailable

log = logging.getLogger(__name__)

_LEASE_MARGIN_S = 45.0
"""For the table to answer before and after a try, however busy it is."""


class Courier:
    """Lives on one event loop."""

    def __init__(
        self,
        config: WebhookConfig,
        egress: Egress,
        deliveries: SqlDeliveries,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._egress = config, egress
        self._deliveries, self._clock = deliveries, clock
        self._lease_s = config.timeout_s + _LEASE_MARGIN_S
        self._tries: dict[asyncio.Task[None], str] = {}  # -> host
        self._room = asyncio.Event()
        metrics.begin(metrics.WEBHOOK_DELIVERIES)

    async def run(self) -> None:
        """For ever; a table that is away is asked again."""
        while True:
            self._room.clear()
            try:
                await self.send_due()
            except StoreUnavailable:
                log.exception("the table of deliveries does not answer")
                await asyncio.sleep(self._config.poll_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._room.wait()

    async def send_due(self) -> None:
        """Begins as many tries as there is room for. Raises StoreUnavailable."""
        room = self._config.max_concurrent - len(self._tries)
        if not room:
            return
        due = await asyncio.to_thread(
            self._deliveries.claim,
            room,
            self._lease_s,
            self._config.max_per_host,
            Counter(self._tries.values()),
        )
        for delivery in due:
            task = asyncio.create_task(self._try(delivery))
            self._tries[task] = delivery.host
            task.add_done_callback(self._tried)

    async def drain(self, grace_s: float) -> None:
        """Lets tries under way end. What is left after `grace_s` is tried again when its lease
        has run out."""
        left = set(self._tries)
        if left:
            _, left = await asyncio.wait(left, timeout=grace_s)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _tried(self, task: asyncio.Task[None]) -> None:
        del self._tries[task]
        self._room.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("the end of a try is not written; it will be made again", exc_info=error)

    async def _try(self, delivery: Delivery) -> None:
        tenant, url = delivery.tenant, delivery.url
        if await asyncio.to_thread(self._deliveries.is_disabled, tenant, url):
            await self._end(delivery, Outcome.DISABLED, "the endpoint wanted no more")
            return
        verdict = judge(self._config, delivery, await self._send(delivery), self._clock())
        if verdict.outcome is None:
            due_at = self._clock() + verdict.retry_in_s
            await asyncio.to_thread(self._deliveries.retry, delivery, due_at, verdict.detail)
            _count(delivery, "retried", verdict.detail)
            return
        if verdict.outcome is Outcome.DISABLED:
            await asyncio.to_thread(self._deliveries.disable, tenant, url, verdict.detail)
        await self._end(delivery, verdict.outcome, verdict.detail)

    async def _send(self, delivery: Delivery) -> Response | EgressError:
        headers = signed_headers(self._config, delivery, self._clock())
        body = delivery.body.encode()
        try:
            return await self._egress.post(delivery.url, body, headers, self._config.timeout_s)
        except EgressError as e:
            return e

    async def _end(self, delivery: Delivery, outcome: Outcome, detail: str) -> None:
        await asyncio.to_thread(self._deliveries.end, delivery, outcome, detail)
        _count(delivery, outcome.value, detail)


def _count(delivery: Delivery, outcome: str, detail: str) -> None:
    metrics.WEBHOOK_DELIVERIES.inc(tags={"outcome": outcome})
    level = logging.INFO if outcome in (Outcome.DELIVERED, "retried") else logging.WARNING
    log.log(level, "webhook %s, try %d: %s, %s", delivery.id, delivery.tries, outcome, detail)
