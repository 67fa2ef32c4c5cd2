"""ORM^O01, OMI^O23 and OMG^O19 to order commands: every ORC group is read, and every step of it.

Groups and steps with equal numbers are one order. What ORC-1 and ORC-5 say together stands in two tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Final

from inlay_core.application.ports import DELETE, Action, Deleted, OrderCommand, PatientFields
from inlay_core.domain.order import OrderStatus, Priority
from inlay_hl7.ack import Outcome, issue_of
from inlay_hl7.mapping.patients import patient_of
from inlay_hl7.mapping.places import RAD_4, Mapping
from inlay_hl7.mapping.reading import Context, Group, Use
from inlay_hl7.mapping.refusals import Malformed
from inlay_hl7.message import Condition, Message, MessageError, Place, Segment

# ORC-1 (table 0119) -> the action, and the status that it means whatever ORC-5 says (None: ORC-5 decides).
ACTIONS: Final[dict[str, tuple[Action, OrderStatus | None]]] = {
    "NW": (Action.NEW, None),
    "RO": (Action.NEW, None),  # the order that replaces another one
    "XO": (Action.CHANGE, None),
    "XX": (Action.CHANGE, None),
    "SC": (Action.STATUS, None),
    "HD": (Action.STATUS, OrderStatus.ON_HOLD),
    "RL": (Action.STATUS, OrderStatus.SCHEDULED),
    "CA": (Action.CANCEL, OrderStatus.CANCELLED),
    "OC": (Action.CANCEL, OrderStatus.CANCELLED),
    "DC": (Action.DISCONTINUE, OrderStatus.DISCONTINUED),
    "OD": (Action.DISCONTINUE, OrderStatus.DISCONTINUED),
    "RP": (Action.REPLACE, OrderStatus.REPLACED),
    "RU": (Action.REPLACE, OrderStatus.REPLACED),
}
# ORC-5 (table 0038). CA, DC and RP within a status or a change end the order as the same codes in ORC-1 do.
STATUSES: Final[dict[str, OrderStatus]] = {
    "SC": OrderStatus.SCHEDULED,
    "IP": OrderStatus.IN_PROGRESS,
    "HD": OrderStatus.ON_HOLD,
    "CM": OrderStatus.COMPLETED,
    "A": OrderStatus.COMPLETED,
    "CA": OrderStatus.CANCELLED,
    "DC": OrderStatus.DISCONTINUED,
    "RP": OrderStatus.REPLACED,
}
_CLOSING: Final = {
    OrderStatus.CANCELLED: Action.CANCEL,
    OrderStatus.DISCONTINUED: Action.DISCONTINUE,
    OrderStatus.REPLACED: Action.REPLACE,
}
# Table 0027 and what radiology systems write for it.
PRIORITIES: Final[dict[str, Priority]] = {
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


def order_commands(
    message: Message, mapping: Mapping = RAD_4, uses: list[Use] | None = None
) -> tuple[OrderCommand, ...]:
    """The orders of a message; steps of one accession number are one order. Raises Malformed.

    The places that were read are added to `uses`.
    """
    try:
        message.require("ORC")
        context = Context.of(message, mapping, uses)
        pid = message.first("PID")
        patient = patient_of(pid, context) if pid else None
        groups = message.groups("ORC")
        return tuple(_with_steps_joined(each for group in groups for each in _commands(group, context, patient)))
    except MessageError as error:
        raise Malformed(Outcome.CONTENT_ERROR, issue_of(error)) from None


def _commands(segments: Sequence[Segment], context: Context, patient: PatientFields | None) -> Iterator[OrderCommand]:
    """One command per step: the segments of the order with one IPC at a time."""
    steps = [segment for segment in segments if segment.name == "IPC"]
    common = [segment for segment in segments if segment.name != "IPC"]
    if not steps:
        yield _command(Group(common, context), patient, has_step=False)
    for step in steps:
        yield _command(Group([*common, step], context), patient, has_step=True)


def _command(group: Group, patient: PatientFields | None, *, has_step: bool) -> OrderCommand:
    orc, context = group.segments[0], group.context
    details = [segment for segment in group.segments if segment.name == "OBR"]
    if len(details) > 1:
        # Which of them would the numbers of the ORC mean? The sender has to repeat the ORC.
        raise MessageError(Condition.SEQUENCE, details[1].place(), "several OBR after one ORC")
    action, status = _action(orc, context)
    if action is Action.NEW:
        _check_complete(orc, patient, has_detail=bool(details), has_step=has_step or not context.mapping.has_steps)
    number, assigner = group.identifier("placer_number")
    code, text, system = group.coded("procedure")
    step = group.text("step_id")
    return OrderCommand(
        action=action,
        assigner=assigner,
        placer_number=number,
        filler_number=group.text("filler_number"),
        accession_number=group.text("accession_number"),
        accession_assigner=context.facility,
        requested_procedure_id=group.text("requested_procedure_id"),
        steps=(step,) if isinstance(step, str) else None,
        study_instance_uid=group.uid("study_instance_uid"),
        patient=patient,
        procedure_code=code,
        procedure_system=system,
        procedure_text=text,
        modality=group.text("modality"),
        reason=group.reason(),
        priority=_priority(group),
        ordering_provider=group.provider("ordering_provider"),
        scheduled_at=group.moment("scheduled_at"),
        order_status=status,
        message_time=_order_time(group),
        place=f"ORC[{orc.occurrence}]",
    )


def _check_complete(orc: Segment, patient: PatientFields | None, *, has_detail: bool, has_step: bool) -> None:
    """A new order needs its patient, what is to be done, and for imaging orders the step. Raises MessageError 100."""
    for is_there, name in ((patient is not None, "PID"), (has_detail, "OBR"), (has_step, "IPC")):
        if not is_there:
            occurrence = 1 if name == "PID" else orc.occurrence
            raise MessageError(Condition.SEQUENCE, Place(name, occurrence), "required segment missing")


def _action(orc: Segment, context: Context) -> tuple[Action, OrderStatus | None]:
    """ORC-1 with ORC-5. XO is also how "completed" is told, and CA is cancelled, never active."""
    found = ACTIONS.get(orc.require(1))
    if found is None:
        raise MessageError(Condition.TABLE_VALUE, orc.place(1), "order control code not supported")
    context.note("order control", orc, 1)
    action, always = found
    status = STATUSES.get(orc.text(5))
    if status is not None:
        context.note("order status", orc, 5)
    if always is not None:
        return action, always
    if action is Action.NEW:
        return action, status if status and not status.is_closed else OrderStatus.SCHEDULED
    if action is Action.STATUS and status is None:
        raise MessageError(Condition.TABLE_VALUE, orc.place(5), "a status change without a known order status")
    return (_CLOSING.get(status, action) if status else action), status


def _priority(group: Group) -> Priority | Deleted | None:
    value = group.text("priority")
    if not isinstance(value, str):
        return value
    # An unknown code changes nothing: an order is routine until somebody says more.
    return PRIORITIES.get(value.upper())


def _order_time(group: Group) -> datetime | None:
    moment = group.moment("order_time")
    return moment if isinstance(moment, datetime) else group.context.time


def _with_steps_joined(commands: Iterable[OrderCommand]) -> list[OrderCommand]:
    """Steps of a procedure are IPC segments or, in RAD-4, ORC groups with the same numbers; one ZDS behind the last."""
    joined: dict[tuple[object, ...], OrderCommand] = {}
    accessions: dict[tuple[object, ...], object] = {}
    for command in commands:
        numbers = (command.placer_number, command.accession_number)
        if command.placer_number and isinstance(command.accession_number, str):
            order = (command.action, command.assigner, command.placer_number)
            if accessions.setdefault(order, command.accession_number) != command.accession_number:
                # One of the two would silently take the other's place.
                place = Place("ORC", int(command.place.strip("ORC[]") or 1))
                raise MessageError(Condition.DUPLICATE_KEY, place, "several accession numbers for one placer number")
        key = (command.action, command.assigner, *(numbers if any(numbers) else (command.place,)))
        joined[key] = _filled(joined[key], command) if key in joined else command
    return list(joined.values())


def _filled(first: OrderCommand, later: OrderCommand) -> OrderCommand:
    missing = {
        each.name: getattr(later, each.name) for each in fields(OrderCommand) if getattr(first, each.name) is None
    }
    whole = replace(first, **missing)
    steps = tuple(dict.fromkeys((*(first.steps or ()), *(later.steps or ())))) or None
    studies = {uid for uid in (first.study_instance_uid, later.study_instance_uid) if isinstance(uid, str)}
    if len(studies) > 1:
        # The steps are different studies: the accession number is what they have in common.
        return replace(whole, steps=steps, study_instance_uid=DELETE)
    return replace(whole, steps=steps)
