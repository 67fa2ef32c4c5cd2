"""The audit trail in the database: events in the transaction of their change, links by the sealer afterwards."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, exists, func, insert, or_, select, update

from inlay_core.application.ports import Standing
from inlay_core.domain.audit import GENESIS, AuditEvent, Checkpoint, Link, Verification, first_break, seal, start_of
from inlay_core.persistence.statements import Statements, rows_of_json
from inlay_core.persistence.tables import (
    AUDIT_CHECKPOINTS,
    AUDIT_CURSORS,
    AUDIT_EVENTS,
    AUDIT_LINKS,
    ORDERS,
    PATIENTS,
    REPORTS,
)

# A walk along a trail of years must not hold it in memory.
_BATCH: Final = 1000

# The name of the advisory lock of sealers: the first eight bytes of SHA-256("inlay sealer"), as a signed number.
_SEALER: Final = -4936558115820949021


class SqlAuditTrail:
    """`AuditTrail` on the tables `audit_events` and `audit_links`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def record(self, event: AuditEvent) -> None:
        self._statements.recorded.add((event.subject_kind, event.subject_id))
        self._statements.insert(AUDIT_EVENTS, _values(event))

    def record_while(self, readings: Sequence[tuple[AuditEvent, Standing]]) -> frozenset[str]:
        rows = [_values(event) | _stands(standing) for event, standing in readings]
        if self._statements.is_postgresql:
            return frozenset(row.id for row in self._statements.with_rows(_RECORD_ALL_WHILE, rows))
        return frozenset(row["id"] for row in rows if self._statements.run(_RECORD_ONE_WHILE, row).rowcount)

    def of_report(self, report_id: str, offset: int = 0, limit: int = 1000) -> Sequence[AuditEvent]:
        query = (
            select(AUDIT_EVENTS.c.body)
            .where(AUDIT_EVENTS.c.report_id == report_id)
            .order_by(AUDIT_EVENTS.c.seq)
            .offset(offset)
            .limit(limit)
        )
        return [AuditEvent.from_canonical(row.body) for row in self._statements.all(query)]

    def get(self, event_id: str) -> AuditEvent | None:
        row = self._statements.one(select(AUDIT_EVENTS.c.body).where(AUDIT_EVENTS.c.id == event_id))
        return AuditEvent.from_canonical(row.body) if row else None

    def seal(self, limit: int = 1000) -> int:
        # Should two sealers read the same head after all, the primary key on the position lets one of them commit.
        if not self._statements.is_alone(_SEALER):
            return 0
        pending = select(AUDIT_EVENTS.c.seq, AUDIT_EVENTS.c.id, AUDIT_EVENTS.c.body)
        pending = pending.where(AUDIT_EVENTS.c.is_sealed.is_(False)).order_by(AUDIT_EVENTS.c.seq).limit(limit)
        rows = self._statements.all(pending)
        if not rows:
            return 0
        head = self.head()
        position, previous = (head.position, head.hash) if head else (0, GENESIS)
        links = seal(((row.id, row.body) for row in rows), position, previous)
        self._statements.run(
            insert(AUDIT_LINKS).values(
                [
                    {
                        "position": link.position,
                        "event_id": link.event_id,
                        "previous": link.previous,
                        "hash": link.hash,
                    }
                    for link in links
                ]
            )
        )
        self._statements.run(
            update(AUDIT_EVENTS).where(AUDIT_EVENTS.c.seq.in_([row.seq for row in rows])).values(is_sealed=True)
        )
        return len(links)

    def head(self) -> Link | None:
        row = self._statements.one(select(AUDIT_LINKS).order_by(AUDIT_LINKS.c.position.desc()).limit(1))
        return Link(row.position, row.event_id, row.previous, row.hash) if row else None

    def verify(self, checkpoints: Collection[Checkpoint] = ()) -> Verification:
        cut = start_of(checkpoints)
        purged = cut.position if cut else 0
        walked, head, broken = first_break(self.links(purged), checkpoints)
        unsealed = self._statements.run(select(func.count()).select_from(AUDIT_EVENTS).where(_unlinked())).scalar_one()
        return Verification(walked - purged, unsealed, head, broken, purged, len(checkpoints))

    def keep(self, checkpoint: Checkpoint, token: str) -> None:
        self._statements.insert(
            AUDIT_CHECKPOINTS,
            {
                "position": checkpoint.position,
                "is_cut": checkpoint.is_cut,
                "made_at": checkpoint.at,
                "token": token,
            },
        )

    def checkpoints(self) -> Sequence[str]:
        order = (AUDIT_CHECKPOINTS.c.position, AUDIT_CHECKPOINTS.c.is_cut)
        return [row.token for row in self._statements.all(select(AUDIT_CHECKPOINTS.c.token).order_by(*order))]

    def claim_cursor(self, name: str, now: datetime, lease_until: datetime) -> int | None:
        row = self._statements.one(select(AUDIT_CURSORS).where(AUDIT_CURSORS.c.name == name))
        if row is None:
            self._statements.insert(AUDIT_CURSORS, {"name": name, "position": 0, "lease_until": lease_until})
            return 0
        free = or_(AUDIT_CURSORS.c.lease_until.is_(None), AUDIT_CURSORS.c.lease_until < now)
        claimed = update(AUDIT_CURSORS).where(AUDIT_CURSORS.c.name == name, free).values(lease_until=lease_until)
        taken = self._statements.one(claimed.returning(AUDIT_CURSORS.c.position))
        return int(taken.position) if taken else None

    def move_cursor(self, name: str, position: int, lease_until: datetime) -> None:
        held = and_(AUDIT_CURSORS.c.name == name, AUDIT_CURSORS.c.lease_until == lease_until)
        self._statements.must_change_one(update(AUDIT_CURSORS).where(held).values(position=position, lease_until=None))

    def links(self, after: int = 0) -> Iterator[tuple[Link, str | None]]:
        position = after
        while True:
            query = (
                select(AUDIT_LINKS, AUDIT_EVENTS.c.body, AUDIT_EVENTS.c.tag, AUDIT_EVENTS.c.report_id)
                .join_from(AUDIT_LINKS, AUDIT_EVENTS, AUDIT_EVENTS.c.id == AUDIT_LINKS.c.event_id, isouter=True)
                .where(AUDIT_LINKS.c.position > position)
                .order_by(AUDIT_LINKS.c.position)
                .limit(_BATCH)
            )
            rows = self._statements.all(query)
            if not rows:
                return
            for row in rows:
                yield Link(row.position, row.event_id, row.previous, row.hash), _found(row)
            position = rows[-1].position

    def unsealed(self) -> Iterator[AuditEvent]:
        seq = 0
        while True:
            query = select(AUDIT_EVENTS.c.seq, AUDIT_EVENTS.c.body).where(_unlinked(), AUDIT_EVENTS.c.seq > seq)
            rows = self._statements.all(query.order_by(AUDIT_EVENTS.c.seq).limit(_BATCH))
            if not rows:
                return
            for row in rows:
                yield AuditEvent.from_canonical(row.body)
            seq = rows[-1].seq


