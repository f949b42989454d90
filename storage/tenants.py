"""Who may use the service: tenants, their quotas and their API keys.

A key reads reel_<id>_<secret>. Its id may be shown; of the whole only the sha256 is stored. That
needs no slow hash: a secret of 256 random bits cannot be searched for.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, Update, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import StoreUnavailable, TenantNotFound, UnknownKey
from storage.job_contract import Caps
from storage.key_cache import KeyCache
from storage.sql.database import Database
from storage.sql.tables import api_keys, tenants

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")  # as in object keys: storage/keys.py
_KEY = re.compile(r"reel_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_ID_BYTES, _SECRET_BYTES = 8, 32
_LABEL_CHARS = 200
_NOBODYS_DIGEST = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).hexdigest()

_Limit = Annotated[int | None, Field(ge=0)]


class Quota(BaseModel):
    """What a tenant may use at once; None: no limit. All but the rate of requests count over all
    API replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queued_jobs: _Limit = None
    unfinished_jobs: _Limit = None  # queued and in progress
    creates_per_minute: _Limit = None
    requests_per_second: Annotated[int | None, Field(ge=1)] = None  # at each API replica
    stored_bytes: _Limit = None  # of uploaded files

    def caps(self, queued: int | None = None) -> Caps:
        """What a creation is checked against; `queued` is the limit of all tenants together."""
        return Caps(queued, self.queued_jobs, self.unfinished_jobs, self.creates_per_minute)


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    quota: Quota | None  # None: the server's default
    created_at: float  # Unix seconds, as everywhere


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is known of a key but itself."""

    id: str
    tenant: str
    label: str
    created_at: float
    revoked_at: float | None


class SqlTenants:
    """The tables of tenants and keys. Synchronous, safe from several threads; every method may
    raise StoreUnavailable."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        cache_s: float = 5.0,
    ) -> None:
        self._database, self._clock = database, clock
        self._known: KeyCache[Tenant] = KeyCache(clock, cache_s)

    def put(self, name: str, quota: Quota | None) -> Tenant:
        """Makes the tenant, or changes its quota. ValueError for a name that object keys cannot
        hold."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a tenant's name has 1 to 128 of A-Z a-z 0-9 _ -, not {name[:80]!r}")
        text = "null" if quota is None else quota.model_dump_json()
        changed = update(tenants).where(tenants.c.name == name).values(quota=text)
        new = insert(tenants).values(name=name, quota=text, created_at=self._clock())
        try:
            with self._database.writing() as db:
                row = db.execute(changed.returning(*tenants.c)).one_or_none()
                return _to_tenant(row or db.execute(new.returning(*tenants.c)).one())
        except IntegrityError as error:  # Postgres: two made it at once
            raise StoreUnavailable(f"tenant {name} was made at this moment") from error

    def get(self, name: str) -> Tenant:
        """Raises TenantNotFound."""
        with self._database.reading() as db:
            return _to_tenant(_row_of(db, name))

    def list_tenants(self) -> list[Tenant]:
        """By name."""
        with self._database.reading() as db:
            return [_to_tenant(row) for row in db.execute(select(tenants).order_by(tenants.c.name))]

    def remove(self, name: str) -> None:
        """Revokes its keys for good, and forgets its quota; its jobs and files stay. Raises
        TenantNotFound."""
        with self._database.writing() as db:
            _row_of(db, name)
            db.execute(_revoking(self._clock()).where(api_keys.c.tenant == name))
            db.execute(delete(tenants).where(tenants.c.name == name))

    def issue_key(self, tenant: str, label: str = "") -> tuple[ApiKey, str]:
        """The new key's data, and the key itself: this is the only time that anybody sees it.
        Raises TenantNotFound, and ValueError for a label of over 200 characters."""
        if len(label) > _LABEL_CHARS:
            raise ValueError(f"a label has {_LABEL_CHARS} characters at most")
        issued = ApiKey(secrets.token_hex(_ID_BYTES), tenant, label, self._clock(), None)
        key = f"reel_{issued.id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        with self._database.writing() as db:
            _row_of(db, tenant)
            db.execute(
                insert(api_keys).values(
                    id=issued.id,
                    tenant=tenant,
                    label=label,
                    digest=_digest(key),
                    created_at=issued.created_at,
                )
            )
        return issued, key

    def authenticate(self, key: str) -> Tenant:
        """Whose key it is. Raises UnknownKey, for a revoked one too. A good key is remembered for
        `cache_s` seconds, which a revoked key and an old quota may outlive their end here."""
        digest = _digest(key)
        if tenant := self._known.fresh(digest):
            return tenant
        shape = _KEY.fullmatch(key)
        query = select(tenants, api_keys.c.digest, api_keys.c.revoked_at).join_from(
            tenants, api_keys, api_keys.c.tenant == tenants.c.name
        )
        with self._database.reading() as db:
            found = db.execute(query.where(api_keys.c.id == (shape[1] if shape else ""))).first()
        # An unknown id is compared too, so that the time of an answer does not tell ids apart.
        same = hmac.compare_digest(found.digest if found else _NOBODYS_DIGEST, digest)
        if found is None or not same or found.revoked_at is not None:
            self._known.forget(digest)
            raise UnknownKey
        tenant = _to_tenant(found)
        self._known.put(digest, tenant)
        return tenant

    def recall(self, key: str) -> Tenant | None:
        """As `authenticate`, where that needs no query; else None."""
        return self._known.fresh(_digest(key))

    def revoke(self, key_id: str) -> None:
        """A key that is revoked already stays so. Raises UnknownKey."""
        with self._database.writing() as db:
            if not db.scalar(select(api_keys.c.id).where(api_keys.c.id == key_id)):
                raise UnknownKey
            db.execute(_revoking(self._clock()).where(api_keys.c.id == key_id))

    def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """In order of creation, the revoked ones too; of all tenants without a name. Raises
        TenantNotFound."""
        columns = (c for c in api_keys.c if c is not api_keys.c.digest)
        query = select(*columns).order_by(api_keys.c.created_at, api_keys.c.id)
        with self._database.reading() as db:
            if tenant is not None:
                _row_of(db, tenant)
                query = query.where(api_keys.c.tenant == tenant)
            return [ApiKey(**row._mapping) for row in db.execute(query)]


def _row_of(db: Connection, name: str) -> Row[Any]:
    row = db.execute(select(tenants).where(tenants.c.name == name)).one_or_none()
    if row is None:
        raise TenantNotFound(name)
    return row


def _to_tenant(row: Row[Any]) -> Tenant:
    quota = None if row.quota == "null" else Quota.model_validate_json(row.quota)
    return Tenant(row.name, quota, row.created_at)


def _revoking(now: float) -> Update:
    return update(api_keys).where(api_keys.c.revoked_at.is_(None)).values(revoked_at=now)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
