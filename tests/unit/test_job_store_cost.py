"""The job table with a long backlog: choosing, and telling a place, cost the same as with a short
one, counted and not timed."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, text, update

from diffusion.params import Priority
from storage.job_store import SqlJobStore
from storage.jobs import JobStatus
from storage.lifecycle import forgetting
from storage.sql.line import COUNTED, EVERY, KEPT_S, Lines
from storage.sql.tables import deliveries, jobs
from tests.postgres import Postgres
from tests.sample_jobs import make_request, sqlite_url, store_config


def test_choosing_costs_sqlite_the_same_whatever_the_backlog(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine: time would waver, and a plan names no cost."""
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    choose = chooser(store)
    add_backlog(store, 0, 300)
    few = steps(store, choose)
    add_backlog(store, 300, 3000)
    assert steps(store, choose) == few
    store.close()


def test_choosing_costs_postgres_the_same_whatever_the_backlog(postgres: Postgres) -> None:
    """Counted in rows and index entries read, with fresh statistics: the plans must not turn."""
    url = postgres.new_database()
    store = SqlJobStore(store_config(url))
    choose = chooser(store)
    add_backlog(store, 0, 2_000)
    few = rows_read(store, choose)
    add_backlog(store, 2_000, 20_000)
    assert 0 < rows_read(store, choose) <= few + 5
    store.close()
    postgres.drop(url)


def test_a_place_costs_sqlite_the_same_however_long_the_line(tmp_path: Path) -> None:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    add_backlog(store, 0, 6_000)
    store.queue_position("backlog-5999")  # takes a picture of the line, for a second
    few = steps(store, lambda: store.queue_position("backlog-5999"))
    add_backlog(store, 6_000, 30_000)
    store.queue_position("backlog-29999")
    many = steps(store, lambda: store.queue_position("backlog-29999"))
    assert 0 < many < 1.1 * few
    store.close()


def test_a_place_costs_postgres_the_same_however_long_the_line(postgres: Postgres) -> None:
    url = postgres.new_database()
    store = SqlJobStore(store_config(url))
    add_backlog(store, 0, 6_000)
    store.queue_position("backlog-5999")  # takes a picture of the line, for a second
    few = rows_read(store, lambda: store.queue_position("backlog-5999"))
    add_backlog(store, 6_000, 30_000)
    store.queue_position("backlog-29999")
    many = rows_read(store, lambda: store.queue_position("backlog-29999"))
    assert COUNTED < many < 1.1 * few
    store.close()
    postgres.drop(url)


@pytest.mark.parametrize("gaps", ["none", "served in front", "cancelled anywhere"])
def test_a_place_far_back_is_told_within_a_few(store: SqlJobStore, gaps: str) -> None:
    rows, chance = 30_000, random.Random(7)
    add_backlog(store, 0, rows)
    served_before, cancelled = {
        "none": (0, 0.0),
        "served in front": (8_000, 0.0),
        "cancelled anywhere": (0, 0.3),
    }[gaps]
    left = [n for n in range(rows) if n >= served_before and chance.random() >= cancelled]
    gone = sorted(set(range(rows)).difference(left))
    if gone:
        out = update(jobs).where(jobs.c.id == bindparam("of"))
        with store.database.writing() as db:
            ids = [{"of": f"backlog-{number}"} for number in gone]
            db.execute(out.values(status=JobStatus.CANCELLED), ids)
    for place in (0, COUNTED - 1):
        assert store.queue_position(f"backlog-{left[place]}") == place
    for place in (COUNTED + 1, 3_000, 12_000, len(left) - 1):
        told = store.queue_position(f"backlog-{left[place]}")
        assert told == pytest.approx(place, abs=EVERY)
    store.create(make_request("batch", priority=Priority.BATCH))
    store.create(make_request("person"))
    assert store.queue_position("person") == 0


def test_the_picture_of_a_long_line_is_taken_once_a_second(store: SqlJobStore) -> None:
    now = 100.0
    lines = Lines(lambda: now)

    def place(job_id: str) -> int | None:
        with store.database.reading() as db:
            return lines.position(db, job_id)

    add_backlog(store, 0, 3_000)
    assert place("backlog-2999") == pytest.approx(2999, abs=EVERY)
    with store.database.writing() as db:
        db.execute(update(jobs).values(status=JobStatus.CANCELLED).where(jobs.c.seq <= 1_500))
    assert place("backlog-2999") == pytest.approx(2999, abs=EVERY)
    now += KEPT_S
    assert place("backlog-2999") == pytest.approx(1499, abs=EVERY)


