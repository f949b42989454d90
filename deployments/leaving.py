"""How a replica learns that it must leave: Serve stops it, its node is drained (spot notice), or
its process is told to end.

Serve tells a replica only when its requests have ended, and a clip lasts longer than the grace.
"""

import asyncio
import ctypes
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import ray

log = logging.getLogger(__name__)

_POLL_S = 1.0


def end_on_sigterm() -> None:
    """SIGTERM ends this process at once, as SIGKILL does: requests on their way are cut, and Serve
    replaces the replica. Serve itself stops a replica in another way, after its last request.

    Ray's own handler waits until every call that the process has made is answered, and the long
    poll of a handle is always among them: an API replica took no request any more and hung its
    callers, until Serve's controller gave it up after 90 s (Ray 2.60). Signals are Python's main
    thread's business, which Ray keeps, so this goes by the C library. The Dispatcher goes on with
    its work meanwhile, so it keeps Ray's.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGTERM, None)  # SIG_DFL


class LeaveNotice:
    """Calls `leave` once when this replica begins to stop, after `close`, and once when its node is
    drained: from then on until it is stopped it may still get work, and do it."""

    def __init__(self, leave: Callable[[], Awaitable[None]], close: Callable[[], None]):
        self._leave, self._close = leave, close
        self._loop = asyncio.get_running_loop()
        self._tasks = {asyncio.create_task(self._watch_node())}
        self._watch_serve()

    def _watch_serve(self) -> None:
        """Wrap the first thing that Serve does to stop a replica: there is no hook (2.60).
        tests/unit/test_leaving.py holds that the method is still there."""
        from ray.serve._private.replica import Replica

        original = Replica._perform_graceful_shutdown

        async def noticed(replica: Any) -> None:
            self._loop.call_soon_threadsafe(self._stopped)
            await original(replica)

        Replica._perform_graceful_shutdown = noticed

    async def _watch_node(self) -> None:
        """A node that is drained takes its replicas along only when others are up, or at its
        deadline; work should move at once."""
        node_id = ray.get_runtime_context().get_node_id()
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                draining = await asyncio.to_thread(_draining_nodes)
            except Exception as e:  # the control plane may be away; the next look is soon
                log.warning("Ray does not say which nodes are drained: %s", e)
                continue
            if node_id in draining:
                self._told("this node is drained")
                return

    def _stopped(self) -> None:
        self._close()
        self._told("Serve stops this replica")

    def _told(self, why: str) -> None:
        log.warning("%s: clips in flight are handed out", why)
        self._tasks.add(asyncio.ensure_future(self._leave()))


def _draining_nodes() -> set[str]:
    from ray._private.state import state

    return set(state.get_draining_nodes())
