"""One SQL database for all tables: a connection pool, and transactions that lose no acknowledged
row. SQLite on one node, Postgres for several; the tables are brought up to date when it is opened.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import StoreUnavailable
from storage.migrate import migrate

_WAL_TRIES, _WAL_WAIT_S = 100, 0.05


class Database:
    """Open one per process: connections do not survive a fork. Raises StoreMisconfigured for
    tables of a newer version than this one knows."""

    def __init__(self, url: str) -> None:
        self._reads = create_engine(url)
        sqlite = self._reads.dialect.name == "sqlite"
        if sqlite:
            event.listen(self._reads, "connect", _prepare_sqlite)
            event.listen(self._reads, "begin", _begin_sqlite)
        # SQLite has one writer, and those who wait for it poll: without a queue some wait seconds.
        self._writer: AbstractContextManager[object] = threading.Lock() if sqlite else nullcontext()
        self._writes = self._reads.execution_options(writes=True)
        with self.writing() as db:
            migrate(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises StoreUnavailable, as `writing` does, when the
        database is locked for too long, full, or not there."""
        with _transaction(self._reads) as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: commits at the end, rolls back on an exception."""
        with self._writer, _transaction(self._writes) as db:
            yield db

    def close(self) -> None:
        self._reads.dispose()


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.begin() as db:
            yield db
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(f"job table: {error}") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin only at the first write, too late for a transaction that reads first
    # (SQLAlchemy docs, "pysqlite: serializable isolation"); _begin_sqlite does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 15000")  # ms; first: the next line may have to wait
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait
            break
        except sqlite3.OperationalError:  # several at once: the timeout does not cover this switch
            if tries_left == 0:
                raise
            time.sleep(_WAL_WAIT_S)
    connection.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last rows in a power cut


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that has read cannot wait for the write lock any more: SQLite fails it at once.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
