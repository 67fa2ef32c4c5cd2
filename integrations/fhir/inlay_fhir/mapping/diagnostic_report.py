"""A version of a report as a DiagnosticReport (US Core DiagnosticReport for report exchange).

https://hl7.org/fhir/R4/diagnosticreport.html. The AI is never a performer: it is an agent of the Provenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from inlay_core.application.ports import ReportRow
from inlay_core.domain.job import Job
from inlay_core.domain.labels import banner
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.report import Report
from inlay_fhir.elements import AI_ASSERTED, Json, coding, concept, filled, instant, string
from inlay_fhir.mapping.labels import labelled
from inlay_fhir.mapping.naming import LOINC, identifier, person, procedure_concept, study_reference
from inlay_fhir.mapping.presented import presented_forms, titled
from inlay_fhir.narrative import narrative
from inlay_fhir.site import FhirSite

CATEGORIES: Final = (
    (LOINC, "LP29684-5", "Radiology"),
    ("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology"),
)
STATUS_SYSTEM: Final = "http://hl7.org/fhir/diagnostic-report-status"

# Drafts are `partial` ("may be unverified") unless the site wants `preliminary`, which FHIR keeps for verified results.
_STATUSES: Final[Mapping[Status, str]] = MappingProxyType(
    {
        Status.REGISTERED: "registered",
        Status.DRAFTING: "registered",
        Status.FAILED: "registered",
        Status.SIGNED: "final",
        Status.AMENDED: "amended",
        Status.CORRECTED: "corrected",
        Status.APPENDED: "appended",
        Status.CANCELLED: "cancelled",
        Status.ENTERED_IN_ERROR: "entered-in-error",
    }
)


def fhir_status(site: FhirSite, status: Status) -> str:
    """DiagnosticReport.status of a report's status."""
    return _STATUSES.get(status, site.draft_status)


def statuses(site: FhirSite, code: str) -> tuple[Status, ...]:
    """The report's statuses that are shown as `code`."""
    return tuple(status for status in Status if fhir_status(site, status) == code)


def is_ai_asserted(report: Report) -> bool:
    """Whether the whole version is labelled: it has words of the model, and nobody answers for them."""
    return report.has_model_text and not report.is_signed


def diagnostic_report(site: FhirSite, row: ReportRow, jobs: Iterable[Job]) -> Json:
    """One version of a report. `jobs` are the report's: their run records say what the notice has to."""
    report, order = row.report, row.order
    notice = banner(report, jobs)
    signer = report.signature if report.is_signed else None
    accession = identifier(site, "ACSN", order.accession_number, order.accession_assigner)
    impression = report.section("impression")
    studied_at = order.studied_at or order.scheduled_at
    signers = [person(signer.signer_id, signer.signer_name)] if signer else None
    resource = filled(
        resourceType="DiagnosticReport",
        id=report.id,
        meta=filled(
            versionId=str(report.version),
            lastUpdated=instant(report.updated_at),
            security=[AI_ASSERTED] if is_ai_asserted(report) else None,
        ),
        text=narrative(notice, titled(report)),
        identifier=[accession] if accession else None,
        basedOn=[{"reference": f"ServiceRequest/{order.id}"}],
        status=fhir_status(site, report.status),
        category=[concept(coding(*category)) for category in CATEGORIES],
        code=procedure_concept(order.procedure),
        subject={"reference": f"Patient/{order.patient.id}"},
        effectiveDateTime=instant(studied_at) if studied_at else None,
        issued=instant(signer.signed_at) if signer else None,
        performer=signers,
        resultsInterpreter=signers,
        imagingStudy=[study] if (study := study_reference(order.study_instance_uid)) else None,
        conclusion=string(impression.text) if impression else None,
        presentedForm=presented_forms(site, row, notice),
    )
    return labelled(resource, report)
