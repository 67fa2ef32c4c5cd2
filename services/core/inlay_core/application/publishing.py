"""What other systems are told: outbox items written with their cause, delivered after the commit, in order per key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inlay_core.application.ports import (
    ACK_PREFIX,
    DEFAULT_SITE,
    Delivery,
    Destination,
    Later,
    OutboxItem,
    Site,
    UnitOfWork,
    Verdict,
)
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Detail, Kind, Tag
from inlay_core.domain.errors import Conflict, NotFound
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.report import Report

# Opening, edits and infills of a draft are between the clinician and Inlay; what others may rely on is published.
PUBLISHED_EVENTS: Final = frozenset(
    {
        Event.DRAFT,
        Event.SIGN,
        Event.AMEND,
        Event.CORRECT,
        Event.APPEND,
        Event.CANCEL,
        Event.RETRACT,
    }
)
# The first repetition comes soon, because most failures are a restart of the peer; later ones once per hour.
_FIRST_PAUSE: Final = timedelta(seconds=2)
_LONGEST_PAUSE: Final = timedelta(hours=1)
# A wake-up that waits blocks later ones for the same job, so it must not sleep on when the broker is back.
_LONGEST_WAKE: Final = timedelta(seconds=15)


def wake_workers(act: Act, job: Job, due: datetime | None = None) -> None:
    """Have the relay tell the broker that a job is queued."""
    item_id, payload = act.new_id(), {"job_id": job.id}
    act.uow.outbox.add(
        OutboxItem(
            item_id,
            Destination.CELERY,
            job.id,
            payload,
            act.now,
            due or act.now,
            control_id_of(item_id),
            traceparent=job.traceparent,
        )
    )


def answer_later(act: Act, later: Later, verdict: Verdict) -> None:
    """Have the relay send the second answer to a message; it is kept as it is, and repetitions are the same bytes."""
    item_id = act.new_id()
    control_id = control_id_of(item_id)
    answer = later.acknowledge(verdict, control_id)
    if answer is None:
        return
    key, payload = verdict.message_id, {"message_id": verdict.message_id}
    item = OutboxItem(item_id, later.destination, key, payload, act.now, act.now, control_id, message=answer)
    act.uow.outbox.add(replace(item, traceparent=act.trace))


def publish_report(act: Act, report: Report) -> None:
    """Have the relay send this version to every destination and tell subscribers, if others rely on its event."""
    if report.event not in PUBLISHED_EVENTS:
        return
    order = act.uow.orders.get(report.order_id) if act.site.results else None
    filtered = [each.destination for each in act.site.results if order is not None and each.takes(report, order)]
    told = [(destination, report.id) for destination in (*act.site.destinations, *filtered)]
    subscribers = (each for each in act.uow.subscriptions.active() if each.wants(report.status, act.now))
    told += [(Destination.SUBSCRIPTION, each.id) for each in subscribers]
    for destination, key in told:
        if destination == Destination.DICOM and not (report.is_signed or report.status is Status.ENTERED_IN_ERROR):
            continue  # An archive keeps documents for ever: it gets what somebody answers for, and hears of its end.
        item_id = act.new_id()
        payload = {"report_id": report.id, "version": report.version, "status": str(report.status)}
        item = OutboxItem(item_id, destination, key, payload, act.now, act.now, control_id_of(item_id))
        act.uow.outbox.add(replace(item, traceparent=act.trace))


@retried
def claim_deliveries(
    uow: UnitOfWork, clock: Clock, destination: str, *, limit: int = 50, lease_seconds: float = 60.0
) -> Sequence[OutboxItem]:
    """Lease the due items of a destination, at most the oldest of each key; nobody else gets them meanwhile.

    That jobs are announced is noted here, before they are: a worker that looks for them passes over a job that is
    locked for such a note, finds nothing, and waits for the next wake-up.
    """
    with uow:
        now = clock()
        items = uow.outbox.claim(destination, now, now + timedelta(seconds=lease_seconds), limit)
        if destination == Destination.CELERY:
            uow.jobs.woken([item.key for item in items], now)
        uow.commit()
        return items


@retried
def delivered(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, item_id: str) -> None:
    """The destination has it. Sending a report out of the house is recorded in its trail."""
    require(actor, Permission.DELIVER)
    with uow:
        item, now = _load(uow, item_id), clock()
        if item.state is Delivery.DELIVERED:
            return
        # The bytes that were sent have done their duty; the report and the trail say what they said.
        done = replace(item, delivered_at=now, lease_until=None, last_error=None, message=None)
        uow.outbox.save(replace(done, state=Delivery.DELIVERED))
        if item.destination != Destination.CELERY:
            _record_delivery(Act(uow, now, new_id, actor), item, Tag.RELAY_REPORT_SENT)
        uow.commit()


@retried
def undelivered(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    item_id: str,
    *,
    code: str,
    permanent: bool = False,
    site: Site = DEFAULT_SITE,
) -> OutboxItem:
    """The destination did not take it: try again later, or park it with its code when that cannot help."""
    require(actor, Permission.DELIVER)
    with uow:
        item, now = _load(uow, item_id), clock()
        dead = permanent or item.attempts >= site.max_deliveries
        longest = _LONGEST_WAKE if item.destination == Destination.CELERY else _LONGEST_PAUSE
        after = replace(
            item,
            state=Delivery.DEAD if dead else Delivery.PENDING,
            next_attempt_at=now + pause(item.attempts, longest),
            lease_until=None,
            last_error=code,
        )
        uow.outbox.save(after)
        if dead and item.destination != Destination.CELERY:
            _record_delivery(Act(uow, now, new_id, actor), after, Tag.RELAY_REPORT_UNDELIVERABLE)
        uow.commit()
        return after


def remember_message(uow: UnitOfWork, item_id: str, message: bytes) -> bytes:
    """Keep what the first attempt sends and return it; a later attempt gets what was kept."""
    with uow:
        item = _load(uow, item_id)
        if item.message is None:
            uow.outbox.save(replace(item, message=message))
            uow.commit()
            return message
        return item.message


def parked_deliveries(uow: UnitOfWork, actor: Actor, *, limit: int = 200, offset: int = 0) -> Sequence[OutboxItem]:
    """What could not be delivered and is not tried any more, the oldest first."""
    require(actor, Permission.MANAGE_DELIVERIES)
    with uow:
        return uow.outbox.in_state(Delivery.DEAD, limit, offset)


@retried
def resend(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, item_id: str) -> OutboxItem:
    """Try a parked delivery again, under its control id.

    The message is built anew: what made the receiver refuse it may have been mended. An acknowledgement stays what it
    is. Raises Conflict for an item that
    is not parked, and where a later version of the report has been delivered, which the older one would overwrite.
    """
    require(actor, Permission.MANAGE_DELIVERIES)
    with uow:
        item, now = _load(uow, item_id), clock()
        if item.state is not Delivery.DEAD or item.destination == Destination.CELERY:
            raise Conflict("not-parked", "Only what was parked can be sent again.", "outbox.state")
        if any(later.state is Delivery.DELIVERED for later in uow.outbox.after(item)):
            raise Conflict("superseded", "A later version has been delivered already.", "outbox.key")
        message = item.message if item.destination.startswith(ACK_PREFIX) else None
        again = replace(
            item, state=Delivery.PENDING, attempts=0, next_attempt_at=now, lease_until=None, message=message
        )
        uow.outbox.save(again)
        _record_delivery(Act(uow, now, new_id, actor), again, Tag.ADMIN_REPORT_RESENT)
        uow.commit()
        return again


def pause(attempts: int, longest: timedelta = _LONGEST_PAUSE) -> timedelta:
    """How long to wait after that many attempts: doubling, up to `longest`."""
    doublings: int = min(max(attempts - 1, 0), 20)
    return min(_FIRST_PAUSE * (1 << doublings), longest)


def _record_delivery(act: Act, item: OutboxItem, tag: Tag) -> None:
    detail: dict[str, Detail] = {
        "destination": item.destination,
        "control_id": item.control_id,
        "attempts": item.attempts,
        "version": item.payload.get("version"),
        "code": item.last_error,
    }
    report_id = item.payload.get("report_id")
    if report_id is not None:  # A handshake is about no report.
        act.record(tag, (Kind.REPORT, str(report_id)), report_id=str(report_id), detail=detail)


def _load(uow: UnitOfWork, item_id: str) -> OutboxItem:
    item = uow.outbox.get(item_id)
    if item is None:
        raise NotFound("unknown-item", "No such outbox item.", "outbox.id")
    return item


def control_id_of(item_id: str) -> str:
    """A message control id (MSH-10) from the item's id: at most 20 characters, the limit of HL7 2.3.1."""
    return item_id.replace("-", "")[:20]
