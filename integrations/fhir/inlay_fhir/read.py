"""Interaction `read`: the newest version of a resource by its id, and `vread` for reports.

https://hl7.org/fhir/R4/http.html#read, https://hl7.org/fhir/R4/http.html#vread
"""

from __future__ import annotations

from dataclasses import replace

from inlay_fhir.elements import json_bytes
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.audit_event import audit_event
from inlay_fhir.mapping.core import Detail, Kind, NotFound, ReportRow, ReportSearch, Sort, Standing, Tag
from inlay_fhir.mapping.device import device, digest_prefix
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.imaging_study import imaging_study
from inlay_fhir.mapping.patient import patient_resource
from inlay_fhir.mapping.provenance import parse_provenance_id, provenance
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.mapping.task import task
from inlay_fhir.outcome import Refusal
from inlay_fhir.store import Access


def report_access(row: ReportRow, interaction: str, resource: str = "DiagnosticReport") -> Access:
    """That a version of a report was shown, as `resource`."""
    report = row.report
    detail = _detail(interaction, resource, row.order.patient.id)
    return Access(Tag.READER_REPORT_READ, (Kind.REPORT, report.id), report.id, report.version, detail=detail)


def access_of(
    tag: Tag,
    kind: Kind,
    identity: str,
    resource: str,
    report_id: str | None = None,
    patient_id: str | None = None,
    interaction: str = "read",
) -> Access:
    """That something else than a report was shown."""
    return Access(tag, (kind, identity), report_id, detail=_detail(interaction, resource, patient_id))


def _detail(interaction: str, resource: str, patient_id: str | None) -> dict[str, Detail]:
    """What the trail keeps of a reading; the patient by Inlay's own id, which says nothing outside of Inlay."""
    known = {"patient": patient_id} if patient_id else {}
    return {"interface": "fhir", "interaction": interaction, "resource": resource, **known}


def read_diagnostic_report(exchange: Exchange) -> Answer:
    """A report. While it stands as it did when it was read last, so do the bytes of the answer."""
    again = exchange.read_again()
    if again is not None:
        return again
    row = exchange.store.report(exchange.actor, exchange.identity)
    answer = _report(exchange, row, "read")
    answer = replace(answer, whole=json_bytes(answer.resource))
    exchange.kept.keep(row.report.id, (Standing.of(row), answer))
    return answer


def vread_diagnostic_report(exchange: Exchange) -> Answer:
    """One version of a report. What the order says is as it stands now."""
    version = exchange.variables["version"]
    if not version.isascii() or not version.isdecimal() or len(version) > 9:
        raise Refusal(404, "not-found", "No such version of the report.")
    return _report(exchange, exchange.store.report(exchange.actor, exchange.identity, int(version)), "vread")


def _report(exchange: Exchange, row: ReportRow, interaction: str) -> Answer:
    resource = diagnostic_report(exchange.site, row, exchange.jobs_of(row.report))
    access = report_access(row, interaction)
    return Answer(resource, (access,), str(row.report.version), row.report.updated_at, settled=row.is_settled)


def read_provenance(exchange: Exchange) -> Answer:
    """How a version of a report came about."""
    report_id, version = parse_provenance_id(exchange.identity)
    row = exchange.store.report(exchange.actor, report_id, version)
    resource = provenance(row.report, exchange.jobs_of(row.report))
    return Answer(resource, (report_access(row, "read", "Provenance"),), None, row.report.updated_at)


def read_service_request(exchange: Exchange) -> Answer:
    """An order."""
    order = exchange.store.order(exchange.actor, exchange.identity)
    access = access_of(Tag.READER_ORDER_READ, Kind.ORDER, order.id, "ServiceRequest", None, order.patient.id)
    return Answer(service_request(exchange.site, order), (access,), str(order.version), order.updated_at)


def read_patient(exchange: Exchange) -> Answer:
    """A patient."""
    patient = exchange.store.patient(exchange.actor, exchange.identity)
    access = access_of(Tag.READER_PATIENT_READ, Kind.PATIENT, patient.id, "Patient", None, patient.id)
    return Answer(patient_resource(exchange.site, patient), (access,), str(patient.version), patient.updated_at)


def vread_service_request(exchange: Exchange) -> Answer:
    """An order by its version, while that is the newest: older ones are not kept."""
    return _if_newest(read_service_request(exchange), exchange)


def vread_patient(exchange: Exchange) -> Answer:
    """A patient by the version, while that is the newest: older ones are not kept."""
    return _if_newest(read_patient(exchange), exchange)


def _if_newest(answer: Answer, exchange: Exchange) -> Answer:
    if answer.version != exchange.variables["version"]:
        raise NotFound("unknown-version", "That version is not kept.", "meta.versionId")
    return answer


def read_imaging_study(exchange: Exchange) -> Answer:
    """A study, from the orders that name it and their reports. A study that no order names is not known here."""
    uid = exchange.identity
    search = ReportSearch(study_instance_uids=(uid,))
    rows = exchange.store.search_reports(exchange.actor, search, Sort.OLDEST, 0, exchange.site.max_count).rows
    if not rows:
        raise NotFound("unknown-study", "No order names such a study.", "ImagingStudy.id")
    accesses = tuple(
        access_of(Tag.READER_ORDER_READ, Kind.ORDER, row.order.id, "ImagingStudy", row.report.id, row.order.patient.id)
        for row in rows
    )
    return Answer(imaging_study(exchange.site, uid, rows), accesses)


def read_task(exchange: Exchange) -> Answer:
    """A job; the words that it offers are a report's, and shown to those alone who may read reports."""
    job = exchange.store.job(exchange.actor, exchange.identity)
    scopes = exchange.request.scopes
    shown = task(job, offers=scopes is None or scopes.allow("DiagnosticReport", "r"))
    return Answer(shown, (access_of(Tag.READER_JOB_READ, Kind.JOB, job.id, "Task", job.report_id),))


def read_audit_event(exchange: Exchange) -> Answer:
    """An event of the trail."""
    event = exchange.store.audit_event(exchange.actor, exchange.identity)
    access = access_of(Tag.READER_AUDIT_READ, Kind.AUDIT, event.id, "AuditEvent", event.report_id)
    return Answer(audit_event(event), (access,), None, event.at)


def read_device(exchange: Exchange) -> Answer:
    """A model. It says nothing of any patient, so the trail does not hear of it."""
    run = exchange.store.run_with_model(exchange.actor, digest_prefix(exchange.identity))
    return Answer(device(exchange.identity, run))
