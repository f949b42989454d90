"""Looks at a job table and leaves it as it is, neither made nor migrated: before a rollout."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import DatabaseError

from storage.errors import StoreUnavailable
from storage.sql.migrate import pending

_CONNECT_S = 5


@dataclass(frozen=True, slots=True)
class Glance:
    exists: bool  # False: an SQLite file that the first start makes
    migrations: tuple[str, ...]  # that the first start applies; none where all were
    clock_ahead_s: float | None  # of Postgres' clock before ours; SQLite has none of its own


def glance(url: str) -> Glance:
    """Raises StoreUnavailable, and StoreMisconfigured for tables of a newer program."""
    parts = make_url(url)
    sqlite = parts.get_backend_name() == "sqlite"
    if sqlite:
        file = Path(parts.database or "")
        if not file.exists():
            if not os.access(file.parent, os.W_OK):
                raise StoreUnavailable(f"job table: {file.parent} is no folder to write to")
            return Glance(False, (), None)
        parts = parts.set(database=f"file:{file}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(
        parts,
        poolclass=NullPool,
        connect_args={} if sqlite else {"connect_timeout": _CONNECT_S},
        hide_parameters=True,
    )
    try:
        with engine.connect() as db:
            clock = None if sqlite else db.scalar(text("SELECT extract(epoch FROM now())::float8"))
            ahead_s = None if clock is None else clock - time.time()
            return Glance(True, tuple(pending(db)), ahead_s)
    except DatabaseError as e:
        raise StoreUnavailable(" ".join(f"job table: {e.orig}".split())) from e
