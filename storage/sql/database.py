"""One SQL database for all tables: a connection pool, and transactions that lose no acknowledged
row. SQLite on one node, Postgres for several; the tables are brought up to date when it is opened.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import StoreUnavailable
from storage.sql.migrate import is_current, migrate

RV = TypeVar("RV")

_WAIT_S = 15  # for a lock, and for a connection of the pool
_WAL_TRIES, _WAL_WAIT_S = 100, 0.05

_POSTGRES_LIMITS = {
    "connect_timeout": 5,  # s; for each address
    "keepalives_idle": 10,  # s
    "keepalives_interval": 5,  # s
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms; a network that swallows what is sent
    # Under another isolation level the transactions that wait for each other would fail.
    "options": r"-c default_transaction_isolation=read\ committed"
    f" -c lock_timeout={_WAIT_S}s -c statement_timeout=30s"
    " -c idle_in_transaction_session_timeout=60s",  # a process that stopped holds its rows
}
_SILENCE_S = 40  # for an answer of Postgres: longer than its own limits


class Database:
    """Open one per process: connections do not survive a fork. Raises StoreMisconfigured for
    tables of a newer version than this one knows."""

    def __init__(self, url: str) -> None:
        sqlite = make_url(url).get_backend_name() == "sqlite"
        self._reads = _sqlite(url) if sqlite else _postgres(url, _Impatient)
        # SQLite has one writer, and those who wait for it poll: without a queue some wait seconds.
        self._writer: AbstractContextManager[object] = threading.Lock() if sqlite else nullcontext()
        self._writes = self._reads.execution_options(writes=True)
        with self.reading() as db:
            current = is_current(db)
        if not current:
            # A migration may take as long as it takes.
            engine = self._writes if sqlite else _postgres(url, psycopg.Connection)
            try:
                with _transaction(engine) as db:
                    migrate(db)
            finally:
                engine.dispose()

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


def hold(db: Connection, *name: str, shared: bool = False) -> None:
    """Until the transaction ends no other one holds this name (unless both share it), so that what
    is read from here on stays true. For `writing` transactions."""
    if db.dialect.name == "sqlite":  # has one writer anyway
        return
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    db.execute(select(lock(func.hashtextextended("/".join(name), 0))))


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.begin() as db:
            yield db
    # InternalError: Postgres ended a transaction that idled, or is a standby after a failover.
    except (OperationalError, InternalError, PoolTimeout) as error:
        raise StoreUnavailable(f"job table: {error}") from error


class _Impatient(psycopg.Connection[Any]):
    """Gives up on a server that is there but silent (stopped, swapped out): it keeps none of its
    own limits then, and its kernel answers for it."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = _SILENCE_S) -> RV:
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()  # it is in the middle of an answer
            raise psycopg.OperationalError(f"no answer within {timeout} s") from error


def _postgres(url: str, connection: type[psycopg.Connection[Any]]) -> Engine:
    # Pinged before use, so that a restart of the server costs nobody a failed call.
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=_WAIT_S,
        connect_args=_POSTGRES_LIMITS,
        hide_parameters=True,  # an error that is logged must not tell a prompt or a webhook's URL
    )

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, args: list[Any], kwargs: dict[str, Any]) -> object:
        return connection.connect(*args, **kwargs)

    return engine


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, pool_timeout=_WAIT_S, hide_parameters=True)  # as above
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin only at the first write, too late for a transaction that reads first
    # (SQLAlchemy docs, "pysqlite: serializable isolation"); _begin_sqlite does it instead.
    connection.isolation_level = None
    # In ms; first, because the next line may have to wait.
    connection.execute(f"PRAGMA busy_timeout = {_WAIT_S * 1000}")
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
