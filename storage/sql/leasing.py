"""The queue in the job table: who waits, who is taken, who waited too long.

Statements on an open connection; JobStore says what they promise. A backlog may be 100,000 rows
of one tenant: nothing here reads it all.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from diffusion.params import Priority
from storage.errors import StaleDispatcher
from storage.job_contract import Progress
from storage.jobs import Attempt, JobStatus
from storage.sql import families, outbox
from storage.sql.database import hold
from storage.sql.rows import is_part, with_events
from storage.sql.tables import dispatchers, jobs

SERVED = (Priority.INTERACTIVE, Priority.BATCH)  # first to last

_REGISTER = ("dispatchers",)

_queued = (jobs.c.status == JobStatus.QUEUED) & is_part


def supersede(db: Connection, now: float, lease_s: float) -> int:
    """Registers a Dispatcher. Waits for what older ones are at; from here on they are refused. A
    lease that ends later than one begun now is not believed: the clock was put back since."""
    hold(db, *_REGISTER)
    running = jobs.c.status == JobStatus.IN_PROGRESS
    unbelievable = _unlocked(running, jobs.c.lease_until > now + lease_s)
    clamped = update(jobs).where(jobs.c.seq.in_(unbelievable))
    db.execute(clamped.values(lease_until=now + lease_s, rev=jobs.c.rev))
    started = insert(dispatchers).values(started_at=now)
    epoch: int = db.execute(started.returning(dispatchers.c.epoch)).scalar_one()
    return epoch


def require_newest(db: Connection, epoch: int) -> None:
    """Nobody registers until the transaction ends. Raises StaleDispatcher."""
    hold(db, *_REGISTER, shared=True)
    newest = db.scalar(select(func.max(dispatchers.c.epoch)))
    if newest != epoch:
        raise StaleDispatcher(epoch, newest or 0)


def first_of_each_tenant(db: Connection, per_tenant: int, now: float) -> list[Row[Any]]:
    """Of every tenant and priority the first `per_tenant` rows that may be leased, in order."""
    found = []
    for priority in SERVED:
        lost = select(jobs).where(_lost(now), jobs.c.priority == priority)
        # One statement, so that no row is seen in two states; few rows, so sorted here.
        rows = db.execute(union_all(_queued_heads(priority, per_tenant), lost)).all()
        taken = Counter[str]()
        for row in sorted(rows, key=lambda row: row.seq):
            taken[row.tenant] += 1
            if taken[row.tenant] <= per_tenant:
                found.append(row)
    return found


def _queued_heads(priority: Priority, per_tenant: int) -> Select[Any]:
    """A loose index scan (wiki.postgresql.org/wiki/Loose_indexscan), from tenant to tenant and then
    from row to row of each: DISTINCT or a window would read the whole backlog, and SQLite has no
    LATERAL."""
    line = jobs.alias("line")
    ahead = (line.c.status == JobStatus.QUEUED) & (line.c.priority == priority)
    ahead &= line.c.candidates == 0

    tenant = select(func.min(line.c.tenant)).where(ahead)
    tenants = select(tenant.scalar_subquery().label("tenant")).cte("tenants", recursive=True)
    following = tenant.where(line.c.tenant > tenants.c.tenant).scalar_subquery()
    tenants = tenants.union_all(select(following).where(tenants.c.tenant.is_not(None)))

    seq = select(func.min(line.c.seq)).where(ahead)
    first = seq.where(line.c.tenant == tenants.c.tenant).scalar_subquery()
    found = select(tenants.c.tenant, first.label("seq"), literal(1).label("place"))
    heads = found.cte("heads", recursive=True)
    behind = seq.where(line.c.tenant == heads.c.tenant, line.c.seq > heads.c.seq)
    heads = heads.union_all(
        select(heads.c.tenant, behind.scalar_subquery(), heads.c.place + 1).where(
            heads.c.seq.is_not(None), heads.c.place < per_tenant
        )
    )
    return select(jobs).join(heads, jobs.c.seq == heads.c.seq)


def fail_worn_out(
    db: Connection, now: float, max_attempts: int, among: Collection[str] | None
) -> None:
    """Ends the jobs whose lost attempt was their last; `among` these, where it says which."""
    worn_out = _lost(now) & (jobs.c.failures + 1 >= max_attempts)
    if among is not None:
        worn_out &= jobs.c.id.in_(among)
    _fail(
        db,
        worn_out,
        now,
        failures=jobs.c.failures + 1,
        error_code="worker_lost",
        error_message="lost its worker, and no attempt is left",
        lease_until=None,
    )


def take(
    db: Connection,
    tiers: Mapping[str, str],
    epoch: int,
    now: float,
    lease_until: float,
    max_attempts: int,
) -> list[Row[Any]]:
    """Begins an attempt of those of the jobs (id -> tier) that are free, and returns these."""
    families.lock(db, tiers)
    # Worn-out ones may be left: what somebody else had locked was not failed.
    free = _lost(now) & (jobs.c.failures + 1 < max_attempts)
    # Not `or_`: SQLite would look both halves up in an index, and read the whole backlog.
    free_now = case((_queued, True), (free, True), else_=False)
    chosen = db.scalars(_unlocked(jobs.c.id.in_(tiers), free_now)).all() if tiers else []
    if not chosen:
        return []
    begun = {
        row.id: row
        for row in db.execute(
            update(jobs)
            .where(jobs.c.seq.in_(chosen))
            .values(
                status=JobStatus.IN_PROGRESS,
                attempt=jobs.c.attempt + 1,
                failures=jobs.c.failures + case((_lost(now), 1), else_=0),
                epoch=epoch,
                lease_until=lease_until,
                started_at=func.coalesce(jobs.c.started_at, now),
                tier=case(dict(tiers), value=jobs.c.id),
                stage=None,
                step=0,
                predicted_at=None,
            )
            .returning(*jobs.c)
        )
    }
    families.refresh(db, [row.parent_id for row in begun.values()], now)
    return [begun[job_id] for job_id in tiers if job_id in begun]


def renew(
    db: Connection, updates: Sequence[Progress], lease_until: float, now: float
) -> list[Attempt]:
    """Writes the reports of those who own their job; the attempts of the others."""
    named = {report.attempt.job_id for report in updates}
    families.lock(db, named)
    columns = (jobs.c.id, jobs.c.attempt, jobs.c.epoch, jobs.c.events, jobs.c.parent_id)
    running = select(*columns).where(jobs.c.id.in_(named), jobs.c.status == JobStatus.IN_PROGRESS)
    # In one order, whoever locks: two that report the same jobs do not wait for each other.
    locked = db.execute(running.order_by(jobs.c.seq).with_for_update()).all()
    events = {Attempt(row.id, row.attempt, row.epoch): row.events for row in locked}
    disowned = []
    for report in updates:
        if report.attempt not in events:
            disowned.append(report.attempt)
            continue
        values = {"stage": report.stage, "step": report.step, "lease_until": lease_until}
        if report.predicted_at is not None:
            values["predicted_at"] = report.predicted_at
        if report.events:
            events[report.attempt] = with_events(events[report.attempt], report.events)
            values["events"] = events[report.attempt]
        db.execute(update(jobs).where(jobs.c.id == report.attempt.job_id).values(values))
    families.refresh(db, [row.parent_id for row in locked], now, moved=False)
    return disowned


def fail_overdue(db: Connection, now: float) -> list[str]:
    """Ends the queued jobs whose deadline has passed; their ids."""
    late = cast(func.round(now - jobs.c.deadline_at), BigInteger)
    ended = _fail(
        db,
        _queued & (jobs.c.deadline_at < now),
        now,
        error_code="deadline_exceeded",
        error_message="still waited " + cast(late, String) + " s after its deadline",
    )
    return [row.id for row in sorted(ended, key=lambda row: row.seq)]


def _fail(
    db: Connection, which: ColumnElement[bool], now: float, **values: Any
) -> Sequence[Row[Any]]:
    found = db.scalars(select(jobs.c.id).where(which)).all()
    if not found:
        return []
    families.lock(db, found)
    still = _unlocked(jobs.c.id.in_(found), which)
    failed = update(jobs).where(jobs.c.seq.in_(still)).values(status=JobStatus.FAILED, **values)
    ended = db.execute(failed.values(completed_at=now).returning(*jobs.c)).all()
    outbox.announce(db, ended, now)
    families.refresh(db, [row.parent_id for row in ended], now)
    return ended


def _unlocked(*which: ColumnElement[bool]) -> Select[Any]:
    """The seq of these rows, locked, less those that another transaction has locked: who changes
    many rows waits for none, so no two can wait for each other."""
    return select(jobs.c.seq).where(*which).with_for_update(skip_locked=True)


def _lost(now: float) -> ColumnElement[bool]:
    """In progress, and silent for longer than its lease."""
    return (jobs.c.status == JobStatus.IN_PROGRESS) & (jobs.c.lease_until <= now)
