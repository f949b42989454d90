"""Facts: one value each, which one part of the service tells all others through the database."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.sql.database import Database
from storage.sql.tables import facts


@dataclass(frozen=True, slots=True)
class Fact:
    value: str  # JSON
    age_s: float  # by two clocks: the writer's and ours
    written_at: float  # Unix seconds, the writer's


class SqlFacts:
    """Every method may raise StoreUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def put(self, name: str, value: str) -> None:
        """The last word counts."""
        known = facts.c.name == name
        values = {"value": value, "written_at": self._clock()}
        try:
            with self._database.writing() as db:
                if not db.execute(update(facts).where(known).values(values)).rowcount:
                    db.execute(insert(facts).values(name=name, **values))
        except IntegrityError:  # Postgres: two said it first at once
            with self._database.writing() as db:
                db.execute(update(facts).where(known).values(values))

    def get(self, name: str) -> Fact | None:
        query = select(facts.c.value, facts.c.written_at).where(facts.c.name == name)
        with self._database.reading() as db:
            row = db.execute(query).one_or_none()
        if row is None:
            return None
        return Fact(row.value, self._clock() - row.written_at, row.written_at)
