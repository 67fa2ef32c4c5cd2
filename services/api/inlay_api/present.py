"""The domain as the JSON of the workstation API: plain functions, in one place for answers, streams and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from inlay_core.application.ports import Attendance, OutboxItem, Page, ReportRow, Switch
from inlay_core.domain.audit import AuditEvent
from inlay_core.domain.checks import Check
from inlay_core.domain.errors import DomainError
from inlay_core.domain.fragment import Fragment, Section
from inlay_core.domain.infill import InfillRequest, KeptText, LockDigest, resolve
from inlay_core.domain.job import Job, JobKind, JobState, Reason
from inlay_core.domain.labels import banner
from inlay_core.domain.order import Order
from inlay_core.domain.prior import Examination
from inlay_core.domain.report import Author, Report, Signature
from inlay_core.domain.switch import Scope

Body = dict[str, Any]


def report_body(row: ReportRow, jobs: Sequence[Job]) -> Body:
    """One version of a report with its text, its order and its jobs."""
    report = row.report
    return {
        **version_body(report),
        "banner": banner(report, jobs),
        "sections": [section_body(section) for section in report.sections],
        "order": order_body(row.order),
        "jobs": [job_body(job) for job in jobs],
        "run_records": [
            {"job_id": job.id, "kind": str(job.kind), "record": dict(job.run_record)}
            for job in jobs
            if job.run_record is not None
        ],
        "created_at": _moment(report.created_at),
    }


def version_body(report: Report) -> Body:
    """What made a version, without its text."""
    return {
        "id": report.id,
        "version": report.version,
        "status": str(report.status),
        "event": str(report.event) if report.event else None,
        "author": {"id": report.author.id, "name": report.author.name, "kind": str(report.author.kind)},
        "job_id": report.job_id,
        "reason": _reason(report.reason),
        "signature": _signature(report.signature),
        "updated_at": _moment(report.updated_at),
    }


def section_body(section: Section) -> Body:
    """A section; its text is exactly the concatenation of its fragments."""
    return {
        "name": section.name,
        "fragments": [fragment_body(fragment) for fragment in section.fragments],
        "gaps": [{"at": gap.at, "hint": gap.hint} for gap in section.gaps],
    }


def fragment_body(fragment: Fragment) -> Body:
    """A fragment, its text byte for byte."""
    return {
        "id": fragment.id,
        "text": fragment.text,
        "origin": str(fragment.origin),
        "locked": fragment.locked,
        "warnings": [
            {"code": one.code, "message": one.message, "start": one.start, "end": one.end} for one in fragment.warnings
        ],
        "job_id": fragment.job_id,
    }


def row_body(row: ReportRow, opener: Author | None = None) -> Body:
    """A row of the worklist: no report text. `opener` is who reads it."""
    return {
        "id": row.report.id,
        "version": row.report.version,
        "status": str(row.report.status),
        "has_model_text": row.report.has_model_text,
        "opened_by": None if opener is None else {"id": opener.id, "name": opener.name},
        "order": order_body(row.order),
        "created_at": _moment(row.report.created_at),
        "updated_at": _moment(row.report.updated_at),
    }


def page_body(page: Page, attendance: Attendance) -> Body:
    """One page of the worklist or of a search."""
    return {
        "reports": [row_body(row, attendance.openers.get(row.report.id)) for row in page.rows],
        "counts": {str(status): count for status, count in sorted(attendance.counts.items())},
        "total": page.total,
        "offset": page.offset,
        "limit": page.limit,
    }


def order_body(order: Order) -> Body:
    """The order that a report answers, without its free text: that is the section Indication."""
    patient = order.patient
    return {
        "id": order.id,
        "assigner": order.assigner,
        "placer_number": order.placer_number,
        "filler_number": order.filler_number,
        "accession_number": order.accession_number,
        "accession_assigner": order.accession_assigner,
        "study_instance_uid": order.study_instance_uid,
        "modality": order.modality,
        "priority": str(order.priority),
        "status": str(order.status),
        "procedure": {"code": order.procedure.code, "system": order.procedure.system, "text": order.procedure.text},
        "scheduled_at": _moment(order.scheduled_at),
        "patient": {
            "id": patient.id,
            "assigner": patient.assigner,
            "identifier": patient.identifier,
            "name": patient.name.text if patient.name else None,
            "birth_date": _day(patient.birth_date),
            "sex": patient.sex,
        },
    }


def job_body(job: Job) -> Body:
    """A job without what was asked for: that may hold text of the report."""
    return {
        "id": job.id,
        "report_id": job.report_id,
        "kind": str(job.kind),
        "state": str(job.state),
        "base_version": job.base_version,
        "priority": str(job.priority),
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "reason": _reason(job.reason),
        "requested_by": job.requested_by,
        "created_at": _moment(job.created_at),
        "started_at": _moment(job.started_at),
        "finished_at": _moment(job.finished_at),
    }


def job_detail(job: Job, versions: Sequence[Report], queue_position: int | None = None) -> Body:
    """A job with its run record, and for an applied one the version that it made and a digest per locked span."""
    made = next((version for version in versions if version.job_id == job.id), None)
    base = next((version for version in versions if version.version == job.base_version), None)
    digests = lock_digests(job, base, made) if base and made else ()
    return {
        **job_body(job),
        "queue_position": queue_position,
        "run_record": dict(job.run_record) if job.run_record is not None else None,
        "result_version": made.version if made else None,
        "alternatives": [dict(choice) for choice in job.alternatives],
        "locks": [
            {"section": one.section, "item": one.item, "fragment_id": one.fragment_id, "sha256": one.sha256}
            for one in digests
        ],
    }


def lock_digests(job: Job, base: Report, made: Report) -> tuple[LockDigest, ...]:
    """SHA-256 of each locked span that the request named, of the text as it stands in the version that the job made."""
    if job.kind is not JobKind.INFILL or job.state is not JobState.SUCCEEDED:
        return ()
    try:
        asked = resolve(InfillRequest.from_json(job.request), base.sections, imported_text_allowed=True)
    except DomainError:
        return ()
    digests: list[LockDigest] = []
    for part in asked:
        section = made.section(part.name)
        if part.context or section is None:
            continue
        items = [number for number, item in enumerate(part.items) if isinstance(item, KeptText)]
        locked = [fragment for fragment in section.fragments if fragment.locked]
        digests += [
            LockDigest(part.name, number, fragment.id, fragment.digest)
            for number, fragment in zip(items, locked, strict=True)
        ]
    return tuple(digests)


def prior_body(one: Examination) -> Body:
    """An earlier examination, with the text of its report where there is one."""
    return {
        "id": one.prior_id,
        "report_id": one.report_id,
        "sources": [str(source) for source in one.sources],
        "status": str(one.status) if one.status else None,
        "study_instance_uid": one.study_instance_uid or None,
        "accession_number": one.accession_number or None,
        "procedure": one.description or None,
        "modality": next(iter(one.modalities), None),
        "modalities": list(one.modalities),
        "performed_at": _moment(one.performed_at.astimezone(UTC) if one.performed_at else None),
        "reported_at": _moment(one.reported_at),
        "sections": [{"code": each.code, "title": each.title, "text": each.text} for each in one.sections],
    }


def delivery_body(item: OutboxItem) -> Body:
    """A delivery to another system: ids, codes and counts."""
    return {
        "id": item.id,
        "destination": item.destination,
        "report_id": item.payload.get("report_id"),
        "message_id": item.payload.get("message_id"),
        "version": item.payload.get("version"),
        "status": item.payload.get("status"),
        "control_id": item.control_id,
        "state": str(item.state),
        "attempts": item.attempts,
        "last_error": item.last_error,
        "created_at": _moment(item.created_at),
    }


def check_body(check: Check) -> Body:
    """Something to look at, and where: characters [start, end) of a fragment, or a section as a whole."""
    return {
        "code": check.code,
        "severity": str(check.severity),
        "message": check.message,
        "section": check.section,
        "fragment_id": check.fragment_id,
        "start": check.start,
        "end": check.end,
    }


def switch_body(switch: Switch) -> Body:
    """A switch: what it covers, whether that is stopped, and who set it when."""
    scope = Scope.named(switch.name)
    return {
        "name": switch.name,
        "on": switch.on,
        "use": scope.use,
        "site": scope.site,
        "modality": scope.modality,
        "model": scope.model,
        "changed_at": _moment(switch.changed_at),
        "changed_by": switch.changed_by,
    }


def event_body(event: AuditEvent) -> Body:
    """An event of the trail."""
    return {
        "id": event.id,
        "at": _moment(event.at),
        "tag": str(event.tag),
        "actor": {
            "id": event.actor_id,
            "name": event.actor_name,
            "kind": str(event.actor_kind),
            "roles": [str(role) for role in event.roles],
        },
        "subject": {"kind": str(event.subject_kind), "id": event.subject_id, "version": event.version},
        "outcome": str(event.outcome),
        "detail": dict(event.detail),
        "request_id": event.request_id,
    }


def is_settled(row: ReportRow, jobs: Iterable[Job]) -> bool:
    """Whether the answer for this version is still what it was when the version was made.

    The ETag is the version; jobs and orders move without a new one, and then the version alone proves nothing.
    """
    made = row.report.updated_at
    moments = [job.created_at for job in jobs] + [job.finished_at for job in jobs]
    return row.is_settled and all(moment is not None and moment <= made for moment in moments)


def _reason(reason: Reason | None) -> Mapping[str, str] | None:
    return None if reason is None else {"code": reason.code, "text": reason.text}


def _signature(signature: Signature | None) -> Mapping[str, Any] | None:
    if signature is None:
        return None
    return {
        "signer": {"id": signature.signer_id, "name": signature.signer_name},
        "signed_at": _moment(signature.signed_at),
        "version": signature.version,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
