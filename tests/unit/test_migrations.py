"""The migrations make the tables that the code expects, from nothing and from older versions."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Index, MetaData, create_engine, text

from storage.errors import StoreMisconfigured
from storage.job_store import SqlJobStore
from storage.jobs import JobStatus
from storage.sql import migrations
from storage.sql.database import Database
from storage.sql.tables import jobs, metadata
from tests.postgres import Postgres
from tests.sample_jobs import VIDEO, lease_one, make_request, sqlite_url, store_config

VERSION_1 = """
CREATE TABLE dispatchers (
    epoch INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    started_at DOUBLE NOT NULL
);
CREATE TABLE jobs (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id VARCHAR(128) NOT NULL,
    tenant VARCHAR(128) NOT NULL,
    idempotency_key VARCHAR(255),
    fingerprint VARCHAR(64),
    request TEXT NOT NULL,
    sku TEXT,
    priority VARCHAR(32) NOT NULL,
    deadline_at DOUBLE,
    status VARCHAR(32) NOT NULL,
    created_at DOUBLE NOT NULL,
    started_at DOUBLE,
    completed_at DOUBLE,
    stage VARCHAR(32),
    step INTEGER NOT NULL,
    tier VARCHAR(128),
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    lease_until DOUBLE,
    result TEXT,
    error_code VARCHAR(64),
    error_message TEXT,
    events TEXT NOT NULL,
    UNIQUE (tenant, idempotency_key),
    UNIQUE (id)
);
CREATE INDEX jobs_deadlines ON jobs (status, deadline_at);
CREATE INDEX jobs_listing ON jobs (tenant, seq);
CREATE INDEX jobs_queue ON jobs (status, priority, tenant, seq);
"""
"""As it was made before there were migrations."""

INSERT_1 = """
INSERT INTO jobs (id, tenant, request, priority, status, created_at, completed_at, step, attempt,
                  failures, epoch, result, events)
VALUES (:id, 'shop', :request, 'interactive', :status, 5.0, :completed_at, 0, :attempt, 0, 1,
        :result, '[]')
"""
"""As version 1 wrote its rows."""


def row_1(job_id: str, *, completed: bool = False) -> dict[str, object]:
    return {
        "id": job_id,
        "request": make_request(job_id).to_json().decode(),
        "status": "completed" if completed else "queued",
        "completed_at": 9.0 if completed else None,
        "attempt": int(completed),
        "result": VIDEO.to_json().decode() if completed else None,
    }


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database(migrated=False)
    yield url
    server.drop(url)


def differences(db: Connection, expected: MetaData) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    found: list[object] = compare_metadata(MigrationContext.configure(db, opts=options), expected)
    return found


# --- the newest version


def test_the_migrations_make_the_tables_of_the_code(empty_url: str) -> None:
    database = Database(empty_url)
    with database.reading() as db:
        assert differences(db, metadata) == []
        other = MetaData()
        for table in metadata.sorted_tables:
            table.to_metadata(other)
        Index("unheard_of", other.tables["jobs"].c.tier)
        other.tables["jobs"].c.sku.nullable = False
        assert len(differences(db, other)) == 2  # so the comparison does see what differs
    database.close()


def test_opening_an_up_to_date_database_waits_for_no_writer(database_url: str) -> None:
    first = Database(database_url)
    with first.writing() as db, ThreadPoolExecutor(1) as pool:
        db.execute(text("UPDATE jobs SET step = 1"))
        second = pool.submit(Database, database_url).result(timeout=10)  # no writer waits less
    second.close()
    first.close()


def test_a_newer_database_is_refused(empty_url: str) -> None:
    database = Database(empty_url)
    with database.writing() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StoreMisconfigured, match=r"version 9999, newer than this program's"):
        Database(empty_url)
    with pytest.raises(StoreMisconfigured):
        SqlJobStore(store_config(empty_url))


def test_a_migration_that_breaks_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: object, **kwargs: object) -> None:
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", breaks)
        with pytest.raises(RuntimeError, match="half way"):
            Database(empty_url)
    store = SqlJobStore(store_config(empty_url))
    assert store.create(make_request("a")).status is JobStatus.QUEUED
    store.close()


# --- many at once


def test_many_threads_open_a_new_database_at_once(empty_url: str) -> None:
    config = store_config(empty_url)
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: SqlJobStore(config), range(8)))
    assert [store.next_epoch() for store in stores] == list(range(1, 9))
    for store in stores:
        store.close()


OPEN = """
import os, sys
from storage.job_store import JobStoreConfig, SqlJobStore
gate, latch = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(latch)
        os.read(gate, 1)  # until the parent lets go
        print(SqlJobStore(JobStoreConfig(url=sys.argv[1])).next_epoch(), flush=True)
        os._exit(0)
