"""The outbox: why a crash between commit and delivery loses nothing, and why items of one key keep their order."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import case, exists, func, or_, select, update

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

    def count(self, states: Iterable[Delivery] = Delivery) -> Mapping[tuple[str, Delivery], int]:
        columns = (OUTBOX.c.destination, OUTBOX.c.state)
        counted = OUTBOX.c.state.in_([state.value for state in states])
        query = select(*columns, func.count().label("number")).where(counted).group_by(*columns)
        return {(row.destination, Delivery(row.state)): row.number for row in self._statements.all(query)}

    def census(self) -> Sequence[DestinationCount]:
        pending, delivered = (OUTBOX.c.state == state.value for state in (Delivery.PENDING, Delivery.DELIVERED))
        query = (
            select(
                OUTBOX.c.destination,
                func.sum(case((pending, 1), else_=0)).label("pending"),
                func.sum(case((OUTBOX.c.state == Delivery.DEAD.value, 1), else_=0)).label("dead"),
                func.min(case((pending, OUTBOX.c.created_at)), type_=Moment).label("oldest_pending"),
                func.max(case((delivered, OUTBOX.c.delivered_at)), type_=Moment).label("last_delivered"),
                func.max(case((~delivered & OUTBOX.c.last_error.is_not(None), OUTBOX.c.seq))).label("failed"),
            )
            .group_by(OUTBOX.c.destination)
            .order_by(OUTBOX.c.destination)
        )
        rows = self._statements.all(query)
        failed = select(OUTBOX.c.seq, OUTBOX.c.last_error).where(OUTBOX.c.seq.in_([row.failed for row in rows]))
        errors = {row.seq: row.last_error for row in self._statements.all(failed)}
        return [
            DestinationCount(
                row.destination,
                row.pending,
                row.dead,
                row.oldest_pending,
                row.last_delivered,
                errors.get(row.failed),
            )
            for row in rows
        ]

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