def _values(event: AuditEvent) -> dict[str, Any]:
    return {"id": event.id, "tag": event.tag.value, "report_id": event.report_id, "body": event.canonical()}


def _stands(standing: Standing) -> dict[str, Any]:
    return {
        "read_id": standing.report_id,
        "version": standing.version,
        "order_version": standing.order_version,
        "patient_id": standing.patient_id,
        "patient_version": standing.patient_version,
    }


_RECORD_ONE_WHILE: Final = insert(AUDIT_EVENTS).from_select(
    ["id", "tag", "report_id", "body"],
    select(*(bindparam(name, type_=AUDIT_EVENTS.c[name].type) for name in ("id", "tag", "report_id", "body"))).where(
        exists().where(
            REPORTS.c.id == bindparam("read_id"),
            REPORTS.c.version == bindparam("version"),
            ORDERS.c.id == REPORTS.c.order_id,
            ORDERS.c.version == bindparam("order_version"),
            PATIENTS.c.id == ORDERS.c.patient_id,
            PATIENTS.c.id == bindparam("patient_id"),
            PATIENTS.c.version == bindparam("patient_version"),
        )
    ),
)

# The same for several at once, which only PostgreSQL can be told in one statement.
_GIVEN: Final = rows_of_json(
    [
        *((name, "text") for name in ("id", "tag", "report_id", "body", "read_id", "patient_id")),
        *((name, "int") for name in ("version", "order_version", "patient_version")),
    ]
)
_RECORD_ALL_WHILE: Final = f"""
    INSERT INTO audit_events (id, tag, report_id, body)
    SELECT given.id, given.tag, given.report_id, given.body
    FROM {_GIVEN}
    JOIN reports ON reports.id = given.read_id AND reports.version = given.version
    JOIN orders ON orders.id = reports.order_id AND orders.version = given.order_version
    JOIN patients ON patients.id = orders.patient_id
        AND patients.id = given.patient_id AND patients.version = given.patient_version
    ORDER BY given.place
    RETURNING id
"""  # noqa: S608 (no word of it comes from outside)


def _unlinked() -> Any:
    return ~exists().where(AUDIT_LINKS.c.event_id == AUDIT_EVENTS.c.id)


def _found(row: Row[Any]) -> str | None:
    """The event's canonical JSON; an empty text, which fits no hash, when the columns that find it were changed."""
    if row.body is None:
        return None
    try:
        body = json.loads(row.body)
        agrees = (body["id"], body["tag"], body["report_id"]) == (row.event_id, row.tag, row.report_id)
    except (ValueError, KeyError, TypeError):
        agrees = False
    return str(row.body) if agrees else ""
