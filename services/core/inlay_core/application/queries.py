"""Reading: the worklist, reports and their versions, jobs, orders, patients and trails. Nothing here changes anything.

Who read what is recorded by `record_access`, which edges call after they answered (and when they refused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from inlay_core.application.ports import (
    Attendance,
    Page,
    ReportRow,
    ReportSearch,
    Sort,
    Standing,
    StepProgress,
    UnitOfWork,
)
from inlay_core.application.transaction import load_job, load_order, load_report
from inlay_core.domain.audit import AuditEvent, Detail, Kind, Outcome, Tag, event_of
from inlay_core.domain.errors import NotFound
from inlay_core.domain.identity import Actor, ActorKind, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import Job, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.patient import Patient
from inlay_core.domain.report import Report

COUNTED: Final = 1_000
"""Reports of one status are counted so far; the worklist is asked every second, and years of signed ones are many."""


def worklist(
    uow: UnitOfWork, actor: Actor, *, statuses: Sequence[Status] | None = None, offset: int = 0, limit: int = 50
) -> Page:
    """The reports to be read: STAT first, then the oldest order."""
    search = ReportSearch(statuses=None if statuses is None else tuple(statuses))
    return search_reports(uow, actor, search, sort=Sort.WORKLIST, offset=offset, limit=limit)


def search_reports(
    uow: UnitOfWork, actor: Actor, search: ReportSearch, *, sort: Sort = Sort.NEWEST, offset: int = 0, limit: int = 50
) -> Page:
    """One page of the newest versions that fit the search, with their orders."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        return uow.reports.search(search, sort, offset, limit)


def attendance(uow: UnitOfWork, actor: Actor, page: Page) -> Attendance:
    """How many reports stand where (`COUNTED` for more), and which person reads those of the page in review."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        opened = [row.report.id for row in page.rows if row.report.status is Status.IN_REVIEW]
        openers = uow.reports.openers(opened) if opened else {}
        people = {report_id: who for report_id, who in openers.items() if who.kind is ActorKind.PERSON}
        return Attendance(uow.reports.counts(COUNTED), people)


def read_report(uow: UnitOfWork, actor: Actor, report_id: str, version: int | None = None) -> ReportRow:
    """The newest version of a report, or version `version` of it, with its order. Raises NotFound."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        report = load_report(uow, report_id) if version is None else uow.reports.version(report_id, version)
        if report is None:
            raise NotFound("unknown-version", "No such version of the report.", "report.version")
        return ReportRow(report, load_order(uow, report.order_id))


def report_versions(uow: UnitOfWork, actor: Actor, report_id: str) -> Sequence[Report]:
    """All versions of a report, the first one first. Raises NotFound."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        load_report(uow, report_id)
        return uow.reports.versions(report_id)


def report_history(
    uow: UnitOfWork, actor: Actor, since: datetime | None = None, *, offset: int = 0, limit: int = 50
) -> Page:
    """All versions of all reports, the newest first, with their orders as they stand now."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        return uow.reports.history(since, offset, limit)


def read_job(uow: UnitOfWork, actor: Actor, job_id: str) -> Job:
    """A job. Raises NotFound."""
    require(actor, Permission.READ_JOBS)
    with uow:
        return load_job(uow, job_id)


def canvases_of_job(uow: UnitOfWork, actor: Actor, job_id: str) -> Sequence[StepProgress]:
    """What was shown while a job ran whose result was taken in, step by step. Raises NotFound."""
    require(actor, Permission.READ_JOBS)
    with uow:
        load_job(uow, job_id)
        return uow.progress.kept(job_id)


def queue_position(uow: UnitOfWork, clock: Clock, actor: Actor, job: Job) -> int | None:
    """Which of the queued jobs it is, 1 being the next one by priority and age; None for one that is not queued."""
    require(actor, Permission.READ_JOBS)
    if job.state is not JobState.QUEUED:
        return None
    with uow:
        return uow.jobs.ahead(job, clock()) + 1


