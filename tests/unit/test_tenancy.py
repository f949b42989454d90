"""A tenant's row against those who create in its name at the moment when it goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import pytest
from sqlalchemy import delete, select

from storage.errors import TenantNotFound
from storage.files import SqlFiles, StoredFile
from storage.job_store import SqlJobStore
from storage.sql import tenancy
from storage.sql.database import Database
from storage.sql.tables import files, tenants
from storage.tenants import SqlTenants
from tests.postgres import Postgres

FILE = StoredFile(
    id="file_1",
    tenant="shop",
    purpose="vision",
    filename="a.jpg",
    media_type="image/jpeg",
    size_bytes=10,
    sha256="0" * 64,
)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def remove(store: SqlJobStore) -> list[str]:
    """As a purge does it; the ids of the files that it finds."""
    with store.database.writing() as db:
        tenancy.end(db, "shop")
        db.execute(delete(tenants).where(tenants.c.name == "shop"))
    with store.database.reading() as db:
        return list(db.scalars(select(files.c.id)))


def test_a_purge_waits_for_who_is_about_to_create(
    store: SqlJobStore, threads: ThreadPoolExecutor
) -> None:
    SqlTenants(store.database).put("shop", None)
    with store.database.writing() as db:
        tenancy.require(db, "shop")
        purge = threads.submit(remove, store)
        with pytest.raises(NotYet):
            purge.result(0.3)
        row = {name: getattr(FILE, name) for name in StoredFile.__slots__}
        db.execute(files.insert().values(row))
    assert purge.result(10) == [FILE.id]


def test_who_creates_after_the_purge_finds_no_tenant(store: SqlJobStore) -> None:
    SqlTenants(store.database).put("shop", None)
    stored = SqlFiles(store.database)
    assert stored.add(FILE, registered=True).id == FILE.id
    assert remove(store) == [FILE.id]
    stored.delete("shop", FILE.id)
    with pytest.raises(TenantNotFound):
        stored.add(FILE, registered=True)
    assert stored.add(FILE).id == FILE.id  # where keys are off, tenants have no rows


def test_two_creations_of_a_tenant_do_not_wait_for_each_other(
    postgres: Postgres, threads: ThreadPoolExecutor
) -> None:
    url = postgres.new_database()
    database = Database(url)
    SqlTenants(database).put("shop", None)

    def require() -> None:
        with database.writing() as db:
            tenancy.require(db, "shop")

    with database.writing() as db:
        tenancy.require(db, "shop")
        threads.submit(require).result(5)
    database.close()
    postgres.drop(url)
