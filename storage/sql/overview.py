"""An operator's look at the jobs of all tenants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, literal_column, select

from diffusion.params import Priority
from storage.errors import JobNotFound
from storage.jobs import Job, JobStatus
from storage.sql.database import Database
from storage.sql.families import to_jobs
from storage.sql.rows import is_part, is_visible, to_job
from storage.sql.tables import jobs

_RUNNING_SHOWN, _FAILED_SHOWN = 100, 5
_ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Line:
    """The jobs of one priority that wait."""

    length: int
    oldest_at: float | None  # Unix seconds; None: nobody waits


@dataclass(frozen=True, slots=True)
class Scene:
    """What goes on at one moment. Every candidate counts for itself: it is they that are run."""

    lines: Mapping[Priority, Line]
    running_count: int
    running: Sequence[Job]  # the longest under way first, a hundred at most
    ended: Mapping[JobStatus, int]  # since the moment that was asked for
    failures: Mapping[str, int]  # of these, by error code
    failed: Sequence[Job]  # of these, the last few, the newest first


def newest(
    database: Database, limit: int, tenant: str | None = None, status: JobStatus | None = None
) -> list[Job]:
    """The last created first."""
    query = select(jobs).where(is_visible).order_by(jobs.c.seq.desc()).limit(limit)
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    if status is not None:
        query = query.where(jobs.c.status == status)
    with database.reading() as db:
        return to_jobs(db, db.execute(query).all())


def one(database: Database, job_id: str) -> Job:
    """Whosever it is, a candidate too. Raises JobNotFound."""
    with database.reading() as db:
        row = db.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        return to_jobs(db, [row])[0]


def lines(database: Database) -> dict[Priority, Line]:
    """The queue, of all tenants."""
    with database.reading() as db:
        return {priority: _line(db, priority) for priority in Priority}


def scene(database: Database, since: float) -> Scene:
    """Cheap enough for once a second, whatever has piled up. `since` in Unix seconds."""
    running = (jobs.c.status == JobStatus.IN_PROGRESS) & is_part
    over = jobs.c.completed_at >= since
    failed = (jobs.c.status == JobStatus.FAILED) & over & is_part
    code, number = jobs.c.error_code, func.count()
    with database.reading() as db:
        count = db.scalar(select(number).select_from(jobs).where(running)) or 0
        rows = select(jobs).where(running).order_by(jobs.c.started_at).limit(_RUNNING_SHOWN)
        last = select(jobs).where(failed).order_by(jobs.c.completed_at.desc()).limit(_FAILED_SHOWN)
        ends = select(jobs.c.status, number).where(jobs.c.status.in_(_ENDS), over, is_part)
        codes = select(code, number).where(failed).group_by(code).order_by(number.desc())
        return Scene(
            {priority: _line(db, priority) for priority in Priority},
            count,
            [to_job(row) for row in db.execute(rows)],
            dict(db.execute(ends.group_by(jobs.c.status)).all()),
            dict(db.execute(codes).all()),
            [to_job(row) for row in db.execute(last)],
        )


def _line(db: Connection, priority: Priority) -> Line:
    # Not a parameter: with one, no planner could tell that the partial index jobs_line applies.
    queued = (jobs.c.status == literal_column("'queued'")) & is_part
    waiting = queued & (jobs.c.priority == priority)
    first = select(jobs.c.created_at).where(waiting).order_by(jobs.c.seq).limit(1)
    length = db.scalar(select(func.count()).select_from(jobs).where(waiting))
    return Line(length or 0, db.scalar(first))
