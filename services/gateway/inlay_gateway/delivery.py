"""From the outbox outward: wake-ups to the broker, reports as ORU^R01 to the configured targets.

A delivery is tried again under the same control id until somebody has said that it was taken; items of one report keep
their order. Each function takes one round of due items and says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from inlay_core.application.ports import DEFAULT_SITE, Destination, NewUnitOfWork, OutboxItem, Site, Wakeup
from inlay_core.application.publishing import claim_deliveries, delivered, remember_message, undelivered
from inlay_core.application.tracing import NO_TRACER, Tracer
from inlay_core.domain.errors import DomainError
from inlay_core.domain.identity import Actor, system
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.labels import banner
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_core.targets import ResultTarget
from inlay_hl7.ack import Acknowledgement
from inlay_hl7.building import Envelope
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_hl7.mapping.reports import result_of
from inlay_hl7.results import ResultStatus, build_result

DELIVERED: Final = "delivered"
"""The code of an attempt that went well."""

# Wake-ups are told together; a few dozen are more than any number of workers takes at a time.
_WAKEUPS = 50


Attempted = Callable[[str, str, float], None]


def unheard(_destination: str, _code: str, _seconds: float) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Books:
    """What every delivery and every sweep needs to look things up and to write down what became of them."""

    new_uow: NewUnitOfWork
    clock: Clock
    new_id: NewId
    site: Site = DEFAULT_SITE
    actor: Actor = system("relay")  # noqa: RUF009 (immutable)
    tracer: Tracer = NO_TRACER
    # Hears of every attempt: destination, code, and seconds since the item was written.
    attempted: Attempted = unheard

    def done(self, item: OutboxItem) -> None:
        """The destination has it."""
        delivered(self.new_uow(), self.clock, self.new_id, self.actor, item.id)

    def failed(self, item: OutboxItem, code: str, *, permanent: bool = False) -> None:
        """The destination did not take it."""
        undelivered(
            self.new_uow(),
            self.clock,
            self.new_id,
            self.actor,
            item.id,
            code=code,
            permanent=permanent,
            site=self.site,
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one item, for the log: `code` is `delivered`, or why it was not."""

    item: OutboxItem
    code: str

    @property
    def ok(self) -> bool:
        """Whether the destination has it."""
        return self.code == DELIVERED


def sent_each(books: Books, items: Iterable[OutboxItem], send: Callable[[OutboxItem], Sent]) -> Sequence[Sent]:
    """Send items one after the other; each attempt is a span of the trace that its item belongs to."""
    return [_traced(books, item, send) for item in items]


def _traced(books: Books, item: OutboxItem, send: Callable[[OutboxItem], Sent]) -> Sent:
    tracer, parent = books.tracer, item.traceparent
    if item.attempts == 1:
        tracer.past("outbox wait", item.created_at, books.clock(), parent=parent, destination=item.destination)
    with tracer.span(
        "outbox send", kind="producer", parent=parent, destination=item.destination, attempts=item.attempts
    ) as span:
        sent = send(item)
        span.set(item_id=item.id, code=sent.code)
        if not sent.ok:
            span.fail(sent.code)
    books.attempted(item.destination, sent.code, (books.clock() - item.created_at).total_seconds())
    return sent


def deliver_wakeups(books: Books, wakeup: Wakeup) -> Sequence[Sent]:
    """Tell the broker which jobs are queued."""
    items = claim_deliveries(books.new_uow(), books.clock, Destination.CELERY, limit=_WAKEUPS)
    if not items:
        return ()
    code: str = DELIVERED
    try:
        wakeup.wake([str(item.payload["job_id"]) for item in items])
    except DomainError as error:
        code = error.code

    def told(item: OutboxItem) -> Sent:
        if code == DELIVERED:
            books.done(item)
        else:
            books.failed(item, code)
        return Sent(item, code)

    return sent_each(books, items, told)


@dataclass(frozen=True, slots=True)
class Oru:
    """One target of results, the client that reaches it, and as whom we send. `printed` makes the PDF of a version."""

    target: ResultTarget
    client: MllpClient
    application: str
    facility: str
    printed: Callable[[Report, Order, str], bytes | None] | None = None


def deliver_result(books: Books, oru: Oru) -> Sequence[Sent]:
    """Send the next due report version; one at a time, because each may wait for its acknowledgement."""
    # The lease outlives connecting and waiting, so that nobody else sends the same item meanwhile.
    lease = 3 * oru.target.timeout_seconds + 30
    items = claim_deliveries(books.new_uow(), books.clock, oru.target.destination, limit=1, lease_seconds=lease)
    return sent_each(books, items, lambda item: _send(books, oru, item))


def _send(books: Books, oru: Oru, item: OutboxItem) -> Sent:
    payload = item.message
    if payload is None:
        with books.tracer.span("hl7 build"):
            payload = _built(books, oru, item)
    if payload is None:
        books.failed(item, "report-missing", permanent=True)
        return Sent(item, "report-missing")
    return send_item(books, oru.client, item, payload)


def send_item(books: Books, client: MllpClient, item: OutboxItem, payload: bytes) -> Sent:
    """Send a message of the outbox and note what its receiver answered, or that it did not."""
    try:
        with books.tracer.span("hl7 exchange", kind="client", bytes=len(payload)) as span:
            answer = client.send(payload)
            # A code that is none of the standard's could be anything.
            span.set(ack=answer.code if answer.positive else refusal_of(answer))
    except NoAnswer as error:
        books.failed(item, error.code)
        return Sent(item, error.code)
    if answer.positive:
        books.done(item)
        return Sent(item, DELIVERED)
    code = refusal_of(answer)
    books.failed(item, code, permanent=answer.lasting)
    return Sent(item, code)


def refusal_of(answer: Acknowledgement) -> str:
    """MSA-1 and the condition. A code that is none of the standard's could be anything, so it is not repeated."""
    code = answer.code.lower() if answer.code in ("AE", "AR", "CE", "CR") else "unknown-code"
    return f"{code}-{answer.condition}" if answer.condition is not None else code


def _built(books: Books, oru: Oru, item: OutboxItem) -> bytes | None:
    """The message as the first attempt sends it.

    It is kept before it is sent: every repetition is the same bytes, also when the patient's name has changed since.
    """
    with books.new_uow() as uow:
        report = uow.reports.version(str(item.payload["report_id"]), int(item.payload["version"]))
        order = uow.orders.get(report.order_id) if report else None
        jobs = uow.jobs.of_report(report.id) if report else ()
    if report is None or order is None:
        return None
    target, notice = oru.target, banner(report, jobs)
    envelope = Envelope(
        item.control_id,
        item.created_at,
        oru.application,
        oru.facility,
        target.receiving_application,
        target.receiving_facility,
        target.processing_id,
        target.version,
    )
    result = result_of(report, order, envelope, notice)
    if result is None:
        return None
    if oru.printed is not None and result.sections and result.status is not ResultStatus.WITHDRAWN:
        result = replace(result, pdf=oru.printed(report, order, notice) or b"")
    return remember_message(books.new_uow(), item.id, build_result(result))
