"""The outbox: why a crash between commit and delivery loses nothing, and why items of one key keep their order."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, exists, func, or_, select, update

from inlay_core.application.ports import Delivery, Destination, DestinationCount, OutboxItem
from inlay_core.persistence import mapping
from inlay_core.persistence.columns import Moment
from inlay_core.persistence.statements import Statements
from inlay_core.persistence.tables import OUTBOX


class SqlOutbox:
    """`Outbox` on the table `outbox`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, item: OutboxItem) -> None:
        self._statements.insert(OUTBOX, mapping.item_values(item))

    def claim(self, destination: str, now: datetime, lease_until: datetime, limit: int) -> Sequence[OutboxItem]:
        earlier = OUTBOX.alias("earlier")
        blocked = exists().where(
            earlier.c.destination == OUTBOX.c.destination,
            earlier.c.key == OUTBOX.c.key,
            earlier.c.state == Delivery.PENDING.value,
            earlier.c.seq < OUTBOX.c.seq,
        )
        due = (
            select(OUTBOX.c.seq)
            .where(
                OUTBOX.c.destination == destination,
                OUTBOX.c.state == Delivery.PENDING.value,
                OUTBOX.c.next_attempt_at <= now,
                or_(OUTBOX.c.lease_until.is_(None), OUTBOX.c.lease_until < now),
                ~blocked,
            )
            .order_by(OUTBOX.c.seq)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        # Two statements: PostgreSQL may run an inner SELECT ... LIMIT FOR UPDATE more than once inside an UPDATE.
        numbers = [row.seq for row in self._statements.all(due)]
        if not numbers:
            return []
        leased = (
            update(OUTBOX)
            .where(OUTBOX.c.seq.in_(numbers))
            .values(lease_until=lease_until, attempts=OUTBOX.c.attempts + 1)
            .returning(OUTBOX)
        )
        rows = sorted(self._statements.all(leased), key=lambda row: int(row.seq))
        return [mapping.item_of(row) for row in rows]

    def save(self, item: OutboxItem) -> None:
        self._statements.must_change_one(update(OUTBOX).where(OUTBOX.c.id == item.id).values(mapping.item_values(item)))

    def get(self, item_id: str) -> OutboxItem | None:
        row = self._statements.one(select(OUTBOX).where(OUTBOX.c.id == item_id))
        return mapping.item_of(row) if row else None

    def count(self, states: Collection[Delivery] = tuple(Delivery)) -> Mapping[tuple[str, Delivery], int]:
        query = (
            select(OUTBOX.c.destination, OUTBOX.c.state, func.count().label("number"))
            .where(OUTBOX.c.state.in_([state.value for state in states]))
            .group_by(OUTBOX.c.destination, OUTBOX.c.state)
        )
        return {(row.destination, Delivery(row.state)): row.number for row in self._statements.all(query)}

    def census(self, newest: int) -> Sequence[DestinationCount]:
        pending, dead = (OUTBOX.c.state == state.value for state in (Delivery.PENDING, Delivery.DEAD))
        query = (
            select(
                OUTBOX.c.destination,
                func.sum(case((pending, 1), else_=0)).label("pending"),
                func.sum(case((dead, 1), else_=0)).label("dead"),
                func.min(case((pending, OUTBOX.c.created_at)), type_=Moment).label("oldest_pending"),
                func.max(case((OUTBOX.c.last_error.is_not(None), OUTBOX.c.seq))).label("failed"),
            )
            .where(OUTBOX.c.state.in_([Delivery.PENDING.value, Delivery.DEAD.value]))
            .group_by(OUTBOX.c.destination)
        )
        rows = self._statements.all(query)
        failed = select(OUTBOX.c.seq, OUTBOX.c.last_error).where(OUTBOX.c.seq.in_([row.failed for row in rows]))
        errors = {row.seq: row.last_error for row in self._statements.all(failed)}
        last = {told.destination: told.last_delivered for told in self._statements.all(_last_delivered(newest))}
        counted = {name: DestinationCount(name, 0, 0, None, moment) for name, moment in last.items()}
        for row in rows:
            counted[row.destination] = replace(
                counted[row.destination],
                pending=row.pending,
                dead=row.dead,
                oldest_pending=row.oldest_pending,
                last_error=errors.get(row.failed),
            )
        return list(counted.values())

    def pending_since(self) -> Mapping[str, datetime]:
        query = (
            select(OUTBOX.c.destination, func.min(OUTBOX.c.created_at).label("since"))
            .where(OUTBOX.c.state == Delivery.PENDING.value)
            .group_by(OUTBOX.c.destination)
        )
        return {row.destination: row.since for row in self._statements.all(query)}

    def in_state(self, state: Delivery, limit: int, offset: int = 0) -> Sequence[OutboxItem]:
        where = (OUTBOX.c.state == state.value, OUTBOX.c.destination != Destination.CELERY.value)
        query = select(OUTBOX).where(*where).order_by(OUTBOX.c.seq).offset(offset).limit(limit)
        return [mapping.item_of(row) for row in self._statements.all(query)]

    def after(self, item: OutboxItem) -> Sequence[OutboxItem]:
        own = select(OUTBOX.c.seq).where(OUTBOX.c.id == item.id).scalar_subquery()
        same = (OUTBOX.c.destination == item.destination, OUTBOX.c.key == item.key, OUTBOX.c.seq > own)
        return [
            mapping.item_of(row) for row in self._statements.all(select(OUTBOX).where(*same).order_by(OUTBOX.c.seq))
        ]


def _last_delivered(newest: int) -> Select[Any]:
    """Each destination by name, and the last delivery among the `newest` that were due last.

    Nothing here goes through what was delivered over the years. An index on `delivered_at` would cost every delivery
    for a moment that people look at now and then; the one on when items are due finds it as well (decision 184).
    """
    first = select(func.min(OUTBOX.c.destination).label("destination"))
    names = first.cte("names", recursive=True)
    following = select(func.min(OUTBOX.c.destination)).where(OUTBOX.c.destination > names.c.destination)
    names = names.union_all(select(following.scalar_subquery()).where(names.c.destination.is_not(None)))
    due_last = (
        select(OUTBOX.c.delivered_at)
        .where(OUTBOX.c.destination == names.c.destination, OUTBOX.c.state == Delivery.DELIVERED.value)
        .order_by(OUTBOX.c.next_attempt_at.desc())
        .limit(newest)
        .correlate(names)
        .subquery()
    )
    last = select(func.max(due_last.c.delivered_at, type_=Moment)).scalar_subquery()
    return (
        select(names.c.destination, last.label("last_delivered"))
        .where(names.c.destination.is_not(None))
        .order_by(names.c.destination)
    )
