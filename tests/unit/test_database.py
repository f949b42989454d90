"""The database itself: what it is set to, and how it goes away and comes back."""

import os
import signal
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError

from storage.errors import StoreUnavailable
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.sql import database
from storage.sql.database import Database, hold
from storage.sql.rows import row_of
from tests.postgres import Postgres
from tests.sample_jobs import make_request, sqlite_url, store_config


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    url = postgres.new_database()
    yield url
    postgres.drop(url)


def shorten(monkeypatch: pytest.MonkeyPatch, url: str, limit: str) -> None:
    """For whoever opens the database from now on; its tables are made before."""
    Database(url).close()
    options = f"{database._POSTGRES_LIMITS['options']} -c {limit}"
    monkeypatch.setitem(database._POSTGRES_LIMITS, "options", options)


# --- SQLite


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    opened = Database(sqlite_url(tmp_path))
    with opened.reading() as db:
        read = [
            db.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert read == ["wal", 2, 15_000]  # 2 is FULL
    opened.close()


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        SqlJobStore(JobStoreConfig(url=f"sqlite:///{tmp_path}/missing/jobs.sqlite"))


# --- both


def test_an_error_tells_no_value_of_a_row(database_url: str) -> None:
    """Of whichever class it is: it ends up in a log, or in an answer."""
    prompt = uuid4().hex
    opened = Database(database_url)
    with pytest.raises((StoreUnavailable, SQLAlchemyError)) as raised, opened.writing() as db:
        db.execute(text("INSERT INTO nowhere VALUES (:prompt)"), {"prompt": prompt})
    opened.close()
    told = "".join(traceback.format_exception(raised.value))
    assert "INSERT INTO nowhere" in told
    assert prompt not in told


# --- Postgres


def test_postgres_is_set_up_to_hang_nowhere(postgres_url: str) -> None:
    opened = Database(postgres_url)
    settings = {
        "transaction_isolation": "read committed",
        "lock_timeout": "15s",
        "statement_timeout": "30s",
        "idle_in_transaction_session_timeout": "1min",
    }
    with opened.writing() as db:
        assert {name: db.execute(text(f"SHOW {name}")).scalar() for name in settings} == settings
    opened.close()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        SqlJobStore(JobStoreConfig(url=f"postgresql+psycopg://x@/x?host={tmp_path}"))


def test_a_row_that_stays_locked_is_unavailable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, postgres_url, "lock_timeout=200ms")
    store = SqlJobStore(store_config(postgres_url))
    store.create(make_request("a"))
    with store.database.writing() as db:
        row_of(db, "shop", "a", lock=True)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            store.cancel("shop", "a")
    assert store.cancel("shop", "a").status.is_terminal
    store.close()


def test_a_statement_that_takes_too_long_is_unavailable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, postgres_url, "statement_timeout=200ms")
    opened = Database(postgres_url)
    with pytest.raises(StoreUnavailable, match="statement timeout"), opened.reading() as db:
        db.execute(text("SELECT pg_sleep(5)"))
    opened.close()


def test_a_process_that_stops_in_a_transaction_loses_its_locks(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, postgres_url, "idle_in_transaction_session_timeout=200ms")
    opened = Database(postgres_url)

    def idle() -> None:
        with opened.writing() as db:
            db.execute(select(1))
            time.sleep(0.5)
            db.execute(select(1))

    with pytest.raises(StoreUnavailable, match="idle-in-transaction"):
        idle()
    opened.close()


def test_a_server_that_stands_still_is_unavailable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlJobStore(store_config(postgres_url))
    job = store.create(make_request("a"))
    monkeypatch.setattr(database._Impatient.wait, "__defaults__", (0.1, 0.5))

    def stop_within_a_transaction() -> None:
        with store.database.reading() as db, stopped(_backend(db)):
            db.execute(select(1))

    with pytest.raises(StoreUnavailable, match=r"no answer within 0.5 s"):
        stop_within_a_transaction()
    with store.database.reading() as db:
        backend = _backend(db)
    with stopped(backend):  # found silent before its use, it is replaced, and nobody sees it
        began = time.monotonic()
        assert store.get("shop", "a") == job
        assert time.monotonic() - began > 0.4
    store.close()


def _backend(db: Connection) -> int:
    return int(db.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_store_outlives_its_server() -> None:
    with Postgres() as server:
        store = SqlJobStore(store_config(server.new_database()))
        jobs = [store.create(make_request(f"job-{number}")) for number in range(3)]
        with ThreadPoolExecutor(4) as pool:  # several connections, all to be found dead
            list(pool.map(lambda _: store.get("shop", "job-0"), range(8)))

        def lose_the_server() -> None:
            with store.database.writing() as db:
                row_of(db, "shop", "job-0", lock=True)
                server.end(signal.SIGKILL)
                row_of(db, "shop", "job-0")

        with pytest.raises(StoreUnavailable):
            lose_the_server()
        with pytest.raises(StoreUnavailable):
            store.get("shop", "job-0")
        server.start()
        assert [store.get("shop", job.id) for job in jobs] == jobs
        store.create(make_request("later"))
        assert store.queue_position("later") == 3
        store.close()


# --- holding a name


def test_who_holds_a_name_holds_it_alone_until_the_end(database_url: str) -> None:
    opened = Database(database_url)
    entered: list[str] = []

    def enter() -> None:
        with opened.writing() as db:
            hold(db, "place", "one")
            entered.append("second")

    with ThreadPoolExecutor(1) as pool:
        with opened.writing() as db:
            hold(db, "place", "one")
            second = pool.submit(enter)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)
            entered.append("first")
        second.result(timeout=10)
    assert entered == ["first", "second"]
    opened.close()


def test_names_are_held_apart_and_shared_on_postgres(postgres_url: str) -> None:
    opened = Database(postgres_url)
    with opened.writing() as first, opened.writing() as second:
        hold(first, "place", "one")
        hold(second, "place", "two")
        hold(first, "shared", shared=True)
        hold(second, "shared", shared=True)
    opened.close()
