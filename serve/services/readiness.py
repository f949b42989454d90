"""What keeps a request from succeeding now: each part is asked, none is waited for too long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from storage.errors import StorageError, StoreUnavailable
from storage.job_contract import JobStore
from storage.object_store import ObjectStore

log = logging.getLogger(__name__)

PATIENCE_S = 3.0
"""For each part."""


class Readiness:
    """`dispatcher_broken` asks the Dispatcher what keeps jobs from running."""

    def __init__(
        self,
        jobs: JobStore,
        objects: ObjectStore,
        dispatcher_broken: Callable[[], Awaitable[list[str]]],
    ):
        self._jobs, self._objects = jobs, objects
        self._dispatcher_broken = dispatcher_broken
        self._probes: dict[str, asyncio.Task[object]] = {}  # by the part that was asked
        self._look: asyncio.Task[list[str]] | None = None

    async def broken(self) -> list[str]:
        """In words; empty when nothing is. Whoever asks meanwhile gets the same answer: this needs
        no key, and must not keep the Dispatcher busy."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._broken())
        return await asyncio.shield(self._look)

    async def _broken(self) -> list[str]:
        def list_one() -> None:  # a stat would not tell a missing bucket from a missing object
            next(self._objects.iter_objects("_probe/"), None)

        found = await asyncio.gather(
            self._broken_store("job table", self._jobs.queued),
            self._broken_store("object store", list_one),
            self._dispatcher_broken(),
        )
        return [problem for problems in found for problem in problems]

    async def _broken_store(self, part: str, probe: Callable[[], object]) -> list[str]:
        # A probe that hangs holds a thread that requests need: it is waited for, not repeated.
        if part not in self._probes or self._probes[part].done():
            self._probes[part] = asyncio.create_task(asyncio.to_thread(probe))
        try:
            await asyncio.wait_for(asyncio.shield(self._probes[part]), PATIENCE_S)
        except TimeoutError:
            return [f"{part}: no answer in {PATIENCE_S:g} s"]
        except StoreUnavailable:
            # Addresses and statements, which are nobody's business without a key.
            log.warning("%s: no answer", part, exc_info=True)
            return [f"{part}: does not answer"]
        except StorageError as e:
            return [f"{part}: {e}"]
        return []
