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

    `deliver` gets the events of each tick, on this thread. After an unforeseen error, in a tick or
    in a call, or a failed self-test, the engine is broken for good: `broken` says why, every later
    call fails with it, and `on_broken` is called once.
    """

    def __init__(
        self,
        engine: Engine,
        deliver: Callable[[Sequence[Event]], None],
        on_broken: Callable[[], None] = lambda: None,
    ):
        self._engine = engine
        self._deliver = deliver
        self._on_broken = on_broken
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._last_tick = time.monotonic()
        self._busy = False
        self._stopping = False
        self.broken: DiffusionError | None = None
        self._thread = threading.Thread(target=self._run, name="unet", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Engine], T]) -> "Future[T]":
        """Run `work` on the engine before its next tick; waits for one tick at most.

        An error that is not the caller's (DiffusionError, KeyError, ValueError) is the device's.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self.broken is not None:
                    raise self.broken
                result = work(self._engine)
            except (DiffusionError, KeyError, ValueError) as e:
                future.set_exception(e)
            except Exception as e:
                future.set_exception(self._break(e))
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def self_test(self) -> "Future[None]":
        """Try one step; a device that cannot do it is broken."""

        def test(engine: Engine) -> None:
            try:
                engine.self_test()
            except DiffusionError as e:
                raise RuntimeError(f"the self-test failed: {e}") from e

        return self.call(test)

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
            self._tick(engine)

    def _tick(self, engine: Engine) -> None:
        failures = engine.out_of_memory
        try:
            events = engine.tick()
            self._busy = engine.has_work
            self._deliver(events)
            if engine.out_of_memory > failures:
                engine.self_test()
        except Exception as e:
            self._break(e)

    def _break(self, error: Exception) -> EngineBroken:
        log.error("the engine is broken", exc_info=error)
        self.broken = broken = EngineBroken(repr(error))
        self._deliver(self._engine.abandon(broken))
        self._busy = False
        self._on_broken()
        return broken

    def _take_calls(self, wait: bool) -> None:
        try:
            if wait:
                self._calls.get()()
            while True:
                self._calls.get_nowait()()
        except Empty:
            pass
