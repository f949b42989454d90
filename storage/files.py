"""Uploaded files: a row each beside the bytes in the bucket, for photos that several jobs use."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from storage.errors import FileNotFound, QuotaExceeded
from storage.sql import tenancy
from storage.sql.database import Database, hold
from storage.sql.tables import files

_ROOM_LATER_S = 3600
"""Files do not go by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Its bytes lie at keys.input_key(tenant, sha256), as a job's own photo does."""

    id: str
    tenant: str
    purpose: str
    filename: str  # as the caller named it
    media_type: str
    size_bytes: int
    sha256: str
    created_at: float = 0.0  # Unix seconds; set by the store


class SqlFiles:
    """Every method may raise StoreUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def add(
        self, file: StoredFile, max_stored_bytes: int | None = None, registered: bool = False
    ) -> StoredFile:
        """The file that stands under its id already, where there is one. Raises QuotaExceeded when
        the tenant's files would take more than `max_stored_bytes`, and TenantNotFound where the
        tenant must be `registered` and is not, or not any more."""
        values = {name: getattr(file, name) for name in StoredFile.__slots__}
        with self._database.writing() as db:
            hold(db, "files", file.tenant)
            if standing := db.execute(_query(file.tenant, file.id)).one_or_none():
                return _to_file(standing)
            if registered:
                tenancy.require(db, file.tenant)
            if max_stored_bytes is not None:
                _require_room(db, file.tenant, file.size_bytes, max_stored_bytes)
            added = insert(files).values(values | {"created_at": self._clock()})
            return _to_file(db.execute(added.returning(*files.c)).one())

    def require_room(self, tenant: str, size_bytes: int, max_stored_bytes: int) -> None:
        """Before the bytes are stored; `add` has the last word. Raises QuotaExceeded."""
        with self._database.reading() as db:
            _require_room(db, tenant, size_bytes, max_stored_bytes)

    def get(self, tenant: str, file_id: str) -> StoredFile:
        """Raises FileNotFound, for another tenant's file too."""
        with self._database.reading() as db:
            return _to_file(_row_of(db, tenant, file_id))

    def list_files(
        self, tenant: str, *, limit: int, after: str | None, order: Literal["asc", "desc"]
    ) -> list[StoredFile]:
        """In order of upload, from behind file `after` on. Raises FileNotFound."""
        ascending = order == "asc"
        query = select(files).where(files.c.tenant == tenant).limit(limit)
        query = query.order_by(files.c.seq.asc() if ascending else files.c.seq.desc())
        with self._database.reading() as db:
            if after is not None:
                seen = _row_of(db, tenant, after).seq
                query = query.where(files.c.seq > seen if ascending else files.c.seq < seen)
            return [_to_file(row) for row in db.execute(query)]

    def delete(self, tenant: str, file_id: str) -> None:
        """The bytes stay while a job refers to them. Raises FileNotFound."""
        with self._database.writing() as db:
            row = _row_of(db, tenant, file_id)
            db.execute(delete(files).where(files.c.seq == row.seq))


def _require_room(db: Connection, tenant: str, size_bytes: int, max_stored_bytes: int) -> None:
    own = select(func.sum(files.c.size_bytes)).where(files.c.tenant == tenant)
    if (db.scalar(own) or 0) + size_bytes > max_stored_bytes:
        raise QuotaExceeded("stored_bytes", max_stored_bytes, _ROOM_LATER_S)


def _row_of(db: Connection, tenant: str, file_id: str) -> Row[Any]:
    row = db.execute(_query(tenant, file_id)).one_or_none()
    if row is None:
        raise FileNotFound(file_id)
    return row


def _query(tenant: str, file_id: str) -> Select[Any]:
    return select(files).where(files.c.id == file_id, files.c.tenant == tenant)


def _to_file(row: Row[Any]) -> StoredFile:
    return StoredFile(**{name: getattr(row, name) for name in StoredFile.__slots__})
