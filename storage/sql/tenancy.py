"""A tenant's row as the licence to make rows of its own. Statements on an open connection."""

from sqlalchemy import Connection, select

from storage.errors import TenantNotFound
from storage.sql.database import hold
from storage.sql.tables import tenants


def require(db: Connection, tenant: str) -> None:
    """Until the transaction ends the tenant stays (`end`). An API replica takes a key for good
    seconds after it is gone, so what is left behind a purge is decided here. Raises
    TenantNotFound."""
    hold(db, "tenant", tenant, shared=True)
    if db.scalar(select(tenants.c.name).where(tenants.c.name == tenant)) is None:
        raise TenantNotFound(tenant)


def end(db: Connection, tenant: str) -> None:
    """Waits for the transactions that `require` it; those that come later do not find it, if this
    transaction deletes the row."""
    hold(db, "tenant", tenant)
