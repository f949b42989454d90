"""Whether a tenant, and the queue, have room for one more job. Statements on an open connection.

A job of several candidates takes the room of as many, and is one creation: that is the rate at
which a caller may ask. Creations have rows of their own: those of the jobs are gone once a caller
deletes them.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, insert, literal, select

from storage.errors import QueueFull, QuotaExceeded
from storage.job_contract import Caps
from storage.jobs import JobStatus
from storage.sql.database import hold
from storage.sql.rows import is_part
from storage.sql.tables import creations, jobs

_MINUTE_S = 60
_ROOM_SOON_S = 5
"""When to come back where nobody knows: a job of one's own has to end first."""

_QUEUED = (JobStatus.QUEUED,)
_UNFINISHED = (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


def admit(db: Connection, tenant: str, caps: Caps, now: float, waiting: int) -> None:
    """Counts a creation, which puts so many into the queue: none where the result was there, and
    that is a creation as any other. Raises QueueFull and QuotaExceeded. Reads no more rows than the
    caps allow. A tenant's caps are exact; that of all may be exceeded by creations of the same
    moment, for which no tenant waits for another."""
    if caps != Caps(caps.queued):
        hold(db, "creations", tenant)
    if waiting:
        _check_room(db, tenant, caps, waiting)
    if caps.tenant_creates_per_minute is not None:
        _count_creation(db, tenant, caps.tenant_creates_per_minute, now)


def _check_room(db: Connection, tenant: str, caps: Caps, waiting: int) -> None:
    own = jobs.c.tenant == tenant
    before = 1 - waiting  # where the last of them finds the cap reached
    if caps.queued is not None and _reaches(db, caps.queued + before, _is(_QUEUED)):
        raise QueueFull(caps.queued)
    most = caps.tenant_queued
    if most is not None and _reaches(db, most + before, own, _is(_QUEUED)):
        raise QuotaExceeded("queued_jobs", most, _ROOM_SOON_S)
    most = caps.tenant_unfinished
    if most is not None and _reaches(db, most + before, own, _is(_UNFINISHED)):
        raise QuotaExceeded("unfinished_jobs", most, _ROOM_SOON_S)


def _count_creation(db: Connection, tenant: str, most: int, now: float) -> None:
    """Rows of the last minute stay, which are `most` at the most."""
    own = creations.c.tenant == tenant
    db.execute(delete(creations).where(own, creations.c.created_at <= now - _MINUTE_S))
    latest = select(creations.c.created_at).where(own).order_by(creations.c.created_at.desc())
    times = db.scalars(latest.limit(most)).all()
    if len(times) >= most:
        wait_s = times[-1] + _MINUTE_S - now if times else _MINUTE_S
        raise QuotaExceeded("creates_per_minute", most, max(1, round(wait_s)))
    db.execute(insert(creations).values(tenant=tenant, created_at=now))


def _is(statuses: Sequence[JobStatus]) -> ColumnElement[bool]:
    return jobs.c.status.in_(statuses)


def _reaches(db: Connection, limit: int, *which: ColumnElement[bool]) -> bool:
    # An offset costs half of what counting does, while the one writer of SQLite waits.
    last = select(literal(1)).where(*which, is_part).limit(1).offset(max(0, limit - 1))
    return limit <= 0 or db.scalar(last) is not None
