"""An operator's look at the jobs of all tenants."""

from sqlalchemy import select

from storage.errors import JobNotFound
from storage.jobs import Job, JobStatus
from storage.sql.database import Database
from storage.sql.families import to_jobs
from storage.sql.rows import is_visible
from storage.sql.tables import jobs


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
