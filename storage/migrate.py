"""Brings the tables to the version that this code expects, by alembic, inside one transaction."""

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


def migrate(db: Connection) -> None:
    """Upgrade in the caller's transaction, one process at a time. Raises StoreMisconfigured."""
    if db.dialect.name == "postgresql":
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    scripts = ScriptDirectory(str(_SCRIPTS))
    newest = scripts.get_current_head()
    current = MigrationContext.configure(db).get_current_revision()
    if current == newest:
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise StoreMisconfigured(
            f"the job table is of version {current}, newer than this program's {newest}:"
            " start the version that made it, or a later one"
        )
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = db
    if current is None and inspect(db).has_table("jobs"):
        command.stamp(config, _BEFORE_ALEMBIC)
    command.upgrade(config, "head")
