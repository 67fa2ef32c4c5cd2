"""How orders come in: message, order, report, job, audit and outbox in one transaction, and only then the answer.

The same message again gets the stored answer again; older messages never overwrite newer ones; refused messages are
kept with their refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Final

from inlay_core.application.patients import OUTDATED, merge_patients, patient_after, update_patient, value
from inlay_core.application.ports import (
    DEFAULT_SITE,
    NO_DATABASE,
    Acknowledge,
    Action,
    Arrival,
    Command,
    Envelope,
    Interpret,
    MessageOutcome,
    OrderCommand,
    OrderCondition,
    PatientMerge,
    PatientUpdate,
    Placed,
    PriorCommand,
    Received,
    Site,
    Sought,
    StoredMessage,
    UnitOfWork,
    Verdict,
)
from inlay_core.application.priors import store_prior
from inlay_core.application.publishing import answer_later, publish_report, wake_workers
from inlay_core.application.tracing import current
from inlay_core.application.transaction import Act, load_order, retried
from inlay_core.domain.audit import Detail, Kind, Outcome, Tag
from inlay_core.domain.errors import (
    Ambiguous,
    Category,
    Conflict,
    DomainError,
    Fault,
    Invalid,
    NotFound,
    Race,
    Unavailable,
)
from inlay_core.domain.identity import Actor, ActorKind, Permission, Role, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import OPEN_STATES, Job, JobKind, JobState, Reason
from inlay_core.domain.order import Order, OrderStatus, Priority, Procedure
from inlay_core.domain.patient import Patient
from inlay_core.domain.report import Report
from inlay_core.domain.text import refuse_unstorable

# These say that nothing could be stored now; the sender must hear that, and no refusal may be kept for them.
_NOT_KEPT: Final = frozenset({Category.UNAVAILABLE, Category.FAULT})
# The same bytes can only fail again in these ways; every other refusal depends on what else is on disk.
_LASTING: Final = frozenset({Category.INVALID})

# How an order ended -> its event, and why its report and jobs end with it.
_CLOSINGS: Final = {
    OrderStatus.CANCELLED: (Tag.INTAKE_ORDER_CANCELLED, Reason("order-cancelled", "The order was cancelled.")),
    OrderStatus.DISCONTINUED: (
        Tag.INTAKE_ORDER_DISCONTINUED,
        Reason("order-discontinued", "The order was discontinued."),
    ),
    OrderStatus.REPLACED: (Tag.INTAKE_ORDER_REPLACED, Reason("order-replaced", "Another order took its place.")),
}


def receive_messages(
    uow: UnitOfWork, clock: Clock, new_id: NewId, arrivals: Sequence[Arrival], *, site: Site = DEFAULT_SITE
) -> list[Received | DomainError]:
    """Store messages and do what they order; the bytes of the answers come back only after the commit.

    All of them are one transaction, because most of what a transaction costs is the wait for its commit. Where that
    cannot be, each has its own, in their order: a message that is refused or cannot be stored is no other's trouble.
    Unavailable or Fault, with nothing stored, stand for an answer where the sender must be told to send again.
    """
    if len(arrivals) > 1:
        try:
            return [*_receive(uow, clock, new_id, arrivals, site)]
        except Exception as error:  # noqa: BLE001 (which of them it was shows when each is taken alone)
            if isinstance(error, Unavailable) and error.code == NO_DATABASE:
                return [error] * len(arrivals)
    return [_alone(uow, clock, new_id, arrival, site) for arrival in arrivals]


def receive_message(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    envelope: Envelope,
    interpret: Interpret,
    *,
    acknowledge: Acknowledge,
    site: Site = DEFAULT_SITE,
) -> Received:
    """One message; raises Unavailable or Fault, with nothing stored, when the sender must be told to send again."""
    (received,) = receive_messages(uow, clock, new_id, [Arrival(envelope, interpret, acknowledge)], site=site)
    if isinstance(received, DomainError):
        raise received
    return received


@retried
def place_orders(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    commands: Sequence[OrderCommand],
    *,
    site: Site = DEFAULT_SITE,
) -> tuple[str, ...]:
    """Do what the commands order, without a message (intake by FHIR); return the ids of the orders."""
    with uow:
        order_ids, _ = apply_all(Act(uow, clock(), new_id, actor, site), commands)
        uow.commit()
        return order_ids


@retried
def place_order(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    command: OrderCommand,
    *,
    condition: OrderCondition | None = None,
    joins: bool = False,
    site: Site = DEFAULT_SITE,
) -> Placed:
    """Place one new order (create by FHIR), unless the condition finds one; then that one is the answer.

    Unique keys see to it that of identical requests at the same time one creates and the others find. `joins`: the
    command tells of a study, which may belong to an order that is known already, of the same patient.
    Raises Ambiguous where the condition finds several, Conflict for an order that exists or another patient's.
    """
    require(actor, Permission.PLACE_ORDERS)
    with uow:
        found = _meeting(uow, condition)
        if len(found) > 1:
            raise Ambiguous("several-matches", "More than one order fits the condition.", "If-None-Exist")
        if found:
            return Placed(found[0], created=False)
        act = Act(uow, clock(), new_id, actor, site)
        known = _find(uow, command)
        if joins and isinstance(command.study_instance_uid, str) and uow.orders.by_study(command.study_instance_uid):
            raise Conflict("study-exists", "The study is known already.", command.place)
        if known is not None:
            _check_joins(known, command, joins=joins)
            command = replace(command, patient=None)
        order_id, _ = _apply(act, command)
        assert order_id is not None
        placed = Placed(load_order(uow, order_id), created=True)
        uow.commit()
        return placed


def _meeting(uow: UnitOfWork, condition: OrderCondition | None) -> list[Order]:
    if condition is None:
        return []
    found = [order for pair in condition.identifiers for order in uow.orders.with_identifier(*pair)]
    if condition.study_instance_uid is not None:
        found += uow.orders.by_study(condition.study_instance_uid)
    return list({order.id: order for order in found}.values())


def _check_joins(known: Order, command: OrderCommand, *, joins: bool) -> None:
    """A study joins an order of its own patient that has none yet; anything else is somebody's mistake."""
    if not joins:
        raise Conflict("order-exists", "An order with this number exists.", command.place)
    named = command.patient
    if named is not None and (named.assigner, named.identifier) != (known.patient.assigner, known.patient.identifier):
        raise Conflict("patient-differs", "The order is for another patient.", command.place)
    if known.study_instance_uid is not None:
        raise Conflict("study-differs", "The order has another study.", command.place)


