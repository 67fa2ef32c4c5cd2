"""Letting go of what is older than the site keeps it, in bounded transactions; a dry run only counts.

What belongs to a report that nobody has answered for is never touched. Of the audit trail only the beginning goes, and
a signed cut stays in its place, from which the rest verifies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from inlay_core.application.ports import Aged, Notary, Old, UnitOfWork
from inlay_core.application.transaction import Act
from inlay_core.domain.audit import AuditEvent, Checkpoint, Detail, Kind, Link, Tag, start_of
from inlay_core.domain.errors import Invalid
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId

# Rows per transaction: on an embedded database the listener waits for as long as one takes, so it is milliseconds.
BATCH = 200

_TAGS = {
    Aged.MESSAGES: (Tag.ADMIN_MESSAGE_PURGED, Kind.MESSAGE),
    Aged.JOBS: (Tag.ADMIN_JOB_PURGED, Kind.JOB),
    Aged.PROGRESS: (Tag.ADMIN_PROGRESS_PURGED, Kind.PROGRESS),
    Aged.OUTBOX: (Tag.ADMIN_DELIVERY_PURGED, Kind.DELIVERY),
}


@dataclass(frozen=True, slots=True)
class Purged:
    """What went, or would go: how many, from when to when, and how many stayed for an open report."""

    kind: str
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    spared: int = 0

    def with_batch(self, gone: list[Old], spared: int) -> Purged:
        """This and a batch more."""
        if not gone:
            return replace(self, spared=self.spared + spared)
        return Purged(self.kind, self.count + len(gone), self.oldest or gone[0].at, gone[-1].at, self.spared + spared)


def purge_rows(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, kind: Aged, *, days: int, dry_run: bool
) -> Purged:
    """Let go of rows that are older than `days`. Each batch is a transaction with its audit event."""
    require(actor, Permission.KEEP_RECORDS)
    found = Purged(str(kind))
    before = clock() - timedelta(days=days)
    after: tuple[datetime, str] | None = None
    while True:
        with uow:
            rows = uow.retention.old(kind, before, after, BATCH)
            if not rows:
                return found
            opened = uow.retention.open_orders(order_id for row in rows for order_id in row.order_ids)
            gone = [row for row in rows if not opened.intersection(row.order_ids)]
            found = found.with_batch(gone, len(rows) - len(gone))
            if gone and not dry_run:
                uow.retention.remove(kind, [row.id for row in gone])
                _record(Act(uow, clock(), new_id, actor), *_TAGS[kind], len(gone), gone[-1].at)
                uow.commit()
        after = rows[-1].at, rows[-1].id


def record_purged_images(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, count: int, days: int) -> None:
    """Record that received images are about to go."""
    require(actor, Permission.KEEP_RECORDS)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        _record(act, Tag.ADMIN_IMAGE_PURGED, Kind.IMAGE, count, clock() - timedelta(days=days))
        uow.commit()


def open_studies(uow: UnitOfWork) -> list[tuple[str | None, str | None]]:
    """(StudyInstanceUID, accession number) of each order whose report nobody has answered for: their images stay."""
    with uow:
        return list(uow.retention.open_studies())


def purge_trail(
    uow: UnitOfWork,
    reader: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    notary: Notary,
    *,
    days: int,
    dry_run: bool,
) -> Purged:
    """Let go of the beginning of the chain that is older than `days`, behind a signed cut.

    It ends before the first event that an open report or a receiver of the trail still needs. Interrupted, the next
    run goes on: what lies before a signed cut is no part of the chain any more. Raises Invalid for a chain that does
    not hold: a cut would hide where it breaks. The long walk is the reader's, which keeps no writer waiting.
    """
    require(actor, Permission.KEEP_RECORDS)
    found = Purged("audit")
    with reader:
        trusted = [notary.read(token) for token in reader.audit.checkpoints()]
        cut = start_of(trusted)
        done = cut.position if cut else 0
        last = _last_older(reader, clock() - timedelta(days=days), done)
        if last is not None:
            if not reader.audit.verify(trusted).holds:
                raise _broken()
            link, newest = last
            _, oldest = next(_moments(reader, done))
            found = Purged("audit", link.position - done, oldest, newest)
            cut = Checkpoint(link.position, link.hash, clock(), is_cut=True)
    if dry_run or cut is None:
        return found
    if found.newest is not None:
        with uow:
            uow.audit.keep(cut, notary.sign(cut))
            act = Act(uow, clock(), new_id, actor)
            _record(act, Tag.ADMIN_AUDIT_PURGED, Kind.AUDIT, found.count, found.newest)
            uow.commit()
    _remove_links(uow, cut.position)
    return found


def _remove_links(uow: UnitOfWork, up_to: int) -> None:
    while True:
        with uow:
            removed = uow.retention.remove_links(up_to, BATCH)
            uow.commit()
        if removed < BATCH:
            return


def _last_older(uow: UnitOfWork, before: datetime, done: int) -> tuple[Link, datetime] | None:
    """The last link that may go. Events lie in the order of their time but for the seconds of a transaction."""
    head, needed = uow.audit.head(), uow.retention.trail_needed_from()
    if head is None:
        return None
    # The head stays: the sealer goes on from it.
    low, high = done + 1, min(head.position, needed or head.position) - 1
    found: tuple[Link, datetime] | None = None
    while low <= high:
        middle = (low + high) // 2
        link, moment = next(_moments(uow, middle - 1))
        if moment < before:
            found, low = (link, moment), middle + 1
        else:
            high = middle - 1
    return found


def _moments(uow: UnitOfWork, after: int) -> Iterator[tuple[Link, datetime]]:
    """Links after a position, each with the moment of its event. Raises Invalid where one is gone or unreadable."""
    for link, body in uow.audit.links(after):
        try:
            moment = AuditEvent.from_canonical(body or "").at
        except (ValueError, KeyError, TypeError):
            raise _broken() from None
        yield link, moment


def _broken() -> Invalid:
    return Invalid("trail-broken", "The audit trail does not hold; nothing is purged.", "audit")


def _record(act: Act, tag: Tag, kind: Kind, count: int, newest: datetime) -> None:
    detail: dict[str, Detail] = {"count": count, "until": newest.date().isoformat()}
    act.record(tag, (kind, "old"), detail=detail)
