"""A study as far as orders and reports know it; the images themselves stay in the archive.

https://hl7.org/fhir/R4/imagingstudy.html. The logical id is the StudyInstanceUID, which is a valid FHIR id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from inlay_core.application.ports import ReportRow
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import OrderStatus
from inlay_fhir.elements import Json, coding, filled, instant, string
from inlay_fhir.mapping.naming import DICOM, UID_SYSTEM, identifier, procedure_concept
from inlay_fhir.site import FhirSite

# Reports that stand here say nothing of images: before a worker had them, and where a draft never came.
_BEFORE_IMAGES: Final = frozenset({Status.REGISTERED, Status.FAILED, Status.CANCELLED})


def imaging_study(site: FhirSite, uid: str, rows: Sequence[ReportRow]) -> Json:
    """The study `uid`; `rows` are the reports on it with their orders, at least one."""
    first = rows[0].order
    started = next((row.order.studied_at for row in rows if row.order.studied_at), first.scheduled_at)
    accessions = {
        (order.accession_assigner, order.accession_number): identifier(
            site, "ACSN", order.accession_number, order.accession_assigner
        )
        for order in (row.order for row in rows)
    }
    return filled(
        resourceType="ImagingStudy",
        id=uid,
        meta=filled(lastUpdated=instant(max(row.report.updated_at for row in rows))),
        identifier=[
            {"system": UID_SYSTEM, "value": f"urn:oid:{uid}"},
            *(accession for accession in accessions.values() if accession),
        ],
        status=_status(rows),
        modality=[coding(DICOM, modality)] if (modality := string(first.modality)) else None,
        subject={"reference": f"Patient/{first.patient.id}"},
        started=instant(started) if started else None,
        basedOn=[{"reference": f"ServiceRequest/{row.order.id}"} for row in rows],
        procedureCode=[procedure_concept(first.procedure)],
    )


def _status(rows: Sequence[ReportRow]) -> str:
    if any(row.order.status is OrderStatus.COMPLETED or row.report.status not in _BEFORE_IMAGES for row in rows):
        return "available"
    return "cancelled" if all(row.order.status.is_closed for row in rows) else "registered"
