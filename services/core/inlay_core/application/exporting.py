"""The chained trail for receivers outside: batches in order, each until somebody has said that it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from inlay_core.application.ports import UnitOfWork
from inlay_core.domain.audit import AuditEvent
from inlay_core.domain.errors import Race
from inlay_core.domain.ids import Clock


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events of the chain for one receiver, with their positions; held until the lease is over."""

    receiver: str
    after: int
    until: int
    events: Sequence[tuple[int, AuditEvent]]
    lease_until: datetime


def claim_batch(uow: UnitOfWork, clock: Clock, receiver: str, *, limit: int, lease_seconds: float) -> Batch | None:
    """The events that the receiver has not got yet; None where there are none or another sender is at it.

    An event that was tampered with beyond reading is passed over: verification names it, and waiting for it would
    keep the receiver from all that come after it.
    """
    now = clock()
    lease_until = now + timedelta(seconds=lease_seconds)
    with uow:
        try:
            after = uow.audit.claim_cursor(receiver, now, lease_until)
            if after is None:
                return None
            links = list(islice(uow.audit.links(after), limit))
            if not links:
                return None
            uow.commit()
        except Race:
            return None
    events = [(link.position, event) for link, body in links if (event := _readable(body)) is not None]
    return Batch(receiver, after, links[-1][0].position, events, lease_until)


def batch_taken(uow: UnitOfWork, batch: Batch) -> None:
    """The receiver has them. Should the lease have run out, another sender sends them once more."""
    _release(uow, batch, batch.until)


def batch_refused(uow: UnitOfWork, batch: Batch) -> None:
    """The receiver has not said that it has them: they are due again."""
    _release(uow, batch, batch.after)


def _release(uow: UnitOfWork, batch: Batch, position: int) -> None:
    with uow:
        try:
            uow.audit.move_cursor(batch.receiver, position, batch.lease_until)
            uow.commit()
        except Race:
            return


def _readable(body: str | None) -> AuditEvent | None:
    try:
        return AuditEvent.from_canonical(body) if body else None
    except (ValueError, KeyError, TypeError):
        return None
