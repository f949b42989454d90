"""A job's place in the queue, whose length must not matter: it may be 100,000 jobs. Statements on
an open connection."""

from sqlalchemy import (
    BigInteger,
    Connection,
    func,
    literal,
    literal_column,
    select,
)

from diffusion.params import Priority
from storage.sql.leasing import SERVED
from storage.sql.tables import jobs

_COUNTED = 2048
"""Jobs of a line that are counted; of a longer one as many are looked at, evenly spread."""
_SAMPLES = 32

# Not a parameter: with one, no planner could tell that the partial index jobs_line applies.
_in_line = jobs.c.status == literal_column("'queued'")


def position(db: Connection, job_id: str) -> int | None:
    """How many queued jobs are served before this one; None when it is not queued. Of each
    priority exact below `_COUNTED`, from there on an estimate, so that it costs no more."""
    place = select(jobs.c.seq, jobs.c.priority).where(jobs.c.id == job_id, _in_line)
    row = db.execute(place).first()
    if row is None:
        return None
    served_before = SERVED[: SERVED.index(row.priority)]
    return sum(_length(db, line) for line in served_before) + _length(db, row.priority, row.seq)


def _length(db: Connection, priority: Priority, before: int | None = None) -> int:
    """Of the line of a priority, up to the job with seq `before`."""
    line = _in_line & (jobs.c.priority == priority)
    if before is not None:
        line &= jobs.c.seq < before
    some = select(literal(1)).where(line).limit(_COUNTED).subquery()
    counted = db.scalar(select(func.count()).select_from(some)) or 0
    if counted < _COUNTED:
        return counted
    ends = db.execute(
        # Two questions: for both at once neither database would look at the ends of the index.
        select(
            select(func.min(jobs.c.seq)).where(line).scalar_subquery(),
            select(func.max(jobs.c.seq)).where(line).scalar_subquery(),
        )
    ).one()
    return max(counted, _estimate(db, priority, *ends))


def _estimate(db: Connection, priority: Priority, first: int, last: int) -> int:
    """How many jobs of a line lie from seq `first` to `last`, told from stretches of it: what
    was served, cancelled or has another priority leaves gaps."""
    span, width = last - first + 1, _COUNTED // _SAMPLES
    step = span // _SAMPLES
    numbers = select(literal(0, BigInteger).label("n")).cte("stretches", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < _SAMPLES - 1))
    # In the middle of its part of the span, so that neither end weighs more.
    begins = first + numbers.c.n * step + (step - width) // 2
    within = (jobs.c.seq >= begins) & (jobs.c.seq < begins + width)
    stretch = select(func.count()).where(_in_line, jobs.c.priority == priority, within)
    stretch_of = stretch.correlate(numbers).scalar_subquery()
    seen = int(db.scalar(select(func.sum(stretch_of)).select_from(numbers)) or 0)
    return round(seen * span / (_SAMPLES * width))
