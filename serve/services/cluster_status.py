"""How the service stands: what is broken, what waits, and what its tiers do."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from cluster.tiers import TierConfig
from diffusion.params import Priority
from serve.schemas import Cluster, Queue, Tier
from serve.services.foresight import Foresight, LastWord
from serve.services.readiness import PATIENCE_S, Readiness
from storage.errors import StoreUnavailable
from storage.sql.overview import Line

Seen = tuple[LastWord | None, Mapping[Priority, Line] | None]


class ClusterStatus:
    """`lines` counts the queue; it may raise StoreUnavailable."""

    def __init__(
        self,
        tiers: Sequence[TierConfig],
        readiness: Readiness,
        foresight: Foresight,
        lines: Callable[[], Mapping[Priority, Line]],
        clock: Callable[[], float] = time.time,
    ):
        self._tiers, self._readiness = tiers, readiness
        self._foresight, self._lines, self._clock = foresight, lines, clock
        self._reading: asyncio.Task[Seen] | None = None

    async def look(self) -> Cluster:
        """Tells what is known, whatever does not answer."""
        broken, (word, lines) = await asyncio.gather(self._readiness.broken(), self._read())
        snapshot = None if word is None else word.snapshot
        states = {} if snapshot is None else snapshot.tiers
        return Cluster(
            status="not_ready" if broken else "ready",
            broken=broken,
            observed_at=None if word is None else int(word.at),
            stale=snapshot is None,
            queue=None if lines is None else Queue.of(lines, self._clock()),
            tiers=[Tier.of(tier, states.get(tier.name)) for tier in self._tiers],
        )

    async def _read(self) -> Seen:
        """Whoever asks meanwhile gets the same; of a table that hangs, nothing."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(asyncio.to_thread(self._look_up))
        try:
            return await asyncio.wait_for(asyncio.shield(self._reading), PATIENCE_S)
        except (TimeoutError, StoreUnavailable):  # `broken` says so
            return None, None

    def _look_up(self) -> Seen:
        return self._foresight.last_word(), self._lines()
