"""What messages change about patients: updates, merges, and which record an identifier means today.

Open reports follow a merge. What a clinician signed keeps the record that it was signed for, and its trail says what
happened to that record.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from inlay_core.application.ports import DELETE, Deleted, PatientFields, PatientMerge, PatientUpdate, UnitOfWork
from inlay_core.application.transaction import Act
from inlay_core.domain.audit import Detail, Kind, Tag
from inlay_core.domain.patient import Patient

T = TypeVar("T")

UNKNOWN = "patient-unknown"
"""Flag of a message about patients of whom nothing is stored: nothing was to be done, and nothing was kept of them."""
OUTDATED = "outdated"


def value(current: T | None, new: T | Deleted | None) -> T | None:
    """The value after a message: None leaves it, DELETE deletes it."""
    if new is None:
        return current
    return None if new is DELETE else new


def known_patient(uow: UnitOfWork, assigner: str, identifier: str) -> Patient | None:
    """The record that the identifier means today: after a merge the one that took its place."""
    found = next(iter(uow.patients.find(assigner, identifier)), None)
    seen: set[str] = set()
    while found is not None and found.merged_into is not None and found.id not in seen:
        seen.add(found.id)
        found = uow.patients.get(found.merged_into) or found
    return found


def records_of(uow: UnitOfWork, patient: Patient) -> list[Patient]:
    """All records that are this person today, the one that counts first."""
    survivor = uow.patients.get(patient.merged_into) if patient.merged_into else None
    first = survivor or patient
    return [first, *uow.patients.merged_into(first.id)]


def patient_after(act: Act, fields: PatientFields, message_time: datetime | None) -> Patient:
    """The patient's record after the message, created when it is new and left alone by an older message."""
    known = known_patient(act.uow, fields.assigner, fields.identifier)
    if known is None:
        blank = Patient(act.new_id(), fields.assigner, fields.identifier, updated_at=act.now)
        patient = _named(blank, fields, message_time)
        act.uow.patients.add(patient)
        act.record(Tag.INTAKE_PATIENT_CREATED, (Kind.PATIENT, patient.id))
        return patient
    if known.is_older(message_time) or _named(known, fields, message_time) == known:
        return known
    patient = replace(_named(known, fields, message_time), version=known.version + 1, updated_at=act.now)
    act.uow.patients.save(patient)
    act.record(Tag.INTAKE_PATIENT_CHANGED, (Kind.PATIENT, patient.id))
    return patient


def update_patient(act: Act, command: PatientUpdate) -> str | None:
    """Change what is known of a patient; return the flag of a message that changed nothing."""
    fields = command.patient
    before = known_patient(act.uow, fields.assigner, fields.identifier)
    if before is None:
        return UNKNOWN
    if before.is_older(command.message_time):
        return OUTDATED
    after = patient_after(act, fields, command.message_time)
    if _differs(before, after):
        for order in act.uow.orders.of_patient(after.id):
            _tell_report(act, order.id, {"event": "update"})
    return None


def merge_patients(act: Act, command: PatientMerge) -> str | None:
    """Let one record take the place of another; return the flag of a message that changed nothing."""
    gone = next(iter(act.uow.patients.find(command.assigner, command.identifier)), None)
    fields = command.patient
    staying = next(iter(act.uow.patients.find(fields.assigner, fields.identifier)), None)
    if gone is None and staying is None:
        return UNKNOWN
    if gone is None or (staying is not None and gone.merged_into == staying.id):
        return update_patient(act, PatientUpdate(fields, command.message_time, command.place))
    if staying is not None and staying.merged_into is not None:
        # A merge in the other direction came earlier: the newer message says which record stays.
        staying = replace(staying, merged_into=None, version=staying.version + 1, updated_at=act.now)
        act.uow.patients.save(staying)
        act.record(Tag.INTAKE_PATIENT_CHANGED, (Kind.PATIENT, staying.id))
    survivor = patient_after(act, fields, command.message_time)
    for record in (gone, *act.uow.patients.merged_into(gone.id)):
        if record.id != survivor.id:
            _merge_into(act, record, survivor)
    return None


def _merge_into(act: Act, gone: Patient, survivor: Patient) -> None:
    merged = replace(gone, merged_into=survivor.id, version=gone.version + 1, updated_at=act.now)
    act.uow.patients.save(merged)
    act.record(Tag.INTAKE_PATIENT_MERGED, (Kind.PATIENT, gone.id), detail={"into": survivor.id})
    for order in act.uow.orders.of_patient(gone.id):
        signed = _tell_report(act, order.id, {"event": "merge", "into": survivor.id})
        if not signed:
            moved = replace(order, patient=survivor, version=order.version + 1, updated_at=act.now)
            act.uow.orders.save(moved)
            act.record(Tag.INTAKE_ORDER_CHANGED, moved, detail={"status": moved.status, "patient_changed": True})


def _tell_report(act: Act, order_id: str, detail: dict[str, Detail]) -> bool:
    """Write the change into the trail of the order's report; return whether a clinician has signed that report."""
    report = act.uow.reports.by_order(order_id)
    if report is None:
        return False
    detail = {**detail, "signed": report.signature is not None}
    act.record(Tag.INTAKE_REPORT_PATIENT_CHANGED, (Kind.REPORT, report.id), report_id=report.id, detail=detail)
    return report.signature is not None


def _differs(before: Patient, after: Patient) -> bool:
    return (before.name, before.birth_date, before.sex) != (after.name, after.birth_date, after.sex)


def _named(patient: Patient, fields: PatientFields, message_time: datetime | None) -> Patient:
    return replace(
        patient,
        name=value(patient.name, fields.name),
        birth_date=value(patient.birth_date, fields.birth_date),
        sex=value(patient.sex, fields.sex),
        message_time=message_time or patient.message_time,
    )
