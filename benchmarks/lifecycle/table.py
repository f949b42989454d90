"""The rows of those jobs, and of files."""

from sqlalchemy import func, insert, select

from benchmarks.lifecycle.sample import Layout, row_of
from storage.sql.database import Database
from storage.sql.tables import files, jobs

_AT_ONCE = 20_000


def fill(database: Database, layout: Layout) -> None:
    for first in range(0, layout.rows, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, layout.rows))
        with database.writing() as db:
            db.execute(insert(jobs), [row_of(layout, number) for number in numbers])


def fill_files(database: Database, tenant: str, count: int) -> None:
    """Uploads that no job is made of."""
    blank = {"tenant": tenant, "purpose": "vision", "filename": "photo.jpg", "created_at": 0.0}
    rows = [
        blank
        | {
            "id": f"file_{n:032d}",
            "media_type": "image/jpeg",
            "size_bytes": n,
            "sha256": f"{n:064d}",
        }
        for n in range(count)
    ]
    with database.writing() as db:
        db.execute(insert(files), rows)


def count(database: Database) -> dict[str, int]:
    """By tenant. The jobs that were created beside a sweep do not count."""
    numbered = jobs.c.id.like("video%")
    query = select(jobs.c.tenant, func.count()).where(numbered).group_by(jobs.c.tenant)
    with database.reading() as db:
        return dict(db.execute(query).all())
