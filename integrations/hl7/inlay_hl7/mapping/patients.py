"""Patients: PID as orders, updates and merges carry it, and MRG, which names the record that goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Final

from inlay_core.application.ports import DELETE, Deleted, PatientFields, PatientMerge, PatientUpdate
from inlay_core.domain.patient import PersonName
from inlay_hl7.ack import Outcome, issue_of
from inlay_hl7.mapping.places import RAD_4, Mapping
from inlay_hl7.mapping.reading import Context, Use, checked
from inlay_hl7.mapping.refusals import Malformed
from inlay_hl7.message import Condition, Message, MessageError, Place, Segment
from inlay_hl7.times import parse_date

_SEXES: Final = {"F": "female", "M": "male", "O": "other", "A": "other", "N": "other", "X": "other"}


def patient_of(pid: Segment, context: Context) -> PatientFields:
    """PID-3 (the record number where the types say which), PID-5, PID-7, PID-8. Raises MessageError."""
    assigner, identifier = identity(pid, 3, context)
    return PatientFields(assigner, identifier, _name(pid, context), _birth_date(pid, context), _sex(pid, context))


def identity(segment: Segment, field: int, context: Context) -> tuple[str, str]:
    """(assigner, identifier) of a CX field. Raises MessageError where there is none."""
    count = len(segment.repetitions(field))
    by_type = {segment.text(field, 5, repetition=n): n for n in range(count, 0, -1)}
    chosen = [by_type[kind] for kind in context.mapping.patient_identifier_types if kind in by_type]
    number = (chosen or [1])[0]
    identifier = segment.text(field, 1, None, number).strip()
    if not identifier:
        raise MessageError(Condition.REQUIRED_MISSING, segment.place(field, 1), "required value missing")
    assigner = segment.text(field, 4, 1, number) or segment.text(field, 4, 2, number) or context.facility
    context.note("patient identifier", segment, field)
    checked(identifier, "patient identifier", segment, field, 1)
    checked(assigner, "assigner", segment, field, 4)
    return assigner, identifier


def patient_commands(
    message: Message, mapping: Mapping = RAD_4, uses: list[Use] | None = None
) -> tuple[PatientUpdate | PatientMerge, ...]:
    """What ADT^A08, A31 (update) and A40 (merge) ask for, one per PID. Raises Malformed."""
    try:
        message.require("PID")
        context = Context.of(message, mapping, uses)
        take = _merge if message.event == "A40" else _update
        return tuple(take(group, context) for group in message.groups("PID"))
    except MessageError as error:
        raise Malformed(Outcome.CONTENT_ERROR, issue_of(error)) from None


def _update(group: Sequence[Segment], context: Context) -> PatientUpdate:
    pid = group[0]
    return PatientUpdate(patient_of(pid, context), context.time, f"PID[{pid.occurrence}]")


def _merge(group: Sequence[Segment], context: Context) -> PatientMerge:
    """PID names the record that stays, MRG-1 the one that goes (chapter 3, A40)."""
    pid = group[0]
    merged = next((segment for segment in group if segment.name == "MRG"), None)
    if merged is None:
        raise MessageError(Condition.SEQUENCE, Place("MRG"), "required segment missing")
    assigner, identifier = identity(merged, 1, context)
    patient = patient_of(pid, context)
    if (assigner, identifier) == (patient.assigner, patient.identifier):
        raise MessageError(Condition.DATA_TYPE, merged.place(1, 1), "a record cannot be merged into itself")
    return PatientMerge(patient, assigner, identifier, context.time, f"MRG[{merged.occurrence}]")


def _name(pid: Segment, context: Context) -> PersonName | Deleted | None:
    """XPN, the legal name where the types say which: family, given, middle, suffix, prefix."""
    count = len(pid.repetitions(5))
    legal = [n for n in range(1, count + 1) if pid.text(5, 7, repetition=n) == "L"]
    parts = [pid.text(5, n, repetition=(legal or [1])[0]) for n in range(1, 6)]
    family, given, middle, suffix, prefix = (checked(part, "name", pid, 5, n + 1) for n, part in enumerate(parts))
    if family or given:
        context.note("patient name", pid, 5)
        return PersonName(family, given, middle, prefix, suffix)
    return DELETE if pid.deletes(5) else None


def _birth_date(pid: Segment, context: Context) -> date | Deleted | None:
    text = pid.text(7).strip()
    if not text:
        return DELETE if pid.deletes(7) else None
    if re.fullmatch(r"[0-9]{4}(?:[0-9]{2})?", text):
        return None  # only the year, or year and month, are known: that is no date, and no error either
    context.note("patient birth date", pid, 7)
    try:
        return parse_date(text)
    except ValueError as error:
        raise MessageError(Condition.DATA_TYPE, pid.place(7), str(error)) from None


def _sex(pid: Segment, context: Context) -> str | Deleted | None:
    text = pid.text(8).strip().upper()
    if not text:
        return DELETE if pid.deletes(8) else None
    context.note("patient sex", pid, 8)
    return _SEXES.get(text, "unknown")
