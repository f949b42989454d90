"""A replica asks the Dispatcher about its clips: which go on, which nobody wants any more."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from ray import serve

from storage.jobs import Attempt

log = logging.getLogger(__name__)

BEAT_S = 1.0


class Heartbeat:
    """Asks every second while there are clips.

    The job table decides, through whichever Dispatcher answers, so a clip that outlives its
    Dispatcher goes on until its lease is lost. Nobody answering for `patience_s` is reason to hand
    everything out: the work is saved and the card is free.
    """

    def __init__(
        self,
        clips: Callable[[], Collection[Attempt]],
        stop: Callable[[Attempt], None],
        leave: Callable[[], Awaitable[None]],
        patience_s: float,
    ):
        self._clips, self._stop, self._leave = clips, stop, leave
        self._patience_s = patience_s
        self._answered = time.monotonic()
        self._task = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            clips = frozenset(self._clips())
            if not clips:
                self._answered = time.monotonic()
                continue
            unwanted = await self._ask(clips)
            if unwanted is not None:
                self._answered = time.monotonic()
                for attempt in unwanted:
                    self._stop(attempt)
            silent_s = time.monotonic() - self._answered
            if silent_s > self._patience_s:
                log.warning("no Dispatcher for %.0f s: %d clips handed out", silent_s, len(clips))
                await self._leave()
                self._answered = time.monotonic()

    async def _ask(self, clips: frozenset[Attempt]) -> frozenset[Attempt] | None:
        """Those of `clips` that nobody wants any more; None without an answer."""
        try:
            app = serve.get_replica_context().app_name
            dispatcher = serve.get_deployment_handle("Dispatcher", app)
            response = dispatcher.unwanted.remote(clips)
            try:
                async with asyncio.timeout(self._patience_s):
                    unwanted: frozenset[Attempt] = await response
            finally:
                response.cancel()
        except Exception as e:  # whatever Ray raises while the Dispatcher is replaced
            log.warning("no answer to a heartbeat: %s", type(e).__name__)
            return None
        return unwanted
