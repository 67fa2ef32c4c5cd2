"""Who wants to be told of reports: subscribing, the handshake, the numbers of events, and the end.

Only the owner (or an administrator) sees or ends a subscription. Events are numbered when they are first sent, so that
a busy subscriber never holds up the transaction of a clinician.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from inlay_core.application.ports import Destination, OutboxItem, UnitOfWork
from inlay_core.application.publishing import control_id_of
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.errors import NotFound
from inlay_core.domain.identity import Actor, Permission, Role, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.subscription import Subscription, SubscriptionState


@retried
def subscribe(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    endpoint: str,
    *,
    statuses: Sequence[Status] | None = None,
    ends_at: datetime | None = None,
) -> Subscription:
    """A new subscription; the relay shakes hands with the endpoint before anything is told. Raises Forbidden."""
    require(actor, Permission.SUBSCRIBE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        wanted = None if statuses is None else tuple(statuses)
        new = Subscription(new_id(), actor.id, endpoint, act.now, act.now, statuses=wanted, ends_at=ends_at)
        uow.subscriptions.add(new)
        act.record(Tag.SUBSCRIBER_SUBSCRIPTION_CREATED, (Kind.SUBSCRIPTION, new.id))
        item_id, payload = new_id(), {"handshake": True}
        item = OutboxItem(item_id, Destination.SUBSCRIPTION, new.id, payload, act.now, act.now, control_id_of(item_id))
        uow.outbox.add(replace(item, traceparent=act.trace))
        uow.commit()
        return new


def read_subscription(uow: UnitOfWork, actor: Actor, subscription_id: str) -> Subscription:
    """A subscription of the actor's; those of others are not known to them. Raises NotFound, Forbidden."""
    require(actor, Permission.SUBSCRIBE)
    with uow:
        return _owned(uow, actor, subscription_id)


@retried
def unsubscribe(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, subscription_id: str) -> Subscription:
    """The end of a subscription: what is still to be told is dropped. Raises NotFound, Forbidden."""
    require(actor, Permission.SUBSCRIBE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        found = _owned(uow, actor, subscription_id)
        if found.state is SubscriptionState.OFF:
            return found
        ended = found.to(SubscriptionState.OFF, act.now)
        uow.subscriptions.save(ended)
        act.record(Tag.SUBSCRIBER_SUBSCRIPTION_ENDED, (Kind.SUBSCRIPTION, ended.id))
        uow.commit()
        return ended


@retried
def number_event(uow: UnitOfWork, actor: Actor, item: OutboxItem) -> tuple[Subscription | None, OutboxItem]:
    """The subscription of an item and the item with its number: the next one at the first attempt, then the same."""
    require(actor, Permission.DELIVER)
    with uow:
        found = uow.subscriptions.get(item.key)
        if found is None or "event" in item.payload or "handshake" in item.payload:
            return found, item
        number = uow.subscriptions.count_event(found.id)
        numbered = replace(item, payload={**item.payload, "event": number})
        uow.outbox.save(numbered)
        uow.commit()
        return replace(found, events=number), numbered


@retried
def settle(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, subscription_id: str, *, reason: str | None
) -> None:
    """The endpoint answered (no reason), or will not: the state says so, if that is news."""
    require(actor, Permission.DELIVER)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        found = uow.subscriptions.get(subscription_id)
        state = SubscriptionState.ACTIVE if reason is None else SubscriptionState.ERROR
        if found is None or found.state in (state, SubscriptionState.OFF):
            return
        uow.subscriptions.save(found.to(state, act.now, reason))
        tag = Tag.RELAY_SUBSCRIPTION_ACTIVATED if reason is None else Tag.RELAY_SUBSCRIPTION_FAILED
        act.record(tag, (Kind.SUBSCRIPTION, found.id), detail={"code": reason})
        uow.commit()


def _owned(uow: UnitOfWork, actor: Actor, subscription_id: str) -> Subscription:
    found = uow.subscriptions.get(subscription_id)
    if found is None or (found.owner != actor.id and Role.ADMIN not in actor.roles):
        raise NotFound("unknown-subscription", "No such subscription.", "subscription.id")
    return found