def sender(envelope: Envelope) -> Actor:
    """The identity of a peer: it is who its channel and its header say, and it may place orders."""
    name = f"{envelope.sending_application}|{envelope.sending_facility}"
    return Actor(f"hl7:{name}", name, frozenset({Role.RIS}), ActorKind.SYSTEM)


def _alone(uow: UnitOfWork, clock: Clock, new_id: NewId, arrival: Arrival, site: Site) -> Received | DomainError:
    try:
        return retried(_receive)(uow, clock, new_id, [arrival], site)[0]
    except Race:
        return Unavailable("busy", "Too many changes of the same records at once.")
    except DomainError as error:
        return error
    except Exception as error:  # noqa: BLE001 (a defect of ours must not look like a fault of the sender)
        return Fault("defect", type(error).__name__)


def _receive(
    uow: UnitOfWork, clock: Clock, new_id: NewId, arrivals: Sequence[Arrival], site: Site
) -> Sequence[Received]:
    """Take messages in one transaction. Raises DomainError where one of several is refused or none can be stored."""
    asked = [_asked(arrival) for arrival in arrivals]
    acts = [
        Act(uow, clock(), new_id, sender(arrival.envelope), site, arrival.traceparent or current())
        for arrival in arrivals
    ]
    try:
        return _store(uow, acts, arrivals, asked)
    except DomainError as refusal:
        if len(arrivals) > 1 or isinstance(refusal, Race) or refusal.category in _NOT_KEPT:
            raise
        refused = refusal
    return _store(uow, acts, arrivals, [refused])


def _asked(arrival: Arrival) -> Sequence[Command] | DomainError:
    """What the message asks for, or why it cannot be read."""
    try:
        return arrival.interpret()
    except DomainError as refusal:
        if refusal.category in _NOT_KEPT:
            raise
        return refusal


def _store(
    uow: UnitOfWork, acts: Sequence[Act], arrivals: Sequence[Arrival], asked: Sequence[Sequence[Command] | DomainError]
) -> Sequence[Received]:
    with uow:
        uow.foresee(_sought(arrivals, asked))
        received = [_take(*each) for each in zip(acts, arrivals, asked, strict=True)]
        if not all(each.repeated for each in received):
            uow.commit()
        return received


