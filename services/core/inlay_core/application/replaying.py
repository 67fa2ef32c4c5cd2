"""Stored messages once more through the mapping of today: what would be different, and, when asked for, doing it.

A dry run does everything in a transaction and leaves it without a commit, so it shows exactly what the real run does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from inlay_core.application.intake import apply_all
from inlay_core.application.ports import (
    Acknowledge,
    Command,
    Envelope,
    MessageOutcome,
    OrderCommand,
    Site,
    StoredMessage,
    UnitOfWork,
    Verdict,
)
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Detail, Kind, Tag
from inlay_core.domain.errors import DomainError, NotFound
from inlay_core.domain.identity import Actor, Permission, Role, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.order import Order

# What changes with every message says nothing about the mapping.
_UNTOLD = frozenset({"id", "version", "created_at", "updated_at", "message_time"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of an order before and after; `before` is None for an order that would be new."""

    order_id: str
    name: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a stored message would do today. `error` is why it would be refused; the outcome before is `message`'s."""

    message: StoredMessage
    error: DomainError | None
    differences: tuple[Difference, ...] = ()
    flags: tuple[str, ...] = ()
    done: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything would be different."""
        was_refused = self.message.outcome is MessageOutcome.REFUSED
        return bool(self.differences) or was_refused is not (self.error is not None)


def stored_messages(
    uow: UnitOfWork,
    actor: Actor,
    *,
    outcome: MessageOutcome | None = None,
    since: datetime | None = None,
    application: str | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> Sequence[StoredMessage]:
    """Stored messages in the order of their arrival, a batch at a time."""
    require(actor, Permission.REPLAY_MESSAGES)
    with uow:
        return uow.messages.received(outcome=outcome, since=since, application=application, after=after, limit=limit)


@retried
def replay_message(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    message_id: str,
    interpret: Callable[[Envelope], Sequence[Command]],
    *,
    acknowledge: Acknowledge | None = None,
    site: Site,
) -> Replayed:
    """Take a stored message once more; keep what comes of it only with `acknowledge`, which builds the new answer.

    The answer is stored in place of the old one: nobody is waiting for it now, and the same bytes get it from then on.
    """
    require(actor, Permission.REPLAY_MESSAGES)
    with uow:
        stored = uow.messages.get(message_id)
        if stored is None:
            raise NotFound("unknown-message", "No such message.", "message.id")
        # It is the sender's message still: what it may do is what the sender may do.
        sender = replace(actor, roles=actor.roles | {Role.RIS})
        act = Act(uow, clock(), new_id, sender, site)
        try:
            commands = interpret(stored.envelope)
            before = _orders(uow, commands)
            order_ids, flags = apply_all(act, commands)
        except DomainError as error:
            # Leaving without a commit forgets what the first commands of the message did.
            return Replayed(stored, error)
        found = [order for order in map(uow.orders.get, order_ids) if order is not None]
        differences = tuple(each for order in found for each in _differences(before.get(order.id), order))
        if acknowledge is None:
            return Replayed(stored, None, differences, flags)
        taken = replace(
            stored,
            outcome=MessageOutcome.ACCEPTED,
            ack=acknowledge(Verdict(stored.id, None, flags)),
            error_category=None,
            error_code=None,
            error_place=None,
            flags=(*dict.fromkeys((*stored.flags, *flags, "replayed")),),
            order_ids=order_ids,
        )
        uow.messages.replace(taken)
        detail: dict[str, Detail] = {"was": str(stored.outcome), "orders": len(order_ids)}
        act.record(Tag.ADMIN_MESSAGE_REPLAYED, (Kind.MESSAGE, stored.id), detail=detail)
        uow.commit()
        return Replayed(stored, None, differences, flags, done=True)


def _orders(uow: UnitOfWork, commands: Sequence[Command]) -> dict[str, Order]:
    """The orders that the commands could mean, as they are now."""
    found: dict[str, Order] = {}
    for command in commands:
        if not isinstance(command, OrderCommand):
            continue
        candidates = [
            uow.orders.by_placer(command.assigner, command.placer_number) if command.placer_number else None,
            uow.orders.by_filler(command.assigner, command.filler_number)
            if isinstance(command.filler_number, str)
            else None,
        ]
        if isinstance(command.accession_number, str):
            candidates += uow.orders.by_accession(command.accession_assigner, command.accession_number)
        found |= {order.id: order for order in candidates if order is not None}
    return found


def _differences(before: Order | None, after: Order) -> list[Difference]:
    if before is None:
        return [Difference(after.id, "order", None, after.accession_number or after.placer_number)]
    return [
        Difference(after.id, each.name, getattr(before, each.name), getattr(after, each.name))
        for each in fields(Order)
        if each.name not in _UNTOLD and _shown(getattr(before, each.name)) != _shown(getattr(after, each.name))
    ]


def _shown(value: object) -> object:
    """Records that are compared by what they say, not by when it was said."""
    return replace(value, version=0, updated_at=None, message_time=None) if hasattr(value, "merged_into") else value  # type: ignore[type-var]
