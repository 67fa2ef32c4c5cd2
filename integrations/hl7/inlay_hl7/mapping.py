"""Between HL7 v2 and Inlay's domain: ORM^O01 to order commands, and reports to results. Only this module knows both.

Where a site puts its values is a `Mapping` object; the default is IHE Radiology RAD-4 (HL7 2.3.1). Every order group of
a message is read. What is not understood is refused with its place, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timezone, tzinfo
from typing import Final, TypeVar

from inlay_core.application.ports import DELETE, Action, Deleted, OrderCommand, PatientFields
from inlay_core.domain.errors import Category, DomainError, Invalid
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, OrderStatus, Priority
from inlay_core.domain.patient import PersonName, Provider
from inlay_core.domain.report import Report
from inlay_hl7 import building, results
from inlay_hl7.ack import Issue, Outcome, issue_of
from inlay_hl7.message import Condition, Message, MessageError, Place, Segment
from inlay_hl7.times import parse_date, parse_time

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class At:
    """A location in an order group: segment, field, component. Written `OBR-18` or `TQ1-9.1`."""

    segment: str
    field: int
    component: int = 1

    @classmethod
    def parse(cls, text: str) -> At:
        """The location that is written so; raises ValueError."""
        found = re.fullmatch(r"([A-Z][A-Z0-9]{2})-([1-9][0-9]?)(?:\.([1-9][0-9]?))?", text)
        if found is None:
            raise ValueError("a location is written SEG-field or SEG-field.component")
        return cls(found[1], int(found[2]), int(found[3] or 1))


def _at(*locations: str) -> tuple[At, ...]:
    return tuple(At.parse(location) for location in locations)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where the values of an order stand for one sender; of several locations the first filled one counts.

    `zone` is the zone of times without an offset. `reason` locations are coded texts (their text component counts),
    `clinical_information` ones are free text; both together are the reason of the order.
    """

    placer_number: tuple[At, ...] = _at("ORC-2", "OBR-2")
    filler_number: tuple[At, ...] = _at("ORC-3", "OBR-3")
    accession_number: tuple[At, ...] = _at("OBR-18")
    study_instance_uid: tuple[At, ...] = _at("ZDS-1")
    procedure: tuple[At, ...] = _at("OBR-4")
    modality: tuple[At, ...] = _at("OBR-24")
    reason: tuple[At, ...] = _at("OBR-31")
    clinical_information: tuple[At, ...] = _at("OBR-13")
    # TQ1 inside of a 2.3.1 message is common.
    priority: tuple[At, ...] = _at("TQ1-9", "ORC-7.6", "OBR-27.6", "OBR-5")
    scheduled_at: tuple[At, ...] = _at("TQ1-7", "ORC-7.4", "OBR-27.4", "OBR-36")
    ordering_provider: tuple[At, ...] = _at("ORC-12", "OBR-16")
    # The order's own time (ORC-9) only where a sender keeps it current; MSH-7 rises with every message.
    order_time: tuple[At, ...] = ()
    zone: tzinfo = UTC


RAD_4: Final = Mapping()


