"""Every interaction that the endpoint has, in one table: the router obeys it, the capability statement repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inlay_fhir import operations, read, subscribe
from inlay_fhir.batch import batch
from inlay_fhir.create import create_imaging_study, create_service_request
from inlay_fhir.exchange import Interact
from inlay_fhir.history import history_of_diagnostic_report, history_of_diagnostic_reports
from inlay_fhir.lookup import look_up
from inlay_fhir.scopes import LETTERS
from inlay_fhir.search import search_diagnostic_reports


@dataclass(frozen=True, slots=True)
class Route:
    """One interaction: its FHIR code, the method and the path below the endpoint, with `{variables}`.

    `operation` is the name of the operation where `code` is that.
    """

    resource: str
    code: str
    method: str
    path: str
    interact: Interact
    operation: str = ""

    @property
    def letter(self) -> str | None:
        """The letter of the SMART scope that it takes; None for what takes none."""
        return "r" if self.operation == "status" else LETTERS.get(self.code)


def _operation(name: str, interact: Interact) -> Route:
    path = f"DiagnosticReport/{{id}}/${name}"
    return Route("DiagnosticReport", "operation", "POST", path, interact, name)


def _searching(resource: str) -> tuple[Route, Route]:
    search = look_up(resource)
    return (
        Route(resource, "search-type", "GET", resource, search),
        Route(resource, "search-type", "POST", f"{resource}/_search", search),
    )


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
    _operation("infill", operations.infill),
    _operation("sign", operations.sign),
    _reading("ServiceRequest", read.read_service_request),
    Route("ServiceRequest", "vread", "GET", "ServiceRequest/{id}/_history/{version}", read.vread_service_request),
    Route("ServiceRequest", "create", "POST", "ServiceRequest", create_service_request),
    *_searching("ServiceRequest"),
    _reading("ImagingStudy", read.read_imaging_study),
    Route("ImagingStudy", "create", "POST", "ImagingStudy", create_imaging_study),
    *_searching("ImagingStudy"),
    _reading("Patient", read.read_patient),
    Route("Patient", "vread", "GET", "Patient/{id}/_history/{version}", read.vread_patient),
    *_searching("Patient"),
    _reading("Provenance", read.read_provenance),
    *_searching("Provenance"),
    _reading("Device", read.read_device),
    _reading("Task", read.read_task),
    *_searching("Task"),
    _reading("AuditEvent", read.read_audit_event),
    _reading("Subscription", subscribe.read_subscription),
    Route("Subscription", "create", "POST", "Subscription", subscribe.create_subscription),
    Route("Subscription", "delete", "DELETE", "Subscription/{id}", subscribe.delete_subscription),
    Route("Subscription", "operation", "GET", "Subscription/{id}/$status", subscribe.status_of_subscription, "status"),
    Route("Subscription", "operation", "POST", "Subscription/{id}/$status", subscribe.status_of_subscription, "status"),
    _reading("OperationDefinition", operations.read_operation_definition),
)

DOCUMENTATION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DiagnosticReport": "A report, drafts included: unsigned words of the model are labelled AIAST. Every version "
        "is kept. `$infill` asks the model for what stands between locks, `$sign` makes a version final.",
        "ServiceRequest": "An order, as the RIS last stated it. Creating one places an order like one by HL7 v2.",
        "ImagingStudy": "A study that an order names; its id is the StudyInstanceUID. Creating one tells which study "
        "belongs to an order. Images are in the archive.",
        "Patient": "A patient, as orders describe him or her.",
        "Provenance": "Who and what made a version of a report; the id is `<report id>.<version>`.",
        "Device": "A model that wrote words of reports; the id begins its digest (and its adapter's).",
        "Task": "A job: one request to the model. Needs the right to read jobs, which the role ehr lacks.",
        "Subscription": "A system that is told of new versions of reports (rest-hook, id-only, R4 backport).",
        "OperationDefinition": "What `$infill` and `$sign` take and give.",
        "AuditEvent": "An event of the audit trail. Needs the right to read the trail, which the role ehr lacks.",
    }
)
"""What each resource is, in words."""
