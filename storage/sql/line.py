"""A job's place in the queue, whose length must not matter: it may be 100,000 jobs.

Near the front it is counted. Further back it is told from a picture of the line, every 64th job of
it, which is taken when somebody asks and kept for a second: who waits behind 500 others loses
nothing by it, and thousands who poll share one look.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, func, literal, literal_column, select

from diffusion.params import Priority
from storage.sql.leasing import SERVED
from storage.sql.rows import is_part
from storage.sql.tables import jobs

COUNTED = 512
EVERY = 64
KEPT_S = 1.0

# Not a parameter: with one, no planner could tell that the partial index jobs_line applies.
_in_line = (jobs.c.status == literal_column("'queued'")) & is_part


class Lines:
    """The lines of all priorities. Safe from several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._lock = monotonic, threading.Lock()
        self._pictures: dict[Priority, tuple[float, Sequence[int]]] = {}

    def position(self, db: Connection, job_id: str) -> int | None:
        """How many queued jobs are served before this one; None when it is not queued. Of each
        priority exact below COUNTED, from there on within EVERY, and a second old."""
        place = select(jobs.c.seq, jobs.c.priority).where(jobs.c.id == job_id, _in_line)
        row = db.execute(place).first()
        if row is None:
            return None
        served_before = SERVED[: SERVED.index(row.priority)]
        behind = sum(self._length(db, priority) for priority in served_before)
        return behind + self._length(db, row.priority, row.seq)

    def _length(self, db: Connection, priority: Priority, before: int | None = None) -> int:
        """Of the line of a priority, up to the job with seq `before`."""
        line = _in_line & (jobs.c.priority == priority)
        if before is not None:
            line &= jobs.c.seq < before
        some = select(literal(1)).where(line).limit(COUNTED).subquery()
        counted = db.scalar(select(func.count()).select_from(some)) or 0
        if counted < COUNTED:
            return counted
        picture = self._picture(db, priority)
        seen = len(picture) if before is None else bisect_left(picture, before)
        return max(counted, seen * EVERY)

    def _picture(self, db: Connection, priority: Priority) -> Sequence[int]:
        """The seq of every EVERY-th job, in order."""
        with self._lock:  # who comes meanwhile waits for this look instead of taking another
            now = self._monotonic()
            taken_at, picture = self._pictures.get(priority, (float("-inf"), ()))
            if now - taken_at >= KEPT_S:
                line = select(
                    jobs.c.seq, func.row_number().over(order_by=jobs.c.seq).label("number")
                ).where(_in_line, jobs.c.priority == priority)
                all_ = line.subquery()
                some = select(all_.c.seq).where(all_.c.number % EVERY == 0).order_by(all_.c.seq)
                picture = db.scalars(some).all()
                self._pictures[priority] = now, picture
            return picture
