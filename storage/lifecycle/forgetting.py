"""Jobs forgotten many at a time, by the rules of `forget`: SQL statements on an open connection."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, insert, select, true, tuple_, update

from storage.jobs import JobStatus
from storage.lifecycle.records import ENDED
from storage.sql.database import hold
from storage.sql.rows import is_visible
from storage.sql.tables import deliveries, endpoints, files, jobs, purges

Address = tuple[str, str]
"""Tenant, and the id of a result or the sha256 of a photo."""


_COLUMNS = (jobs.c.seq, jobs.c.tenant, jobs.c.id, jobs.c.result_id)


class _Reference(NamedTuple):
    seq: int
    tenant: str
    job_id: str
    result_id: str | None


def forget_ended(db: Connection, before: float, limit: int, now: float) -> int:
    """Jobs that ended before then (Unix seconds)."""
    old = jobs.c.status.in_(ENDED) & (jobs.c.completed_at < before) & is_visible
    return _forget(db, old, limit, now)


def forget_tenant(db: Connection, tenant: str, limit: int, now: float) -> int:
    """Jobs of a tenant, whatever their state."""
    return _forget(db, jobs.c.tenant == tenant, limit, now)


def _forget(db: Connection, which: ColumnElement[bool], limit: int, now: float) -> int:
    rows = _references(db, which, limit)
    # Of a tenant a candidate may be found by itself, too.
    family = list({row.seq: row for row in (*rows, *_candidates(db, rows))}.values())
    db.execute(delete(jobs).where(jobs.c.seq.in_([row.seq for row in family])))
    _note(db, family, now)
    return len(rows)


def expire_results(db: Connection, before: float, limit: int, now: float) -> int:
    """Completed jobs of before then (Unix seconds) lose their video; they themselves stay, once
    their end is recorded: without that and without a result, a rebuild would run them again."""
    old = (
        (jobs.c.status == JobStatus.COMPLETED)
        & (jobs.c.completed_at < before)
        & jobs.c.result_id.is_not(None)
        & (jobs.c.recorded == true())
        & is_visible
    )
    rows = _references(db, old, limit)
    family = rows + [row for row in _candidates(db, rows) if row.result_id is not None]
    expired = update(jobs).where(jobs.c.seq.in_([row.seq for row in family]))
    db.execute(expired.values(result_id=None, expired=True))
    _note(db, family, now)
    return len(rows)


def _references(db: Connection, which: ColumnElement[bool], limit: int) -> list[_Reference]:
    query = select(*_COLUMNS).where(which).limit(limit)
    query = query.with_for_update(skip_locked=True)  # whoever holds one may wait for another
    return [_Reference(*row) for row in db.execute(query)]


def _candidates(db: Connection, parents: Sequence[_Reference]) -> list[_Reference]:
    """Of jobs that are locked, so that nobody holds theirs for long."""
    of_these = jobs.c.parent_id.in_([parent.job_id for parent in parents])
    query = select(*_COLUMNS).where(of_these).order_by(jobs.c.seq).with_for_update()
    return [_Reference(*row) for row in db.execute(query)]


def _note(db: Connection, rows: Sequence[_Reference], now: float) -> None:
    """What has to follow rows that refer to nothing any more: a result goes with the last one."""
    referred = {(row.tenant, row.result_id) for row in rows if row.result_id is not None}
    for held in sorted(referred):  # so that nobody refers to it anew before this is noted
        hold(db, "result", *held)
    doomed = referred - referred_by_jobs(db, referred)
    notes = []
    for row in rows:
        goes = (row.tenant, row.result_id) in doomed
        doomed -= {(row.tenant, row.result_id or "")}  # once is enough
        notes.append(
            {
                "tenant": row.tenant,
                "job_id": row.job_id,
                "result_id": row.result_id if goes else None,
                "created_at": now,
            }
        )
    if notes:
        db.execute(insert(purges), notes)


def is_left(db: Connection, tenant: str) -> bool:
    """Whether a tenant has a job: one that another transaction held is not forgotten."""
    return db.scalar(select(jobs.c.seq).where(jobs.c.tenant == tenant).limit(1)) is not None


def doom_result(db: Connection, address: Address, job_id: str, now: float) -> bool:
    """Note a result that no row refers to, made by this job, unless one does by now."""
    hold(db, "result", *address)
    if referenced(db, [address]):
        return False
    tenant, result_id = address
    note = {"tenant": tenant, "job_id": job_id, "result_id": result_id, "created_at": now}
    db.execute(insert(purges).values(note))
    return True


def referenced(db: Connection, results: Collection[Address]) -> set[Address]:
    """Those that a job refers to, or that are being purged already."""
    found = referred_by_jobs(db, results)
    for tenant, ids in _by_tenant(results):
        noted = (purges.c.tenant == tenant) & purges.c.result_id.in_(ids)
        found |= {(tenant, i) for i in db.scalars(select(purges.c.result_id).where(noted)) if i}
    return found


def referred_by_jobs(db: Connection, results: Collection[Address]) -> set[Address]:
    found = set()
    for tenant, ids in _by_tenant(results):
        refer = (jobs.c.tenant == tenant) & jobs.c.result_id.in_(ids)
        distinct = select(jobs.c.result_id).where(refer).distinct()
        found |= {(tenant, result_id) for result_id in db.scalars(distinct) if result_id}
    return found


def used_photos(db: Connection, photos: Collection[Address], since: float) -> set[Address]:
    """Those that a file is, or a job needs that has not ended, or ended after then."""
    found = set()
    for tenant, ids in _by_tenant(photos):
        in_use = jobs.c.status.not_in(ENDED) | (jobs.c.completed_at >= since)
        needed = (jobs.c.tenant == tenant) & jobs.c.photo_sha256.in_(ids) & in_use
        kept = (files.c.tenant == tenant) & files.c.sha256.in_(ids)
        either = select(jobs.c.photo_sha256).where(needed).union(select(files.c.sha256).where(kept))
        found |= {(tenant, sha256) for sha256 in db.scalars(either) if sha256}
    return found


def known_photos(db: Connection, photos: Collection[Address]) -> set[Address]:
    """Those that some job was made of."""
    found = set()
    for tenant, ids in _by_tenant(photos):
        made = (jobs.c.tenant == tenant) & jobs.c.photo_sha256.in_(ids)
        distinct = select(jobs.c.photo_sha256).where(made).distinct()
        found |= {(tenant, sha256) for sha256 in db.scalars(distinct) if sha256}
    return found


def forget_deliveries(db: Connection, before: float, limit: int) -> int:
    """Webhooks that are over and were made before then (Unix seconds)."""
    over = deliveries.c.due_at.is_(None) & (deliveries.c.created_at < before)
    seqs = select(deliveries.c.seq).where(over).limit(limit).scalar_subquery()
    return db.execute(delete(deliveries).where(deliveries.c.seq.in_(seqs))).rowcount


def forget_endpoints(db: Connection, before: float, limit: int) -> int:
    """Webhook addresses that were given up before then (Unix seconds): they are tried again."""
    name = tuple_(endpoints.c.tenant, endpoints.c.url)
    old = select(endpoints.c.tenant, endpoints.c.url).where(endpoints.c.disabled_at < before)
    return db.execute(delete(endpoints).where(name.in_(old.limit(limit)))).rowcount


def _by_tenant(addresses: Iterable[Address]) -> list[tuple[str, list[str]]]:
    grouped: dict[str, list[str]] = {}
    for tenant, what in addresses:
        grouped.setdefault(tenant, []).append(what)
    return list(grouped.items())