def _sought(arrivals: Sequence[Arrival], asked: Sequence[Sequence[Command] | DomainError]) -> Sought:
    commands = [each for one in asked if not isinstance(one, DomainError) for each in one]
    orders = [each for each in commands if isinstance(each, OrderCommand)]
    patients = [each.patient for each in orders if each.patient]
    accessions = [(each.accession_assigner, each.accession_number) for each in orders]
    return Sought(
        messages=[_message_key(arrival.envelope) for arrival in arrivals],
        placers=[(each.assigner, each.placer_number) for each in orders if each.placer_number],
        accessions=[(assigner, number) for assigner, number in accessions if isinstance(number, str)],
        patients=[(each.assigner, each.identifier) for each in patients],
    )


def _take(act: Act, arrival: Arrival, asked: Sequence[Command] | DomainError) -> Received:
    """Do what a message asks for, or note why it is refused, and keep it with its answer."""
    uow, envelope = act.uow, arrival.envelope
    known, flags = _stored(uow, envelope)
    if known is not None and _stands(known):
        return _repeated(known)
    error = asked if isinstance(asked, DomainError) else None
    order_ids, said = ((), ()) if isinstance(asked, DomainError) else apply_all(act, asked)
    flags += said
    message_id = known.id if known else act.new_id()
    message = StoredMessage(
        id=message_id,
        received_at=act.now,
        envelope=envelope,
        sha256=digest(envelope),
        outcome=MessageOutcome.REFUSED if error else MessageOutcome.ACCEPTED,
        ack=arrival.acknowledge(Verdict(message_id, error, flags)),
        error_category=error.category if error else None,
        error_code=error.code if error else None,
        error_place=error.place if error else None,
        flags=flags,
        order_ids=order_ids,
    )
    _keep(uow, message, known)
    if arrival.later is not None:
        answer_later(act, arrival.later, Verdict(message_id, error, flags))
    detail: dict[str, Detail] = {"type": envelope.message_type}
    if error is None:
        detail |= {"orders": len(order_ids), "flags": " ".join(flags)}
        act.record(Tag.INTAKE_MESSAGE_ACCEPTED, (Kind.MESSAGE, message_id), detail=detail)
    else:
        detail |= {"code": error.code, "place": error.place}
        refused = (Kind.MESSAGE, message_id)
        act.record(Tag.INTAKE_MESSAGE_REFUSED, refused, detail=detail, outcome=Outcome.REFUSED)
    return Received(message.ack, error is None, repeated=False, message_id=message_id, order_ids=order_ids)


def digest(envelope: Envelope) -> str:
    """Hex SHA-256 of the raw bytes: part of the idempotency key, because MSH-10 alone is not unique in the field."""
    return hashlib.sha256(envelope.raw).hexdigest()


def _message_key(envelope: Envelope) -> tuple[str, str, str]:
    return envelope.sending_application, envelope.sending_facility, envelope.control_id


def _stored(uow: UnitOfWork, envelope: Envelope) -> tuple[StoredMessage | None, tuple[str, ...]]:
    """The message as it is stored already; else the flag that its control id was used before for other bytes."""
    key = _message_key(envelope)
    digests, own = uow.messages.digests(*key), digest(envelope)
    if own in digests:
        return uow.messages.find(*key, own), ()
    return None, ("control-id-reused",) if digests and envelope.control_id else ()


def _stands(message: StoredMessage) -> bool:
    """Whether the stored answer is the answer for ever; a cancel that came before its order may be sent again."""
    return message.outcome is MessageOutcome.ACCEPTED or message.error_category in _LASTING


def _repeated(message: StoredMessage) -> Received:
    accepted = message.outcome is MessageOutcome.ACCEPTED
    return Received(message.ack, accepted, repeated=True, message_id=message.id, order_ids=message.order_ids)


def _keep(uow: UnitOfWork, message: StoredMessage, known: StoredMessage | None) -> None:
    if known is None:
        uow.messages.add(message)
    else:
        uow.messages.replace(message)


# ---------------------------------------------------------------------------------------------- orders