def jobs_of_report(uow: UnitOfWork, actor: Actor, report_id: str) -> Sequence[Job]:
    """All jobs of a report, the oldest first, with their run records."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        return uow.jobs.of_report(report_id)


def run_with_model(uow: UnitOfWork, actor: Actor, digest_prefix: str) -> Mapping[str, Any]:
    """A run record of the model whose digest (lower-case hex) begins so. Raises NotFound when no job used it."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        job = uow.jobs.with_model(digest_prefix)
        if job is None or job.run_record is None:
            raise NotFound("unknown-model", "No job used such a model.", "model.digest")
        return job.run_record


def trail_of_report(
    uow: UnitOfWork, actor: Actor, report_id: str, *, offset: int = 0, limit: int = 1000
) -> Sequence[AuditEvent]:
    """What happened to a report, the oldest first. Raises NotFound."""
    require(actor, Permission.READ_AUDIT)
    with uow:
        load_report(uow, report_id)
        return uow.audit.of_report(report_id, offset, limit)


def read_audit_event(uow: UnitOfWork, actor: Actor, event_id: str) -> AuditEvent:
    """One event of the trail. Raises NotFound."""
    require(actor, Permission.READ_AUDIT)
    with uow:
        event = uow.audit.get(event_id)
        if event is None:
            raise NotFound("unknown-event", "No such audit event.", "audit.id")
        return event


def read_order(uow: UnitOfWork, actor: Actor, order_id: str) -> Order:
    """An order with its patient. Raises NotFound."""
    require(actor, Permission.READ_ORDERS)
    with uow:
        return load_order(uow, order_id)


def read_patient(uow: UnitOfWork, actor: Actor, patient_id: str) -> Patient:
    """A patient. Raises NotFound."""
    require(actor, Permission.READ_ORDERS)
    with uow:
        patient = uow.patients.get(patient_id)
        if patient is None:
            raise NotFound("unknown-patient", "No such patient.", "patient.id")
        return patient


def orders_with_identifier(uow: UnitOfWork, actor: Actor, number: str, assigner: str | None = None) -> Sequence[Order]:
    """The orders with that placer, filler or accession number, of one assigner or of any."""
    require(actor, Permission.READ_ORDERS)
    with uow:
        return uow.orders.with_identifier(assigner, number)


def patients_by_identifier(
    uow: UnitOfWork, actor: Actor, identifier: str, assigner: str | None = None
) -> Sequence[Patient]:
    """The patients with that identifier, of one assigner or of any."""
    require(actor, Permission.READ_ORDERS)
    with uow:
        return uow.patients.find(assigner, identifier)


def record_access(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    tag: Tag,
    *,
    subject: tuple[Kind, str],
    report_id: str | None = None,
    version: int | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    detail: Mapping[str, Detail] | None = None,
    request_id: str | None = None,
) -> None:
    """Record that somebody read something, or was refused; `uow` is a writing one."""
    event = event_of(
        new_id(),
        clock(),
        actor,
        tag,
        subject,
        report_id=report_id,
        version=version,
        outcome=outcome,
        detail=detail,
        request_id=request_id,
    )
    record_accesses(uow, [event])


def record_accesses(uow: UnitOfWork, events: Sequence[AuditEvent]) -> None:
    """Record what several read, or were refused, in one transaction: all of it is in the trail, or nothing is."""
    with uow:
        for event in events:
            uow.audit.record(event)
        uow.commit()


def record_while(uow: UnitOfWork, readings: Sequence[tuple[AuditEvent, Standing]]) -> frozenset[str]:
    """Record readings of reports that were read before, as far as they still stand so; return the ids of those events.

    For whoever has still what was shown, and may show it to who reads: that it is recorded tells that it holds.
    """
    with uow:
        recorded = uow.audit.record_while(readings)
        uow.commit()
        return recorded