class Malformed(Invalid):
    """A message that cannot be taken; it remembers what its acknowledgement has to say."""

    def __init__(self, outcome: Outcome, issue: Issue) -> None:
        super().__init__(f"hl7-{int(issue.condition)}", issue.text or "malformed", str(issue.place or "MSH"))
        self.outcome = outcome
        self.issue = issue

    def __reduce__(self) -> tuple[type[DomainError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.outcome, self.issue)


_BY_CODE: Final = {"accession-taken": Condition.DUPLICATE_KEY}
_BY_CATEGORY: Final = {
    Category.INVALID: Condition.DATA_TYPE,
    Category.NOT_FOUND: Condition.UNKNOWN_KEY,
    Category.LOCKED: Condition.LOCKED,
}
_PLACE: Final = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?")


def answer_of(error: DomainError | None) -> tuple[Outcome, tuple[Issue, ...]]:
    """What the acknowledgement of a message says when its use case ended so."""
    if error is None:
        return Outcome.ACCEPTED, ()
    if isinstance(error, Malformed):
        return error.outcome, (error.issue,)
    temporary = error.category in (Category.UNAVAILABLE, Category.FAULT)
    condition = _BY_CODE.get(error.code) or _BY_CATEGORY.get(error.category, Condition.APPLICATION)
    found = _PLACE.match(error.place or "")
    place = Place(found[1], int(found[2] or 1)) if found else None
    return Outcome.UNAVAILABLE if temporary else Outcome.CONTENT_ERROR, (Issue(condition, place, error.message),)


# ---------------------------------------------------------------------------------------------- orders

# ORC-1 (table 0119).
_ACTIONS: Final = {
    "NW": Action.NEW,
    "CA": Action.CANCEL,
    "DC": Action.DISCONTINUE,
    "XO": Action.CHANGE,
    "SC": Action.STATUS,
}
# ORC-5 (table 0038). CA and DC within a status or a change end the order as ORC-1 CA and DC do.
_STATUSES: Final = {
    "SC": OrderStatus.SCHEDULED,
    "IP": OrderStatus.IN_PROGRESS,
    "CM": OrderStatus.COMPLETED,
    "A": OrderStatus.COMPLETED,
    "CA": OrderStatus.CANCELLED,
    "DC": OrderStatus.DISCONTINUED,
}
_CLOSING: Final = {OrderStatus.CANCELLED: Action.CANCEL, OrderStatus.DISCONTINUED: Action.DISCONTINUE}
# Table 0027 and what radiology systems write for it.
_PRIORITIES: Final = {
    "S": Priority.STAT,
    "STAT": Priority.STAT,
    "A": Priority.URGENT,
    "ASAP": Priority.URGENT,
    "U": Priority.URGENT,
    "URGENT": Priority.URGENT,
    "P": Priority.URGENT,
    "T": Priority.URGENT,
    "R": Priority.ROUTINE,
    "ROUTINE": Priority.ROUTINE,
    "C": Priority.ROUTINE,
    "PRN": Priority.ROUTINE,
}
_SEXES: Final = {"F": "female", "M": "male", "O": "other", "A": "other", "N": "other", "X": "other"}
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def order_commands(message: Message, mapping: Mapping = RAD_4) -> tuple[OrderCommand, ...]:
    """The orders of an ORM^O01, one per ORC group; steps of one accession number are one order. Raises Malformed."""
    try:
        message.require("ORC")
        groups = message.groups("ORC")
        context = _Context.of(message, mapping)
        return tuple(_with_steps_joined(_command(group, context) for group in groups))
    except MessageError as error:
        raise Malformed(Outcome.CONTENT_ERROR, issue_of(error)) from None


def message_time(message: Message, zone: tzinfo = UTC) -> datetime | None:
    """MSH-7 in UTC. Raises MessageError for a value that is no time."""
    return _time(message.header, 7, 1, zone)


@dataclass(frozen=True, slots=True)
class _Context:
    mapping: Mapping
    facility: str
    time: datetime | None
    zone: tzinfo
    patient: PatientFields | None

    @classmethod
    def of(cls, message: Message, mapping: Mapping) -> _Context:
        header = message.header
        zone = _zone(header.text(7), mapping.zone)
        facility = header.text(4) or header.text(3)
        pid = message.first("PID")
        patient = _patient(pid, facility) if pid else None
        return cls(mapping, facility, message_time(message, zone), zone, patient)


def _zone(time: str, fallback: tzinfo) -> tzinfo:
    """The offset of MSH-7 holds for every time of the message that has none of its own (chapter 2A, DTM)."""
    if not re.search(r"[+-]\d{4}$", time):
        return fallback
    try:
        moment = parse_time(time)
        local = parse_time(time[:-5])
    except ValueError:
        return fallback
    return timezone(local - moment)


def _command(group: Sequence[Segment], context: _Context) -> OrderCommand:
    orc, mapping = group[0], context.mapping
    details = [segment for segment in group if segment.name == "OBR"]
    if len(details) > 1:
        # Which of them would the numbers of the ORC mean? The sender has to repeat the ORC.
        raise MessageError(Condition.SEQUENCE, details[1].place(), "several OBR after one ORC")
    action, status = _action(orc)
    if action is Action.NEW and context.patient is None:
        raise MessageError(Condition.SEQUENCE, Place("PID"), "required segment missing")
    number, assigner = _placer(group, context)
    code, text, system = _procedure(group, mapping)
    return OrderCommand(
        action=action,
        assigner=assigner,
        placer_number=number,
        filler_number=_value(group, mapping.filler_number),
        accession_number=_value(group, mapping.accession_number),
        accession_assigner=context.facility,
        study_instance_uid=_study(group, mapping),
        patient=context.patient,
        procedure_code=code,
        procedure_system=system,
        procedure_text=text,
        modality=_value(group, mapping.modality),
        reason=_reason(group, mapping),
        priority=_priority(group, mapping),
        ordering_provider=_provider(group, mapping),
        scheduled_at=_moment(group, mapping.scheduled_at, context.zone),
        order_status=status,
        message_time=_order_time(group, context),
        place=f"ORC[{orc.occurrence}]",
    )


def _action(orc: Segment) -> tuple[Action, OrderStatus | None]:
    """ORC-1 with ORC-5. XO is also how "completed" is told, and CA is cancelled, never active."""
    action = _ACTIONS.get(orc.require(1))
    if action is None:
        raise MessageError(Condition.TABLE_VALUE, orc.place(1), "order control code not supported")
    status = _STATUSES.get(orc.text(5))
    if action is Action.NEW:
        return action, status if status and not status.is_closed else OrderStatus.SCHEDULED
    if action is Action.CANCEL:
        return action, OrderStatus.CANCELLED
    if action is Action.DISCONTINUE:
        return action, OrderStatus.DISCONTINUED
    if action is Action.STATUS and status is None:
        raise MessageError(Condition.TABLE_VALUE, orc.place(5), "a status change without a known order status")
    return (_CLOSING.get(status, action) if status else action), status


def _find(group: Sequence[Segment], locations: Iterable[At]) -> tuple[Segment, At] | None:
    """The first location that is filled, or else the first one whose value is deleted."""
    deleted: tuple[Segment, At] | None = None
    for at in locations:
        for segment in group:
            if segment.name != at.segment:
                continue
            if segment.text(at.field, at.component, None).strip():
                return segment, at
            if deleted is None and segment.deletes(at.field, at.component):
                deleted = segment, at
            break
    return deleted


def _value(group: Sequence[Segment], locations: Iterable[At]) -> str | Deleted | None:
    found = _find(group, locations)
    if found is None:
        return None
    segment, at = found
    return segment.text(at.field, at.component, None).strip() or DELETE


def _placer(group: Sequence[Segment], context: _Context) -> tuple[str | None, str]:
    """The placer number with its assigner: the namespace beside the number, else the facility that sends."""
    found = _find(group, context.mapping.placer_number)
    if found is None:
        return None, context.facility
    segment, at = found
    namespace = segment.text(at.field, at.component + 1)
    return segment.text(at.field, at.component, None).strip() or None, namespace or context.facility


def _study(group: Sequence[Segment], mapping: Mapping) -> str | Deleted | None:
    uid = _value(group, mapping.study_instance_uid)
    if isinstance(uid, str) and (len(uid) > 64 or not _UID.fullmatch(uid)):
        found = _find(group, mapping.study_instance_uid)
        assert found is not None
        raise MessageError(Condition.DATA_TYPE, found[0].place(found[1].field, found[1].component), "not a DICOM UID")
    return uid


Coded = tuple[str | Deleted | None, str | Deleted | None, str | Deleted | None]


def _procedure(group: Sequence[Segment], mapping: Mapping) -> Coded:
    """Code, text and coding system of the procedure, which stand in three components side by side."""
    for at in mapping.procedure:
        beside = [At(at.segment, at.field, at.component + n) for n in range(3)]
        code, text, system = (_value(group, [place]) for place in beside)
        if code is not None or text is not None:
            return code, text, system
    return None, None, None


def _reason(group: Sequence[Segment], mapping: Mapping) -> str | Deleted | None:
    texts: list[str] = []
    deleted = False
    for at in (*mapping.reason, *mapping.clinical_information):
        segment = next((segment for segment in group if segment.name == at.segment), None)
        if segment is None:
            continue
        deleted = deleted or segment.deletes(at.field)
        coded = at in mapping.reason
        said = _coded_texts(segment, at.field) if coded else [segment.free_text(at.field)]
        texts += [text for text in (each.strip() for each in said) if text and text not in texts]
    if texts:
        return "\n".join(texts)
    return DELETE if deleted else None


def _coded_texts(segment: Segment, field: int) -> list[str]:
    """The text of each repetition, or its code where it has no text."""
    repetitions = range(1, len(segment.repetitions(field)) + 1)
    return [segment.text(field, 2, None, n) or segment.text(field, 1, None, n) for n in repetitions]


def _priority(group: Sequence[Segment], mapping: Mapping) -> Priority | Deleted | None:
    value = _value(group, mapping.priority)
    if not isinstance(value, str):
        return value
    # An unknown code changes nothing: an order is routine until somebody says more.
    return _PRIORITIES.get(value.upper())


def _provider(group: Sequence[Segment], mapping: Mapping) -> Provider | Deleted | None:
    """XCN: identifier, family, given, middle, suffix, prefix."""
    for at in mapping.ordering_provider:
        segment = next((segment for segment in group if segment.name == at.segment), None)
        if segment is None or not segment.raw(at.field):
            continue
        if segment.deletes(at.field):
            return DELETE
        identifier, family, given, middle, suffix, prefix = (segment.text(at.field, n) for n in range(1, 7))
        name = PersonName(family, given, middle, prefix, suffix) if family or given else None
        return Provider(identifier or None, name)
    return None


def _moment(group: Sequence[Segment], locations: Iterable[At], zone: tzinfo) -> datetime | Deleted | None:
    found = _find(group, locations)
    if found is None:
        return None
    segment, at = found
    return _time(segment, at.field, at.component, zone) or DELETE


def _order_time(group: Sequence[Segment], context: _Context) -> datetime | None:
    moment = _moment(group, context.mapping.order_time, context.zone)
    return moment if isinstance(moment, datetime) else context.time


def _time(segment: Segment, field: int, component: int, zone: tzinfo) -> datetime | None:
    text = segment.text(field, component)
    try:
        return parse_time(text, zone) if text else None
    except ValueError as error:
        raise MessageError(Condition.DATA_TYPE, segment.place(field, component), str(error)) from None


def _patient(pid: Segment, facility: str) -> PatientFields:
    """PID-3 (the medical record number where the types say which), PID-5, PID-7, PID-8."""
    count = len(pid.repetitions(3))
    typed = [n for n in range(1, count + 1) if pid.text(3, 5, repetition=n) == "MR"]
    number = (typed or [1])[0]
    identifier = pid.text(3, 1, None, number).strip()
    if not identifier:
        raise MessageError(Condition.REQUIRED_MISSING, pid.place(3, 1), "required value missing")
    assigner = pid.text(3, 4, 1, number) or pid.text(3, 4, 2, number) or facility
    return PatientFields(assigner, identifier, _name(pid), _birth_date(pid), _sex(pid))


def _name(pid: Segment) -> PersonName | Deleted | None:
    """XPN, the legal name where the types say which: family, given, middle, suffix, prefix."""
    count = len(pid.repetitions(5))
    legal = [n for n in range(1, count + 1) if pid.text(5, 7, repetition=n) == "L"]
    family, given, middle, suffix, prefix = (pid.text(5, n, repetition=(legal or [1])[0]) for n in range(1, 6))
    if family or given:
        return PersonName(family, given, middle, prefix, suffix)
    return DELETE if pid.deletes(5) else None


def _birth_date(pid: Segment) -> date | Deleted | None:
    text = pid.text(7).strip()
    if not text:
        return DELETE if pid.deletes(7) else None
    if re.fullmatch(r"[0-9]{4}(?:[0-9]{2})?", text):
        return None  # only the year, or year and month, are known: that is no date, and no error either
    try:
        return parse_date(text)
    except ValueError as error:
        raise MessageError(Condition.DATA_TYPE, pid.place(7), str(error)) from None


def _sex(pid: Segment) -> str | Deleted | None:
    text = pid.text(8).strip().upper()
    if not text:
        return DELETE if pid.deletes(8) else None
    return _SEXES.get(text, "unknown")


def _with_steps_joined(commands: Iterable[OrderCommand]) -> list[OrderCommand]:
    """In RAD-4 the steps of a procedure are ORC groups with the same numbers, and one ZDS stands behind the last."""
    joined: dict[tuple[object, ...], OrderCommand] = {}
    for command in commands:
        numbers = (command.placer_number, command.accession_number)
        key = (command.action, command.assigner, *(numbers if any(numbers) else (command.place,)))
        joined[key] = _filled(joined[key], command) if key in joined else command
    return list(joined.values())


def _filled(first: OrderCommand, later: OrderCommand) -> OrderCommand:
    missing = {
        each.name: getattr(later, each.name) for each in fields(OrderCommand) if getattr(first, each.name) is None
    }
    return replace(first, **missing)


# ---------------------------------------------------------------------------------------------- results

_RESULT_STATUS: Final = {
    Status.DRAFTED: results.ResultStatus.DRAFT,
    Status.IN_REVIEW: results.ResultStatus.DRAFT,
    Status.SIGNED: results.ResultStatus.SIGNED,
    Status.AMENDED: results.ResultStatus.CORRECTED,
    Status.CORRECTED: results.ResultStatus.CORRECTED,
    Status.APPENDED: results.ResultStatus.CORRECTED,
    Status.CANCELLED: results.ResultStatus.CANCELLED,
    Status.ENTERED_IN_ERROR: results.ResultStatus.WITHDRAWN,
}
_HL7_SEX: Final = {"female": "F", "male": "M", "other": "O", "unknown": "U"}


def result_of(report: Report, order: Order, envelope: building.Envelope, banner: str) -> results.Result | None:
    """The ORU^R01 of one version of a report; None for a status of which other systems are told nothing.

    `banner` is the notice of `inlay_core.domain.labels`; it stands before the text.
    """
    status = _RESULT_STATUS.get(report.status)
    if status is None:
        return None
    signature = report.signature if status.is_attested else None
    signer = building.Person(family=signature.signer_name, identifier=signature.signer_id) if signature else None
    procedure = order.procedure
    return results.Result(
        envelope=envelope,
        patient=_patient_fields(order),
        status=status,
        report_id=report.id,
        reported_at=report.updated_at,
        sections=tuple((section.name, section.text) for section in report.sections if section.text),
        banner=banner,
        placer_number=order.placer_number or "",
        filler_number=order.filler_number or "",
        accession_number=order.accession_number or "",
        procedure=building.Coded(procedure.code or "", procedure.text or "", procedure.system or ""),
        modality=order.modality or "",
        ordering_provider=_person(order.ordering_provider),
        interpreter=signer or building.NOBODY,
    )


def _patient_fields(order: Order) -> building.PatientFields:
    patient = order.patient
    return building.PatientFields(
        identifier=patient.identifier,
        assigner=patient.assigner,
        name=_person(Provider(None, patient.name)),
        birth_date=patient.birth_date.strftime("%Y%m%d") if patient.birth_date else "",
        sex=_HL7_SEX.get(patient.sex or "", ""),
    )


def _person(provider: Provider | None) -> building.Person:
    name = (provider.name if provider else None) or PersonName("")
    identifier = (provider.identifier if provider else None) or ""
    return building.Person(name.family, name.given, name.middle, name.suffix, name.prefix, identifier)
