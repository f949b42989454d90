"""What the Dispatcher has published last, and when a job will end as foreseen from that."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.cost import CostModel
from cluster.eta import FACT, STALE_S, Eta, Snapshot, eta_s
from storage.facts import SqlFacts
from storage.jobs import Job

log = logging.getLogger(__name__)

_KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class LastWord:
    """Of the Dispatcher."""

    at: float  # Unix seconds, by its clock
    snapshot: Snapshot | None  # None: it is too old to be true, or of another version


class Foresight:
    """Safe from several threads; asks the database once a second at most."""

    def __init__(
        self, facts: SqlFacts, cost: CostModel, monotonic: Callable[[], float] = time.monotonic
    ):
        self._facts, self._cost, self._monotonic = facts, cost, monotonic
        self._lock = threading.Lock()
        self._word: LastWord | None = None
        self._read_at = float("-inf")  # monotonic, as the next one
        self._born_at = float("-inf")  # when the fact that was read last was written
        self._written_at: float | None = None

    def eta(self, job: Job, queue_position: int | None) -> Eta | None:
        """When it will end; None: not known. Raises StoreUnavailable."""
        word = self.last_word()
        if word is None or word.snapshot is None:
            return None
        try:
            seconds = eta_s(job, word.snapshot, self._cost, queue_position, time.time())
        except KeyError:  # a tier that the Dispatcher has and we do not, during a rollout
            return None
        return None if seconds is None else Eta(seconds, word.snapshot.median_error)

    def last_word(self) -> LastWord | None:
        """None: no Dispatcher has ever spoken. Raises StoreUnavailable."""
        with self._lock:
            now = self._monotonic()
            if now - self._read_at >= _KEPT_S:
                self._word = self._read(now)
                self._read_at = now
            return self._word

    def _read(self, now: float) -> LastWord | None:
        fact = self._facts.get(FACT)
        if fact is None:
            return None
        if fact.written_at != self._written_at:
            # Wall clocks may be set: what is news to us is no older than our last look.
            age_s = min(max(0.0, fact.age_s), now - self._read_at)
            self._written_at, self._born_at = fact.written_at, now - age_s
        if now - self._born_at > STALE_S:
            return LastWord(fact.written_at, None)
        try:
            return LastWord(fact.written_at, Snapshot.from_json(fact.value))
        except ValueError:  # a Dispatcher of another version, during a rollout
            log.warning("the Dispatcher's snapshot cannot be read", exc_info=True)
            return LastWord(fact.written_at, None)