def test_expiring_costs_the_same_however_many_have_expired_already(tmp_path: Path) -> None:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))
    add_ended(store, 0, 200)
    few = steps(store, lambda: sweep(store))
    add_ended(store, 200, 3000)
    assert steps(store, lambda: sweep(store)) == few
    store.close()


def test_expiring_costs_postgres_the_same_however_many_have_expired(postgres: Postgres) -> None:
    url = postgres.new_database()
    store = SqlJobStore(store_config(url))
    add_ended(store, 0, 2_000)
    few = rows_read(store, lambda: sweep(store))
    add_ended(store, 2_000, 20_000)
    assert rows_read(store, lambda: sweep(store)) <= few + 5
    store.close()
    postgres.drop(url)


def test_webhooks_that_are_over_but_young_are_not_read(tmp_path: Path) -> None:
    store = SqlJobStore(store_config(sqlite_url(tmp_path)))

    def forget() -> None:
        with store.database.writing() as db:
            assert forgetting.forget_deliveries(db, 50.0, 500) == 0

    add_deliveries(store, 0, 200)
    few = steps(store, forget)
    add_deliveries(store, 200, 3000)
    assert steps(store, forget) == few
    store.close()


def chooser(store: SqlJobStore) -> Callable[[], None]:
    for number in range(3):
        request = make_request(f"b{number}", f"tenant-{number}", priority=Priority.BATCH)
        store.create(request)
    epoch = store.next_epoch()

    def choose() -> None:
        assert store.expire(epoch) == []
        assert len(store.waiting(4)) == 3 + 4
        assert store.lease(epoch, {f"gone-{number}": "cpu" for number in range(40)}) == []

    return choose


def add_backlog(store: SqlJobStore, first: int, after: int) -> None:
    """Many queued batch jobs of one tenant, between the others by name, in one transaction."""
    rows = [
        {
            "id": f"backlog-{number}",
            "tenant": "tenant-1b",
            "request": make_request(f"backlog-{number}").to_json().decode(),
            "priority": Priority.BATCH,
            "status": JobStatus.QUEUED,
            "created_at": 0.0,
        }
        for number in range(first, after)
    ]
    with store.database.writing() as db:
        db.execute(insert(jobs), rows)


def sweep(store: SqlJobStore) -> None:
    with store.database.writing() as db:
        assert forgetting.expire_results(db, 50.0, 500, 100.0) == 0


def add_ended(store: SqlJobStore, first: int, after: int) -> None:
    """Completed jobs, whose videos have expired."""
    rows = [
        {
            "id": f"ended-{number}",
            "tenant": "shop",
            "request": "{}",
            "priority": Priority.BATCH,
            "status": JobStatus.COMPLETED,
            "created_at": 0.0,
            "completed_at": 1.0,
            "expired": True,
            "recorded": True,
        }
        for number in range(first, after)
    ]
    with store.database.writing() as db:
        db.execute(insert(jobs), rows)


def add_deliveries(store: SqlJobStore, first: int, after: int) -> None:
    """Over, of just now."""
    blank = {"tenant": "shop", "job_id": "j", "url": "", "host": "", "body": "", "due_at": None}
    rows = [blank | {"id": f"msg-{n}", "created_at": 99.0} for n in range(first, after)]
    with store.database.writing() as db:
        db.execute(insert(deliveries), rows)


def steps(store: SqlJobStore, call: Callable[[], object]) -> int:
    """Instructions that SQLite runs in `call`."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with store.database._reads.connect() as db:  # the pool's only connection
        driver = db.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(step, 1)
    call()
    driver.set_progress_handler(None, 1)
    return count


_READ = text(
    "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)"
    " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"
)


def rows_read(store: SqlJobStore, call: Callable[[], object]) -> int:
    """Rows that Postgres reads in `call`: of tables whole, and of indexes."""

    def so_far() -> int:
        with store.database.reading() as db:  # the pool's only connection
            db.execute(text("SELECT pg_stat_force_next_flush()"))
        with store.database.reading() as db:
            return int(db.execute(_READ).scalar_one())

    with store.database._reads.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text("VACUUM ANALYZE"))
    before = so_far()
    call()
    return so_far() - before
