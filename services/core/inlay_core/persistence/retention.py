"""Letting go of old rows: found by their age and index, deleted in bounded batches, never those of open reports."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Table, and_, delete, func, null, select, tuple_

from inlay_core.application.ports import Aged, Delivery, Old
from inlay_core.domain.job import OPEN_STATES
from inlay_core.domain.lifecycle import UNSIGNED_STATUSES
from inlay_core.persistence.statements import Statements
from inlay_core.persistence.tables import (
    AUDIT_CURSORS,
    AUDIT_EVENTS,
    AUDIT_LINKS,
    JOBS,
    MESSAGES,
    ORDERS,
    OUTBOX,
    PROGRESS,
    REPORTS,
)

_OPEN_REPORT: Final = REPORTS.c.status.in_([status.value for status in UNSIGNED_STATUSES])
_OPEN_JOB: Final = JOBS.c.state.in_([state.value for state in OPEN_STATES])
# Kind -> its table, its key, and the moment that its age counts from.
_AGES: Final[Mapping[Aged, tuple[Table, Column[Any], Column[Any]]]] = MappingProxyType(
    {
        Aged.MESSAGES: (MESSAGES, MESSAGES.c.id, MESSAGES.c.received_at),
        Aged.JOBS: (JOBS, JOBS.c.id, JOBS.c.finished_at),
        Aged.PROGRESS: (PROGRESS, PROGRESS.c.job_id, PROGRESS.c.updated_at),
        Aged.OUTBOX: (OUTBOX, OUTBOX.c.id, OUTBOX.c.delivered_at),
    }
)


def _may_go(kind: Aged) -> ColumnElement[bool] | None:
    match kind:
        case Aged.JOBS:
            # A run record says which model wrote a text: it stays as long as the report.
            opened = select(REPORTS.c.id).where(REPORTS.c.id == JOBS.c.report_id, _OPEN_REPORT).exists()
            return and_(JOBS.c.run_record.is_(null()), ~_OPEN_JOB, ~opened)
        case Aged.PROGRESS:
            return ~select(JOBS.c.id).where(JOBS.c.id == PROGRESS.c.job_id, _OPEN_JOB).exists()
        case Aged.OUTBOX:
            return OUTBOX.c.state == Delivery.DELIVERED.value
        case Aged.MESSAGES:
            return None


class SqlRetention:
    """`Retention` on the tables that grow."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def old(self, kind: Aged, before: datetime, after: tuple[datetime, str] | None, limit: int) -> Sequence[Old]:
        _, key, moment = _AGES[kind]
        orders = [MESSAGES.c.order_ids] if kind is Aged.MESSAGES else []
        query = select(key.label("id"), moment.label("at"), *orders).where(moment < before)
        allowed = _may_go(kind)
        if allowed is not None:
            query = query.where(allowed)
        if after is not None:
            query = query.where(tuple_(moment, key) > tuple_(*after))
        rows = self._statements.all(query.order_by(moment, key).limit(limit))
        return [Old(row.id, row.at, tuple(row.order_ids) if orders else ()) for row in rows]

    def remove(self, kind: Aged, ids: Sequence[str]) -> None:
        table, key, _ = _AGES[kind]
        self._statements.run(delete(table).where(key.in_(list(ids))))

    def open_orders(self, order_ids: Iterable[str]) -> frozenset[str]:
        wanted = sorted(set(order_ids))
        query = select(REPORTS.c.order_id).where(_OPEN_REPORT, REPORTS.c.order_id.in_(wanted))
        return frozenset(row.order_id for row in self._statements.all(query)) if wanted else frozenset()

    def open_studies(self) -> Sequence[tuple[str | None, str | None]]:
        query = select(ORDERS.c.study_instance_uid, ORDERS.c.accession_number).join(
            REPORTS, and_(REPORTS.c.order_id == ORDERS.c.id, _OPEN_REPORT)
        )
        return [(row.study_instance_uid, row.accession_number) for row in self._statements.all(query)]

    def trail_needed_from(self) -> int | None:
        opened = (
            select(func.min(AUDIT_LINKS.c.position))
            .join(AUDIT_EVENTS, AUDIT_EVENTS.c.id == AUDIT_LINKS.c.event_id)
            .join(REPORTS, and_(REPORTS.c.id == AUDIT_EVENTS.c.report_id, _OPEN_REPORT))
        )
        told = select(func.min(AUDIT_CURSORS.c.position) + 1)
        needed = (self._statements.run(query).scalar_one() for query in (opened, told))
        return min((position for position in needed if position is not None), default=None)

    def remove_links(self, up_to: int, limit: int) -> int:
        query = select(AUDIT_LINKS.c.position, AUDIT_LINKS.c.event_id).where(AUDIT_LINKS.c.position <= up_to)
        rows = self._statements.all(query.order_by(AUDIT_LINKS.c.position).limit(limit))
        if rows:
            self._statements.run(delete(AUDIT_EVENTS).where(AUDIT_EVENTS.c.id.in_([row.event_id for row in rows])))
            self._statements.run(delete(AUDIT_LINKS).where(AUDIT_LINKS.c.position <= rows[-1].position))
        return len(rows)