def apply_all(act: Act, commands: Sequence[Command]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Do what the commands ask for; return the ids of the orders and the flags of what changed nothing."""
    require(act.actor, Permission.PLACE_ORDERS)
    order_ids: dict[str, None] = {}
    flags: dict[str, None] = {}
    for command in commands:
        order_id, flag = _apply(act, command)
        if order_id is not None:
            order_ids[order_id] = None
        if flag is not None:
            flags[flag] = None
    return tuple(order_ids), tuple(flags)


def _apply(act: Act, command: Command) -> tuple[str | None, str | None]:
    _check_texts(command, command.place)
    match command:
        case OrderCommand():
            return _apply_order(act, command)
        case PatientUpdate():
            return None, update_patient(act, command)
        case PatientMerge():
            return None, merge_patients(act, command)
        case PriorCommand():
            return None, store_prior(act, command)


def _apply_order(act: Act, command: OrderCommand) -> tuple[str, str | None]:
    """Do one command; return the order's id and the flag of a message that is too old to change anything."""
    order = _find(act.uow, command)
    if order is None:
        if command.action is not Action.NEW:
            raise NotFound("unknown-order", "No such order is known.", command.place)
        return _create(act, command), None
    if order.is_older(command.message_time):
        act.record(Tag.INTAKE_ORDER_OUTDATED, order)
        return order.id, OUTDATED
    closing = _closing(command)
    if order.status.is_closed and closing is None:
        raise Conflict("order-closed", "The order is cancelled, discontinued or replaced.", command.place)
    if closing is None:
        _change(act, order, command)
    elif not order.status.is_closed:
        _close(act, order, command, closing)
    return order.id, None


def _closing(command: OrderCommand) -> OrderStatus | None:
    """The closed status that the command asks for, by its action or by its status."""
    by_action = {
        Action.CANCEL: OrderStatus.CANCELLED,
        Action.DISCONTINUE: OrderStatus.DISCONTINUED,
        Action.REPLACE: OrderStatus.REPLACED,
    }
    status = by_action.get(command.action, command.order_status)
    return status if status is not None and status.is_closed else None


def _find(uow: UnitOfWork, command: OrderCommand) -> Order | None:
    """The order that the command means: by placer number, else by accession, else by filler number."""
    if command.placer_number:
        order = uow.orders.by_placer(command.assigner, command.placer_number)
        if order is not None:
            return order
    if isinstance(command.accession_number, str) and command.accession_number:
        for order in uow.orders.by_accession(command.accession_assigner, command.accession_number):
            if command.placer_number and order.placer_number:
                raise Conflict("accession-taken", "The accession number belongs to another order.", command.place)
            return order
    if isinstance(command.filler_number, str) and command.filler_number and not command.placer_number:
        return uow.orders.by_filler(command.assigner, command.filler_number)
    return None


def _create(act: Act, command: OrderCommand) -> str:
    if not command.placer_number and not isinstance(command.accession_number, str):
        raise Invalid("order-number-missing", "An order needs a placer or an accession number.", command.place)
    if command.patient is None:
        raise Invalid("patient-missing", "An order needs its patient.", command.place)
    if _closing(command) is not None:
        raise Invalid("closed-new-order", "A new order cannot be closed already.", command.place)
    patient = patient_after(act, command.patient, command.message_time)
    blank = Order(
        act.new_id(), command.assigner, patient, accession_assigner=command.accession_assigner, created_at=act.now
    )
    order = replace(_merged(blank, command, patient), version=1, updated_at=act.now)
    _check_room(act, order.priority)
    report = Report.register(act.new_id(), order.id, act.actor, act.now)
    job = Job(act.new_id(), report.id, JobKind.DRAFT, report.version, order.priority, act.now, traceparent=act.trace)
    act.uow.orders.add(order)
    act.uow.reports.add(report)
    act.uow.jobs.add(job)
    act.record(Tag.INTAKE_ORDER_CREATED, order, report_id=report.id)
    act.record(Tag.INTAKE_REPORT_REGISTERED, report)
    act.record(Tag.INTAKE_JOB_QUEUED, job, detail={"kind": job.kind, "priority": job.priority})
    wake_workers(act, job)
    return order.id


def _check_room(act: Act, priority: Priority) -> None:
    if act.site.max_open_jobs <= 0:
        return
    counts = act.uow.jobs.count(OPEN_STATES)
    if sum(n for (_, of), n in counts.items() if of is priority) >= act.site.max_open_jobs:
        raise Unavailable("queue-full", "Too many drafts of this priority are waiting.")


def _change(act: Act, order: Order, command: OrderCommand) -> Order:
    patient = order.patient
    if command.patient is not None:
        patient = patient_after(act, command.patient, command.message_time)
    changed = replace(_merged(order, command, patient), version=order.version + 1, updated_at=act.now)
    report = act.uow.reports.by_order(order.id)
    act.uow.orders.save(changed)
    detail: dict[str, Detail] = {"status": changed.status, "patient_changed": patient.id != order.patient.id}
    act.record(
        Tag.INTAKE_ORDER_CHANGED,
        changed,
        report_id=report.id if report else None,
        detail=detail,
    )
    if report is not None and changed.priority is not order.priority:
        _reprioritise(act, report, changed.priority)
    return changed


def _reprioritise(act: Act, report: Report, priority: Priority) -> None:
    for job in act.uow.jobs.of_report(report.id):
        if job.state in (JobState.QUEUED, JobState.WAITING_IMAGES):
            act.uow.jobs.save(replace(job, priority=priority), fence=job.fence)
            act.record(Tag.INTAKE_JOB_QUEUED, job, detail={"priority": priority})


def _close(
    act: Act,
    order: Order,
    command: OrderCommand,
    status: OrderStatus,
) -> None:
    """Close the order, stop its open jobs and cancel its report unless somebody has signed it."""
    message_time = command.message_time or order.message_time
    closed = replace(order, status=status, message_time=message_time, version=order.version + 1, updated_at=act.now)
    report = act.uow.reports.by_order(order.id)
    act.uow.orders.save(closed)
    tag, reason = _CLOSINGS[status]
    signed = report is not None and report.is_signed
    report_id = report.id if report else None
    act.record(tag, closed, report_id=report_id, detail={"report_signed": signed})
    if report is None:
        return
    cancel_jobs(act, report.id, reason, Tag.INTAKE_JOB_CANCELLED)
    if not signed and report.status.is_unsigned:
        cancelled = report.cancel(reason, act.actor, act.now)
        act.uow.reports.save(cancelled)
        act.record(Tag.INTAKE_REPORT_CANCELLED, cancelled)
        publish_report(act, cancelled)


def cancel_jobs(act: Act, report_id: str, reason: Reason, tag: Tag) -> None:
    """Cancel what is open: waiting jobs at once, running ones between two denoising steps of their worker."""
    for job in act.uow.jobs.of_report(report_id):
        if not job.state.is_open:
            continue
        if job.state is JobState.RUNNING:
            after = replace(job, cancel_requested=True, reason=reason)
        else:
            after = replace(job.finish(JobState.CANCELLED, act.now, reason), cancel_requested=True)
        act.uow.jobs.save(after, fence=job.fence)
        act.record(tag, after, detail={"state": after.state, "code": reason.code})


def _merged(order: Order, command: OrderCommand, patient: Patient) -> Order:
    """The order with what the command says: None leaves a value, DELETE deletes it."""
    procedure = Procedure(
        value(order.procedure.code, command.procedure_code),
        value(order.procedure.system, command.procedure_system),
        value(order.procedure.text, command.procedure_text),
    )
    accession = value(order.accession_number, command.accession_number)
    told_accession = isinstance(command.accession_number, str)
    return replace(
        order,
        patient=patient,
        placer_number=command.placer_number or order.placer_number,
        filler_number=value(order.filler_number, command.filler_number),
        accession_number=accession,
        accession_assigner=command.accession_assigner if told_accession else order.accession_assigner,
        study_instance_uid=value(order.study_instance_uid, command.study_instance_uid),
        requested_procedure_id=value(order.requested_procedure_id, command.requested_procedure_id),
        steps=order.steps if command.steps is None else command.steps,
        procedure=procedure,
        modality=value(order.modality, command.modality),
        reason=value(order.reason, command.reason),
        priority=value(order.priority, command.priority) or Priority.ROUTINE,
        ordering_provider=value(order.ordering_provider, command.ordering_provider),
        scheduled_at=value(order.scheduled_at, command.scheduled_at),
        status=command.order_status or order.status,
        message_time=command.message_time or order.message_time,
    )


def _check_texts(part: object, place: str) -> None:
    """NUL and lone surrogates are refused at every edge, this one included."""
    if isinstance(part, str):
        refuse_unstorable(part, place)
    elif isinstance(part, tuple):
        for item in part:
            _check_texts(item, place)
    elif is_dataclass(part) and not isinstance(part, type):
        for each in fields(part):
            _check_texts(getattr(part, each.name), f"{place}.{each.name}")
