"""How a replica learns that it must leave: Serve stops it, its process is told to end
(deployments.sigterm), or its node is drained (spot notice).

Serve tells a replica only when its requests have ended, and a clip lasts longer than the grace.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import ray

log = logging.getLogger(__name__)

_POLL_S = 1.0


def when_stopping(leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `leave` in this loop when this replica begins to stop: before its requests are waited
    for.

    Wraps the first thing that Serve does to stop a replica: there is no hook (2.60).
    tests/unit/test_leaving.py holds that the method is still there.
    """
    from ray.serve._private.replica import Replica

    loop, original = asyncio.get_running_loop(), Replica._perform_graceful_shutdown

    async def noticed(replica: Any) -> None:
        leaving = asyncio.run_coroutine_threadsafe(leave(), loop)
        await original(replica)
        await asyncio.wrap_future(leaving)

    Replica._perform_graceful_shutdown = noticed


class LeaveNotice:
    """Calls `leave` once when this replica begins to stop, after `close`, and once when its node is
    drained: from then on until it is stopped it may still get work, and do it."""

    def __init__(self, leave: Callable[[], Awaitable[None]], close: Callable[[], None]):
        self._leave, self._close = leave, close
        self._task = asyncio.create_task(self._watch_node())
        when_stopping(self._stopped)

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
                return await self._told("this node is drained")

    async def _stopped(self) -> None:
        self._close()
        await self._told("this replica is stopped")

    async def _told(self, why: str) -> None:
        log.warning("%s: clips in flight are handed out", why)
        await self._leave()


def _draining_nodes() -> set[str]:
    from ray._private.state import state

    return set(state.get_draining_nodes())
