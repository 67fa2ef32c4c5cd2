"""A version of a report as a result message: its status, its sections, and the numbers of its order."""

from __future__ import annotations

from typing import Final

from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.patient import PersonName, Provider
from inlay_core.domain.report import Report
from inlay_hl7 import building, results

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
