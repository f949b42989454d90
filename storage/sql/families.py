"""Jobs of several candidates: a parent's row, which nobody leases, and a child's row for each that
is. What the parent's says is told anew from its children's, in the transaction that changes one.

Whoever changes a row of a family locks the parent's row first, then the children's, and parents in
order of creation: so no two wait for each other, and the last of them sees what the others wrote.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, update

from storage.job_contract import Purge
from storage.jobs import Job, JobRequest, JobStatus, Stage, VideoFile
from storage.sql import outbox, references
from storage.sql.rows import to_job
from storage.sql.tables import jobs

_WAY = tuple(Stage)
_UNFINISHED = (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


def to_jobs(db: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """Each with its candidates."""
    children = _children(db, [row.id for row in rows if row.candidates])
    return [to_job(row, children[row.id]) for row in rows]


def lock(db: Connection, job_ids: Collection[str]) -> None:
    """The parents of these, before any of them is locked itself."""
    if job_ids:
        parents = select(jobs.c.parent_id).where(
            jobs.c.id.in_(job_ids), jobs.c.parent_id.is_not(None)
        )
        families = select(jobs.c.seq).where(jobs.c.id.in_(parents)).order_by(jobs.c.seq)
        db.execute(families.with_for_update()).all()


def refresh(
    db: Connection, parent_ids: Iterable[str | None], now: float, *, moved: bool = True
) -> None:
    """Tell anew what the parents say, locked by the caller, but for those that have ended. Where a
    child has `moved` to another status those who watch hear of it, even if nothing else is new. At
    the end of a family the webhook is queued, and the results of those that were not chosen go,
    unless the caller wants to keep them."""
    named = {parent_id for parent_id in parent_ids if parent_id is not None}
    if not named:
        return
    unfinished = jobs.c.id.in_(named) & jobs.c.status.in_(_UNFINISHED)
    parents = db.execute(select(jobs).where(unfinished).order_by(jobs.c.seq)).all()
    children = _children(db, [parent.id for parent in parents])
    for parent in parents:
        told = _told(children[parent.id])
        if not moved and all(getattr(parent, name) == value for name, value in told.items()):
            continue
        change = update(jobs).where(jobs.c.seq == parent.seq).values(told)
        row = db.execute(change.returning(*jobs.c)).one()
        if row.status.is_terminal:
            outbox.announce(db, [row], now)
            _release_losers(db, row, children[parent.id], now)


def restore(db: Connection, parents: Sequence[Row[Any]], now: float) -> None:
    """What follows from rows that were made again: as much as they do not say themselves."""
    children = _children(db, [parent.id for parent in parents])
    refresh(db, children, now)
    for parent in parents:
        if parent.status.is_terminal:
            _release_losers(db, parent, children[parent.id], now)


def _release_losers(
    db: Connection, parent: Row[Any], children: Sequence[Row[Any]], now: float
) -> None:
    if JobRequest.from_json(parent.request.encode()).select == "best":
        losers = [
            child
            for child in children
            if child.result_id is not None and child.result_id != parent.result_id
        ]
        references.release(db, losers, now)


def cancel(db: Connection, parent: Row[Any], now: float) -> None:
    """What has not ended of it; `parent` is locked by the caller."""
    rest = (jobs.c.parent_id == parent.id) & jobs.c.status.in_(_UNFINISHED)
    ended = {"status": JobStatus.CANCELLED, "lease_until": None, "completed_at": now}
    db.execute(update(jobs).where(rest).values(ended))
    refresh(db, [parent.id], now)


def forget(db: Connection, row: Row[Any], now: float) -> Purge:
    """Deletes the row of a job, locked by the caller, with those of its candidates."""
    children = _children(db, [row.id], lock=True)[row.id] if row.candidates else []
    # In order, as everybody holds several: each is held again as its row goes.
    for result_id in sorted({child.result_id for child in children} - {None}):
        references.hold_result(db, row.tenant, result_id)
    for child in children:
        references.forget(db, child, now)
    return references.forget(db, row, now)


def _children(
    db: Connection, parent_ids: Collection[str], lock: bool = False
) -> dict[str, list[Row[Any]]]:
    """In order of their numbers."""
    found = defaultdict[str, list[Row[Any]]](list)
    if parent_ids:
        query = select(jobs).where(jobs.c.parent_id.in_(parent_ids)).order_by(jobs.c.seq)
        for row in db.execute(query.with_for_update() if lock else query):
            found[row.parent_id].append(row)
    return found


def _told(children: Sequence[Row[Any]]) -> dict[str, Any]:
    """The columns of a parent that follow from its children."""
    begun = [child.started_at for child in children if child.started_at is not None]
    told = {
        "started_at": min(begun, default=None),
        "attempt": max(child.attempt for child in children),
        "step": sum(child.step for child in children),
        "stage": None,
        "tier": None,
    }
    if all(child.status is JobStatus.QUEUED for child in children):
        return told | {"status": JobStatus.QUEUED}
    if all(child.status.is_terminal for child in children):
        return told | _end(children)
    running = [child for child in children if child.status is JobStatus.IN_PROGRESS]
    if running:
        furthest = max(running, key=_way)
        told |= {"stage": furthest.stage, "tier": furthest.tier}
    return told | {"status": JobStatus.IN_PROGRESS}


def _end(children: Sequence[Row[Any]]) -> dict[str, Any]:
    told = {"completed_at": max(child.completed_at for child in children)}
    completed = [child for child in children if child.status is JobStatus.COMPLETED]
    if completed:
        best = max(completed, key=_score)  # of equals the first
        return told | _same(best, "status", "tier", "result", "result_id", "expired")
    if any(child.status is JobStatus.CANCELLED for child in children):
        return told | {"status": JobStatus.CANCELLED}
    return told | _same(children[0], "status", "tier", "error_code", "error_message")


def _same(child: Row[Any], *names: str) -> dict[str, Any]:
    return {name: getattr(child, name) for name in names}


def _way(child: Row[Any]) -> tuple[int, int]:
    return (-1 if child.stage is None else _WAY.index(child.stage)), child.step


def _score(child: Row[Any]) -> float:
    quality = VideoFile.from_json(child.result.encode()).quality
    return -1.0 if quality is None or quality.score is None else quality.score
