"""A replica asks the Dispatcher about its clips: which go on, which nobody wants any more."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from ray import serve

from storage.jobs import Attempt

log = logging.getLogger(__name__)

BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the Dispatcher says to a replica's heartbeat."""

    stop: frozenset[Attempt]  # they own their job no more: a newer attempt, a cancel, a deletion
    leave: bool = False  # hand all clips out: the application is going down


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
            if answer := await self._ask(clips):
                self._answered = time.monotonic()
                for attempt in answer.stop & clips:
                    self._stop(attempt)
            silent_s = time.monotonic() - self._answered
            if (answer and answer.leave) or silent_s > self._patience_s:
                log.warning("handing out %d clips; last answer %.0f s ago", len(clips), silent_s)
                await self._leave()
                self._answered = time.monotonic()

    async def _ask(self, clips: frozenset[Attempt]) -> Answer | None:
        try:
            app = serve.get_replica_context().app_name
            dispatcher = serve.get_deployment_handle("Dispatcher", app)
            response = dispatcher.heartbeat.remote(clips)
            try:
                async with asyncio.timeout(self._patience_s):
                    answer: Answer = await response
            finally:
                response.cancel()
        except Exception as e:  # whatever Ray raises while the Dispatcher is replaced
            log.warning("no answer to a heartbeat: %s", type(e).__name__)
            return None
        return answer
