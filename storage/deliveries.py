"""The webhooks to be sent, as storage.sql.outbox wrote them, and the endpoints that want no more.

A row is claimed by moving its `due_at` ahead: whoever dies with it, the next one takes it then.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.sql.database import Database
from storage.sql.tables import deliveries, endpoints


class Outcome(StrEnum):
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    DISABLED = "disabled"  # the endpoint answered 410


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook, to be sent until it arrived."""

    id: str  # webhook-id: the same in every try, so that the receiver knows a repeat
    tenant: str
    job_id: str
    url: str
    host: str  # with the port
    body: str
    created_at: float  # this and the next in Unix seconds
    due_at: float | None  # of the next try; None: it is over
    tries: int  # begun
    outcome: Outcome | None  # None: not over
    detail: str | None  # how the last try went: for operators, it may quote the endpoint


class SqlDeliveries:
    """Synchronous, safe from several threads and processes; every method may raise
    StoreUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    def claim(
        self, limit: int, lease_s: float, per_host: int, in_flight: Mapping[str, int]
    ) -> list[Delivery]:
        """Begins a try of up to `limit` that are due, longest first, so that no host has more than
        `per_host` with those `in_flight` (host -> number). They are due again after `lease_s`."""
        now = self._clock()
        room = {host: per_host - busy for host, busy in in_flight.items()}
        with self._database.reading() as db:  # most looks find nothing: no lock for those
            if not _due(db, now, room, 1):
                return []
        claimed: list[Delivery] = []
        with self._database.writing() as db:
            while len(claimed) < limit:
                found = _due(db, now, room, limit - len(claimed))
                if not found:
                    break
                for row in found:
                    free = room.setdefault(row.host, per_host)
                    room[row.host] = free - 1
                    if free > 0:
                        begun = update(deliveries).where(deliveries.c.seq == row.seq)
                        values = {"due_at": now + lease_s, "tries": row.tries + 1}
                        taken = db.execute(begun.values(values).returning(*deliveries.c))
                        claimed.append(_delivery(taken.one()))
        return claimed

    def retry(self, delivery: Delivery, due_at: float, detail: str) -> None:
        """Once more at `due_at`; nothing when it was claimed anew since, or is over."""
        mine = deliveries.c.outcome.is_(None) & (deliveries.c.tries == delivery.tries)
        later = update(deliveries).where(deliveries.c.id == delivery.id, mine)
        with self._database.writing() as db:
            db.execute(later.values(due_at=due_at, detail=detail))

    def end(self, delivery: Delivery, outcome: Outcome, detail: str) -> None:
        """It is over. Of two ends, of a claim that ran out and the next one, a delivery counts."""
        over = update(deliveries).where(deliveries.c.id == delivery.id)
        if outcome is not Outcome.DELIVERED:
            mine = deliveries.c.outcome.is_(None) & (deliveries.c.tries == delivery.tries)
            over = over.where(mine)
        with self._database.writing() as db:
            db.execute(over.values(due_at=None, outcome=outcome.value, detail=detail))

    def disable(self, tenant: str, url: str, reason: str) -> None:
        """The tenant's endpoint wants no more."""
        row = {"tenant": tenant, "url": url, "disabled_at": self._clock(), "reason": reason}
        with suppress(IntegrityError), self._database.writing() as db:  # the first reason is kept
            db.execute(insert(endpoints).values(row))

    def enable(self, tenant: str, url: str) -> None:
        with self._database.writing() as db:
            db.execute(delete(endpoints).where(_endpoint(tenant, url)))

    def is_disabled(self, tenant: str, url: str) -> bool:
        query = select(endpoints.c.url).where(_endpoint(tenant, url))
        with self._database.reading() as db:
            return db.execute(query).first() is not None

    def of_job(self, job_id: str) -> list[Delivery]:
        """In order of creation."""
        query = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.seq)
        with self._database.reading() as db:
            return [_delivery(row) for row in db.execute(query)]


_COLUMNS = [field.name for field in fields(Delivery)]


def _due(db: Connection, now: float, room: Mapping[str, int], limit: int) -> list[Row[Any]]:
    """Locked in a transaction that writes, as far as no other one holds them."""
    full = [host for host, free in room.items() if free <= 0]
    query = select(deliveries.c.seq, deliveries.c.host, deliveries.c.tries)
    query = query.where(deliveries.c.due_at <= now, deliveries.c.host.not_in(full))
    query = query.order_by(deliveries.c.due_at, deliveries.c.seq).limit(limit)
    return list(db.execute(query.with_for_update(skip_locked=True)))


def _endpoint(tenant: str, url: str) -> ColumnElement[bool]:
    return (endpoints.c.tenant == tenant) & (endpoints.c.url == url)


def _delivery(row: Row[Any]) -> Delivery:
    values = {name: getattr(row, name) for name in _COLUMNS}
    return Delivery(**values | {"outcome": row.outcome and Outcome(row.outcome)})