os.close(latch)
sys.exit(any(os.wait()[1] for _ in range(8)))
"""


def test_many_processes_open_a_new_database_at_once(empty_url: str) -> None:
    opened = subprocess.run(
        [sys.executable, "-c", OPEN, empty_url],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(map(int, opened.stdout.split())) == list(range(1, 9))


# --- from version 1


def test_a_file_from_before_migrations_keeps_its_rows(tmp_path: Path) -> None:
    file = sqlite3.connect(tmp_path / "jobs.sqlite")
    file.executescript(VERSION_1)
    rows = [row_1("done", completed=True), *(row_1(f"job-{number}") for number in range(1500))]
    file.executemany(INSERT_1, rows)
    file.execute("INSERT INTO dispatchers (started_at) VALUES (1.0)")
    file.commit()
    file.close()

    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    with store.database.reading() as db:
        assert differences(db, metadata) == []
        new = (jobs.c.photo_sha256, jobs.c.result_id, jobs.c.rev, jobs.c.recorded)
        filled = [tuple(row) for row in db.execute(jobs.select().with_only_columns(*new))]
    photo = make_request("x").photo_sha256
    assert filled == [(photo, VIDEO.result_id, 0, False)] + 1500 * [(photo, None, 0, False)]
    done = store.get("shop", "done")
    assert (done.result, done.expired, done.completed_at) == (VIDEO, False, 9.0)
    assert done.request == make_request("done")
    assert store.counts()[JobStatus.QUEUED] == 1500
    epoch = store.next_epoch()
    assert epoch == 2  # goes on where the old ones ended
    assert lease_one(store, epoch).job_id == "job-0"
    assert store.delete("shop", "done").result_id == VIDEO.result_id
    store.close()


def test_what_version_2_called_expired_stays_so(tmp_path: Path) -> None:
    engine = create_engine(sqlite_url(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "0002")
        for job_id, more in {
            "kept": "result_id = 'r', recorded = true",
            "expired": "recorded = true",
            "of version 1": "recorded = false",
        }.items():
            db.execute(text(INSERT_1), row_1(job_id, completed=True))
            db.execute(text(f"UPDATE jobs SET {more} WHERE id = :id"), {"id": job_id})
    engine.dispose()
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    expired = {job.id: job.expired for job in store.list_jobs("shop", limit=9)}
    assert expired == {"kept": False, "expired": True, "of version 1": False}
    store.close()


def test_what_was_made_before_is_listed_by_its_category(empty_url: str) -> None:
    engine = create_engine(empty_url)
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "0007")
        for job_id, category in {"a": "watch", "b": None, "c": 'it\'s "home"'}.items():
            request = make_request(job_id, category=category).to_json().decode()
            db.execute(text(INSERT_1), row_1(job_id) | {"request": request})
    engine.dispose()
    store = SqlJobStore(store_config(empty_url))
    for category, expected in {"watch": ["a"], 'it\'s "home"': ["c"], "null": []}.items():
        assert [job.id for job in store.list_jobs("shop", limit=9, category=category)] == expected
    assert len(store.list_jobs("shop", limit=9)) == 3
    store.close()


def test_version_1_goes_on_writing_while_the_new_one_is_rolled_out(database_url: str) -> None:
    store = SqlJobStore(store_config(database_url))
    with store.database.writing() as db:
        db.execute(text(INSERT_1), row_1("old"))
    job = store.get("shop", "old")
    assert (job.request, job.status, job.rev) == (make_request("old"), JobStatus.QUEUED, 0)
    attempt = lease_one(store, store.next_epoch())
    assert attempt.job_id == "old"
    assert store.complete(attempt, VIDEO).result == VIDEO
    with store.database.writing() as db:
        db.execute(text(INSERT_1), row_1("done", completed=True))
    done = store.get("shop", "done")
    assert (done.status, done.expired) == (JobStatus.COMPLETED, False)
    store.close()
