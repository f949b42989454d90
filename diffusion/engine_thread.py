"""The one thread that owns an engine, its UNet and every tensor on its device."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

from diffusion.engine import Engine
from diffusion.errors import DiffusionError, EngineBroken
from diffusion.events import Event

log = logging.getLogger(__name__)

T = TypeVar("T")


class EngineThread:
    """Ticks while there is work; what others want of the engine runs between ticks.

    `deliver` gets the events of each tick, on this thread. After an unforeseen error, or a failed
    self-test when memory has run out, the engine is broken for good: `broken` says why, and every
    later call fails with it.
    """

    def __init__(self, engine: Engine, deliver: Callable[[Sequence[Event]], None]):
        self._engine = engine
        self._deliver = deliver
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._last_tick = time.monotonic()
        self._busy = False
        self._stopping = False
        self.broken: DiffusionError | None = None
        self._thread = threading.Thread(target=self._run, name="unet", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Engine], T]) -> "Future[T]":
        """Run `work` on the engine before its next tick; waits for one tick at most."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self.broken is not None:
                    raise self.broken
                future.set_result(work(self._engine))
            except BaseException as e:
                future.set_exception(e)

        self._calls.put(run)
        return future

    @property
    def silent_s(self) -> float:
        """Seconds since the last completed tick while there is work; 0 when idle."""
        return time.monotonic() - self._last_tick if self._busy else 0.0

    def stop(self) -> None:
        """End the thread after the tick under way."""
        self._stopping = True
        self._calls.put(lambda: None)
        self._thread.join()

    def _run(self) -> None:
        engine = self._engine
        while not self._stopping:
            self._take_calls(wait=not engine.has_work)
            self._busy = engine.has_work
            self._last_tick = time.monotonic()
            if not self._busy:
                continue
            events = self._tick(engine)
            self._busy = engine.has_work
            self._deliver(events)

    def _tick(self, engine: Engine) -> Sequence[Event]:
        events: list[Event] = []
        failures = engine.out_of_memory
        try:
            events += engine.tick()
            if engine.out_of_memory > failures:
                engine.self_test()
        except Exception as e:
            log.exception("the engine is broken")
            self.broken = EngineBroken(repr(e))
            events += engine.abandon(self.broken)
        return events

    def _take_calls(self, wait: bool) -> None:
        try:
            if wait:
                self._calls.get()()
            while True:
                self._calls.get_nowait()()
        except Empty:
            pass
