"""Since when this job table knows of every job. A table that was lost begins anew and empty, and
what stands in the bucket from before must not be taken for garbage."""

import json

from sqlalchemy import func, select

from storage.facts import SqlFacts
from storage.sql.database import Database
from storage.sql.tables import jobs

_BORN, _REBUILT = "job_table_born", "job_table_rebuilt"


def knows_since(database: Database, now: float) -> float:
    """Unix seconds: a job of after this time that has no row was deleted. The first call notes the
    beginning of the table; 0 once the table was rebuilt from the bucket."""
    facts = SqlFacts(database, lambda: now)
    if facts.get(_REBUILT):
        return 0.0
    if known := facts.get(_BORN):
        return float(json.loads(known.value))
    with database.reading() as db:
        # Rows are older than this note where an earlier release has made them.
        first_row = db.scalar(select(func.min(jobs.c.created_at)))
    born = now if first_row is None else min(now, first_row)
    facts.put(_BORN, json.dumps(born))
    return born


def note_rebuilt(database: Database, now: float) -> None:
    """Every job that the bucket knows of has a row, or was deleted."""
    SqlFacts(database, lambda: now).put(_REBUILT, json.dumps(now))
