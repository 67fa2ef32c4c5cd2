"""Every interaction that the endpoint has, in one table: the router obeys it, the capability statement repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inlay_fhir import read
from inlay_fhir.batch import batch
from inlay_fhir.exchange import Interact
from inlay_fhir.history import history_of_diagnostic_report, history_of_diagnostic_reports
from inlay_fhir.search import search_diagnostic_reports


@dataclass(frozen=True, slots=True)
class Route:
    """One interaction: its FHIR code, the method and the path below the endpoint, with `{variables}`."""

    resource: str
    code: str
    method: str
    path: str
    interact: Interact


def _reading(resource: str, interact: Interact) -> Route:
    return Route(resource, "read", "GET", f"{resource}/{{id}}", interact)


ROUTES: Final = (
    Route("", "batch", "POST", "", batch),
    _reading("DiagnosticReport", read.read_diagnostic_report),
    Route("DiagnosticReport", "vread", "GET", "DiagnosticReport/{id}/_history/{version}", read.vread_diagnostic_report),
    Route(
        "DiagnosticReport",
        "history-instance",
        "GET",
        "DiagnosticReport/{id}/_history",
        history_of_diagnostic_report,
    ),
    Route("DiagnosticReport", "history-type", "GET", "DiagnosticReport/_history", history_of_diagnostic_reports),
    Route("DiagnosticReport", "search-type", "GET", "DiagnosticReport", search_diagnostic_reports),
    Route("DiagnosticReport", "search-type", "POST", "DiagnosticReport/_search", search_diagnostic_reports),
    _reading("ServiceRequest", read.read_service_request),
    _reading("ImagingStudy", read.read_imaging_study),
    _reading("Patient", read.read_patient),
    _reading("Provenance", read.read_provenance),
    _reading("Device", read.read_device),
    _reading("Task", read.read_task),
    _reading("AuditEvent", read.read_audit_event),
)

DOCUMENTATION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DiagnosticReport": "A report, drafts included: unsigned words of the model are labelled AIAST. Every version "
        "is kept. `$infill` and `$sign` are not offered here yet; the workstation API has both.",
        "ServiceRequest": "An order, as the RIS last stated it.",
        "ImagingStudy": "A study that an order names; its id is the StudyInstanceUID. Images are in the archive.",
        "Patient": "A patient, as orders describe him or her.",
        "Provenance": "Who and what made a version of a report; the id is `<report id>.<version>`.",
        "Device": "A model that wrote words of reports; the id begins its digest (and its adapter's).",
        "Task": "A job: one request to the model. Needs the right to read jobs, which the role ehr lacks.",
        "AuditEvent": "An event of the audit trail. Needs the right to read the trail, which the role ehr lacks.",
    }
)
"""What each resource is, in words."""
