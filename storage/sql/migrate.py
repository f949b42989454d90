"""Brings the tables to the version that this code expects, by alembic, inside one transaction."""

import threading
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from storage.errors import StoreMisconfigured

_SCRIPTS = Path(__file__).parent / "migrations"
_BEFORE_ALEMBIC = "0001"
_LOCK = 7_205_759_403  # any number that nobody else locks in this database
_ALEMBIC = threading.Lock()  # its context is one per process, whatever the database


def is_current(db: Connection) -> bool:
    """Whether there is nothing to migrate: cheap, and it waits for nobody."""
    return _version(db) == _scripts().get_current_head()


def pending(db: Connection) -> list[str]:
    """The versions that `migrate` would bring the tables to, one after the other. Raises
    StoreMisconfigured for tables of a newer program."""
    scripts, current = _scripts(), _version(db)
    newest_first = [script.revision for script in scripts.walk_revisions()]
    if current is None:
        return newest_first[::-1]
    if current not in newest_first:
        raise StoreMisconfigured(
            f"the job table is of version {current}, newer than this program's {newest_first[0]}:"
            " start the version that made it, or a later one"
        )
    return newest_first[: newest_first.index(current)][::-1]


def migrate(db: Connection) -> None:
    """Upgrade in the caller's transaction, one process at a time. Raises StoreMisconfigured."""
    if db.dialect.name == "postgresql":
        _wait_for_turn(db)
    if not pending(db):
        return
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = db
    with _ALEMBIC:
        if _version(db) is None and inspect(db).has_table("jobs"):
            command.stamp(config, _BEFORE_ALEMBIC)
        command.upgrade(config, "head")


def _wait_for_turn(db: Connection) -> None:
    db.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes its time
    db.execute(text("SET LOCAL lock_timeout = '10min'"))  # and so does who migrates it before us
    db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    # Whoever wants the table now stands in line behind the ALTER TABLE: better to try again.
    db.execute(text("SET LOCAL lock_timeout = '5s'"))


def _version(db: Connection) -> str | None:
    return MigrationContext.configure(db).get_current_revision()


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_SCRIPTS))
