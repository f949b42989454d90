"""SIGTERM to a replica's process is Serve's own stop, begun from within, and ends the process.

Left to itself it is not. Ray's handler waits until every call that the process has made is
answered, and Serve's long poll is always among those of a process that holds a handle: it neither
worked on nor ended until Serve's controller gave it up, after three health checks without an answer
(with Ray 2.60 that took 79 s for the Dispatcher, 90 s for the API and 32 s for a denoiser).
"""

import faulthandler
import inspect
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from threading import Event, Thread
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from deployments.leaving import when_stopping
from monitoring.tracing import send_spans

log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.5
"""For answers that have been given to leave the process: Ray sends them in threads of its own."""
_LAST_SPANS_S = 1.0
"""For the collector of traces, where there is one."""

_told = Event()


def told_to_end() -> bool:
    """SIGTERM has come: what another replica can do as well is left to it."""
    return _told.is_set()


def ends_on_sigterm(cls: type[Any], grace_s: float) -> type[Any]:
    """The deployment class `cls`, whose replicas do as follows on SIGTERM.

    New requests are turned away, and routers send them to another replica or hold them until there
    is one. Those on their way are waited for as when Serve stops the replica: `begin_to_leave`, if
    the class has it, is awaited beside them, `__del__` after them. All that has `grace_s` seconds:
    who is not answered by then is cut off. Then the process ends, and Serve replaces it. A replica
    that is still starting ends at once.
    """

    async def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        this = ray.get_runtime_context().current_actor
        has_begun = Event()

        def end() -> None:
            try:
                if has_begun.is_set():
                    _finish(this, grace_s)
            except Exception:
                log.exception("requests on their way are cut off")
            finally:
                os._exit(0)

        on_sigterm(end)
        begun = cls.__init__(self, *args, **kwargs)
        if inspect.isawaitable(begun):  # Serve awaits such an `__init__`, and so do we
            await begun
        if hasattr(self, "begin_to_leave"):
            when_stopping(self.begin_to_leave)
        has_begun.set()

    namespace = {"__init__": begin, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), namespace)


def on_sigterm(act: Callable[[], None]) -> None:
    """`act` runs once, in a thread of its own, when SIGTERM comes; handlers that were there before
    do not.

    Python lets only the main thread set handlers or a wakeup fd, and that one is Ray's: replicas
    run in others. faulthandler may be set from any. It does in C, within the signal, what is
    allowed there: it writes a stack into a file, that of the thread which got the signal (the main
    one, whenever it can take it). Ours is a pipe, and all that matters is that something has been
    written.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)  # nobody reads what a second signal writes

    def wait() -> None:
        os.read(told, 1)
        _told.set()
        act()

    faulthandler.register(signal.SIGTERM, tell, all_threads=False, chain=False)
    Thread(target=wait, name="sigterm", daemon=True).start()


def _finish(this: Any, grace_s: float) -> None:
    log.warning("SIGTERM: requests on their way have %.0f s to end", grace_s)
    _turn_away()
    try:
        # As Serve's controller asks for it.
        ray.get(this.perform_graceful_shutdown.remote(), timeout=grace_s)
    except GetTimeoutError:
        log.warning("requests are cut off after %.0f s", grace_s)
    send_spans(_LAST_SPANS_S)
    time.sleep(_LAST_WORDS_S)


def _turn_away() -> None:
    """Refuse calls from now on, with what makes routers look elsewhere, and be unwell: Serve knows
    of no replica that says itself that it leaves (2.60). tests/unit/test_sigterm.py holds that what
    is replaced here is still there."""
    from ray.serve._private.common import ReplicaQueueLengthInfo
    from ray.serve._private.replica import Replica

    async def refuse(replica: Any, *_: Any, **__: Any) -> AsyncIterator[ReplicaQueueLengthInfo]:
        # Full: of several replicas an idle one, which this soon is, would be asked again at once.
        yield ReplicaQueueLengthInfo(False, replica.max_ongoing_requests)

    async def be_unwell(replica: Any) -> None:
        raise RuntimeError("SIGTERM: this replica leaves")

    Replica.handle_request_with_rejection = refuse
    Replica.check_health = be_unwell
