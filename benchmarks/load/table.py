"""A job table with 100,000 rows, and the place of the Dispatcher taken: jobs are accepted, none is
worked on."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select

from cluster.eta import FACT
from storage.facts import SqlFacts
from storage.job_store import SqlJobStore
from storage.jobs import JobStatus
from storage.sql.tables import jobs

ROWS, QUEUED = 100_000, 20_000
_FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Filled:
    queued: list[str]  # ids
    ended: list[str]


def fill(store: SqlJobStore, job_id: str) -> Filled:
    """Copies of one completed job, of which the last ones wait."""
    with store.database.writing() as db:
        row = db.execute(select(jobs).where(jobs.c.id == job_id)).one()
        template = {name: value for name, value in row._mapping.items() if name != "seq"}
        waiting = {"status": JobStatus.QUEUED, "attempt": 0, "step": 0} | dict.fromkeys(
            ("started_at", "completed_at", "stage", "tier", "result", "result_id", "predicted_at")
        )
        rows: list[dict[str, Any]] = []
        for number in range(ROWS):
            new_id = f"video_{number:032x}"
            copy = template | {"id": new_id, "idempotency_key": new_id}
            copy["request"] = template["request"].replace(job_id, new_id)
            rows.append(copy | (waiting if number >= ROWS - QUEUED else {"recorded": True}))
        db.execute(insert(jobs), rows)
    ids = [row["id"] for row in rows]
    return Filled(queued=ids[-QUEUED:], ended=ids[:-QUEUED])


@contextmanager
def place_of_the_dispatcher(store: SqlJobStore) -> Iterator[int]:
    """The epoch of a newer Dispatcher than the running one, which finds itself replaced within a
    beat, takes no more jobs and publishes nothing; its last forecast is kept fresh, so that the
    API goes on to foresee as ever. Nothing of the service is stopped or changed for it."""
    facts, over = SqlFacts(store.database), threading.Event()
    fact = facts.get(FACT)
    assert fact is not None

    def publish() -> None:
        while not over.wait(_FRESH_S):
            facts.put(FACT, fact.value)

    epoch = store.next_epoch()
    time.sleep(2.0)  # several beats
    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    try:
        yield epoch
    finally:
        over.set()
        publisher.join()
