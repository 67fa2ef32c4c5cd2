"""From the outbox outward: wake-ups to the broker, reports as ORU^R01 to the configured targets.

A delivery is tried again under the same control id until somebody has said that it was taken; items of one report keep
their order. Each function takes one round of due items and says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inlay_core.application.ports import DEFAULT_SITE, Destination, NewUnitOfWork, OutboxItem, Site, Wakeup
from inlay_core.application.publishing import claim_deliveries, delivered, remember_message, undelivered
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

# Wake-ups are told together; a few dozen are more than any number of workers takes at a time.
_WAKEUPS = 50


@dataclass(frozen=True, slots=True)
class Books:
    """What every delivery and every sweep needs to look things up and to write down what became of them."""

    new_uow: NewUnitOfWork
    clock: Clock
    new_id: NewId
    site: Site = DEFAULT_SITE
    actor: Actor = system("relay")  # noqa: RUF009 (immutable)

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
        return self.code == "delivered"


def deliver_wakeups(books: Books, wakeup: Wakeup) -> Sequence[Sent]:
    """Tell the broker which jobs are queued."""
    items = claim_deliveries(books.new_uow(), books.clock, Destination.CELERY, limit=_WAKEUPS)
    if not items:
        return ()
    try:
        wakeup.wake([str(item.payload["job_id"]) for item in items])
    except DomainError as error:
        for item in items:
            books.failed(item, error.code)
        return [Sent(item, error.code) for item in items]
    for item in items:
        books.done(item)
    return [Sent(item, "delivered") for item in items]


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
    return [_send(books, oru, item) for item in items]


def _send(books: Books, oru: Oru, item: OutboxItem) -> Sent:
    payload = item.message or _built(books, oru, item)
    if payload is None:
        books.failed(item, "report-missing", permanent=True)
        return Sent(item, "report-missing")
    return send_item(books, oru.client, item, payload)


def send_item(books: Books, client: MllpClient, item: OutboxItem, payload: bytes) -> Sent:
    """Send a message of the outbox and note what its receiver answered, or that it did not."""
    try:
        answer = client.send(payload)
    except NoAnswer as error:
        books.failed(item, error.code)
        return Sent(item, error.code)
    if answer.positive:
        books.done(item)
        return Sent(item, "delivered")
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
