"""When a job will end, as this API replica foresees it from what the Dispatcher publishes."""

import logging
import threading
import time

from cluster.cost import CostModel
from cluster.eta import FACT, STALE_S, Snapshot, eta_s
from storage.facts import SqlFacts
from storage.jobs import Job

log = logging.getLogger(__name__)

_KEPT_S = 1.0


class Foresight:
    """Safe from several threads; asks the database once a second at most."""

    def __init__(self, facts: SqlFacts, cost: CostModel):
        self._facts, self._cost = facts, cost
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._read_at = float("-inf")  # monotonic

    def eta_s(self, job: Job, queue_position: int | None) -> float | None:
        """Seconds until its end; None: not known. Raises StoreUnavailable."""
        with self._lock:
            if time.monotonic() - self._read_at >= _KEPT_S:
                self._snapshot = self._read()
                self._read_at = time.monotonic()
            snapshot = self._snapshot
        if snapshot is None:
            return None
        try:
            return eta_s(job, snapshot, self._cost, queue_position, time.time())
        except KeyError:  # a tier that the Dispatcher has and we do not, during a rollout
            return None

    def _read(self) -> Snapshot | None:
        fact = self._facts.get(FACT)
        if fact is None or fact.age_s > STALE_S:
            return None
        try:
            return Snapshot.from_json(fact.value)
        except ValueError:  # a Dispatcher of another version, during a rollout
            log.warning("the Dispatcher's snapshot cannot be read", exc_info=True)
            return None
