"""How drafts and infills are made: claimed by lease and fence, and applied only to the version they started from.

A late result never overwrites anything: it ends as superseded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from inlay_core.application.comparing import comparisons
from inlay_core.application.patients import records_of
from inlay_core.application.ports import (
    DEFAULT_SITE,
    Applied,
    Claimed,
    Generated,
    ImageWanted,
    Pulse,
    Site,
    UnitOfWork,
    Waiting,
)
from inlay_core.application.publishing import publish_report, wake_workers
from inlay_core.application.switching import allowance
from inlay_core.application.transaction import Act, load_job, load_order, load_report, retried
from inlay_core.domain.audit import Detail, Kind, Tag
from inlay_core.domain.edits import imported_comparison, imported_indication
from inlay_core.domain.errors import Conflict, DomainError, Invalid, Stale, Unavailable
from inlay_core.domain.fragment import in_order
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.infill import InfillRequest, LockDigest, ResolvedSection, draft_sections, resolve, splice
from inlay_core.domain.job import Job, JobKind, JobState, Reason
from inlay_core.domain.lifecycle import REVIEWABLE_STATUSES, Event, Status, allowed
from inlay_core.domain.matching import PatientShown, contradictions
from inlay_core.domain.order import Order, Priority
from inlay_core.domain.prior import Comparison, comparison_of
from inlay_core.domain.report import Report
from inlay_core.domain.switch import UNKNOWN, Writer

_SUPERSEDED: Final = Reason("superseded", "The report has a newer version.")
_CANCELLED: Final = Reason("job-cancelled", "The job was cancelled.")
_PARKED: Final = Reason("too-many-attempts", "Every attempt ended without a result.")
_LEASE_OVER: Final = Reason("lease-expired", "The worker fell silent.")
# After a failure the same input may fail again at once; a short pause lets the cause (memory, a peer) pass.
_FIRST_BACKOFF: Final = timedelta(seconds=2)
_LONGEST_BACKOFF: Final = timedelta(minutes=5)


# ---------------------------------------------------------------------------------------------- the worker


@retried
def claim_next(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    *,
    site: Site = DEFAULT_SITE,
    held_reports: Sequence[str] = (),
    writer: Writer = UNKNOWN,
) -> Claimed | None:
    """Take the best queued job: STAT first, then reports whose study the worker holds, then age. None when idle.

    `writer` is the model that would write. Jobs that can no longer matter are finished on the way.
    """
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        lease_until = act.now + timedelta(seconds=site.lease_seconds)
        allowed = allowance(uow, site).for_writer(writer)
        claimed = None
        while claimed is None:
            job = uow.jobs.claim(act.now, lease_until, allowed, held_reports)
            if job is None:
                break
            claimed = _prepared(act, job)
        uow.commit()
        return claimed


@retried
def start_generation(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    job_id: str,
    *,
    fence: int,
    studied_at: datetime | None = None,
    shown: Sequence[PatientShown] = (),
    site: Site = DEFAULT_SITE,
) -> Job:
    """The images are here: the report is being drafted from now on, and the result applies to this version.

    `studied_at` is when the study was made, as its images say; it is kept with the order. `shown` are the patients that
    the headers of the images name: one that contradicts the order's patient parks the job (`Site.patient_check`).
    Return the job; its state tells whether to go on (`running`) or to stop. Raises Stale when the fence moved.
    """
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        job = _held(uow, job_id, fence)
        report = load_report(uow, job.report_id)
        ended = _ended(act, job, report) or _refused_patient(act, job, report, shown)
        if ended is not None:
            uow.commit()
            return ended
        job = replace(job, started_at=job.started_at or act.now)
        _keep_study_time(act, report, studied_at)
        if report.status is Status.REGISTERED:
            started = report.start(actor, act.now)
            uow.reports.save(started)
            act.record(Tag.WORKER_REPORT_DRAFTING, started, detail={"job": job.id})
            job = replace(job, base_version=started.version)
        _save(act, job, Tag.WORKER_JOB_CLAIMED, {"base_version": job.base_version})
        uow.commit()
        return job


@retried
def heartbeat(
    uow: UnitOfWork,
    clock: Clock,
    job_id: str,
    *,
    fence: int,
    site: Site = DEFAULT_SITE,
    writer: Writer = UNKNOWN,
) -> Pulse:
    """Extend the lease and hear whether to stop between two denoising steps. Raises Stale when the fence moved."""
    with uow:
        job = uow.jobs.renew(job_id, fence, clock() + timedelta(seconds=site.lease_seconds))
        report = load_report(uow, job.report_id)
        stopped = _is_stopped(uow, job, site, writer)
        uow.commit()
    if job.cancel_requested:
        return Pulse(stop=True, reason="cancelled")
    if report.version != job.base_version:
        return Pulse(stop=True, reason="superseded")
    return Pulse(stop=True, reason="generation-off") if stopped else Pulse(stop=False)


def glance(uow: UnitOfWork, job_id: str, *, fence: int, site: Site = DEFAULT_SITE, writer: Writer = UNKNOWN) -> Pulse:
    """Hear whether to stop without extending the lease: what cannot wait for the next heartbeat.

    Raises Stale when the fence moved. `uow` only reads.
    """
    with uow:
        job = uow.jobs.get(job_id)
        if job is None:
            raise Stale("fence-moved", "The job is gone.", "job.fence")
        job.check_fence(fence)
        if job.cancel_requested:
            return Pulse(stop=True, reason="cancelled")
        return Pulse(stop=True, reason="generation-off") if _is_stopped(uow, job, site, writer) else Pulse(stop=False)


@retried
def apply_result(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    job_id: str,
    *,
    fence: int,
    generated: Generated,
    site: Site = DEFAULT_SITE,
) -> Applied:
    """Put the model's text into the report, if it is still at the version that the job started from.

    Otherwise the job ends as superseded or cancelled and the report is untouched. Raises Stale when the fence moved,
    Fault when the result does not fit the request.
    """
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        job = _held(uow, job_id, fence)
        before = load_report(uow, job.report_id)
        ended = _ended(act, job, before)
        if ended is not None:
            uow.commit()
            return Applied(ended)
        if not allowance(uow, site).allows(job.kind, load_order(uow, before.order_id), _writer_of(generated)):
            released = _released(act, job)
            uow.commit()
            return Applied(released)
        after, digests = _with_result(act, job, before, generated)
        uow.reports.save(after)
        tag = Tag.WORKER_REPORT_DRAFTED if job.kind is JobKind.DRAFT else Tag.WORKER_REPORT_INFILLED
        act.record(tag, after, detail={"job": job.id, "locks": len(digests)})
        done = replace(
            job.finish(JobState.SUCCEEDED, act.now),
            run_record=dict(generated.run_record),
            alternatives=tuple(choice.to_json() for choice in generated.alternatives),
        )
        _save(act, done, Tag.WORKER_JOB_SUCCEEDED)
        if generated.canvases:
            uow.progress.keep(done.id, generated.canvases)
        publish_report(act, after)
        uow.commit()
        return Applied(done, after, digests)


@retried
def images_missing(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, job_id: str, *, fence: int) -> Job:
    """Put the job aside without holding the worker; the sweeper queues it when the images arrive."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        job = _held(uow, job_id, fence)
        ended = _ended(act, job, load_report(uow, job.report_id))
        if ended is None:
            ended = replace(job.to(JobState.WAITING_IMAGES), attempts=job.attempts - 1, lease_until=None)
            _save(act, ended, Tag.WORKER_JOB_WAITING)
        uow.commit()
        return ended


@retried
def fail_job(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    job_id: str,
    *,
    fence: int,
    reason: Reason,
    retry: bool,
    site: Site = DEFAULT_SITE,
) -> Job:
    """The attempt failed: queue the job again after a pause, or park it (and fail its report) with the reason.

    `reason` is chosen by the worker from its own texts; it never quotes data.
    """
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        job = _held(uow, job_id, fence)
        report = load_report(uow, job.report_id)
        ended = _ended(act, job, report)
        if ended is None and retry and job.attempts < site.max_attempts:
            ended = _requeued(act, job, reason, Tag.WORKER_JOB_RETRIED, act.now + backoff(job.attempts))
        elif ended is None:
            ended = _parked(act, job, report, reason, Tag.WORKER_JOB_FAILED)
        uow.commit()
        return ended


@retried
def stop_job(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, job_id: str, *, fence: int) -> Job:
    """The worker stopped between two steps: the job ends as cancelled or superseded, or goes back to the queue."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        job = _held(uow, job_id, fence)
        after = _ended(act, job, load_report(uow, job.report_id)) or _released(act, job)
        uow.commit()
        return after


# ---------------------------------------------------------------------------------------------- clinicians


@retried
def request_infill(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    report_id: str,
    *,
    expected_version: int,
    request: InfillRequest,
    site: Site = DEFAULT_SITE,
) -> Job:
    """Ask the model to fill the gaps of the version that the clinician sees. An older open request is superseded.

    Raises Stale for another version, Conflict when the report cannot be rewritten, Unavailable when infill is
    switched off, Invalid or Locked when the request does not fit the text.
    """
    require(actor, Permission.REQUEST_GENERATION)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        report = load_report(uow, report_id)
        order = load_order(uow, report.order_id)
        if not allowance(uow, site).allows(JobKind.INFILL, order):
            raise Unavailable("generation-off", "Infill is switched off.")
        report.check_version(expected_version)
        if report.status not in REVIEWABLE_STATUSES:
            raise Conflict("wrong-status", f"A report that is {report.status} takes no infill.", "report.status")
        resolve(request, report.sections, imported_text_allowed=site.generation.imported_text_allowed)
        retire_jobs(act, report_id, Tag.CLINICIAN_JOB_CANCELLED)
        # Somebody sits in front of the screen: an infill never waits behind routine drafts.
        priority = Priority.STAT if order.priority is Priority.STAT else Priority.URGENT
        job = Job(
            new_id(),
            report.id,
            JobKind.INFILL,
            report.version,
            priority,
            act.now,
            request=request.to_json(),
            requested_by=actor.id,
            traceparent=act.trace,
        )
        uow.jobs.add(job)
        act.record(Tag.CLINICIAN_JOB_QUEUED, job, detail={"kind": job.kind, "base_version": job.base_version})
        wake_workers(act, job)
        uow.commit()
        return job


@retried
def retry_draft(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, report_id: str, *, expected_version: int
) -> Job:
    """Ask again for a draft that failed."""
    require(actor, Permission.REQUEST_GENERATION)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        again = report.retry(actor, act.now)
        uow.reports.save(again)
        act.record(Tag.CLINICIAN_REPORT_RETRIED, again)
        priority = load_order(uow, report.order_id).priority
        job = Job(new_id(), report.id, JobKind.DRAFT, again.version, priority, act.now, requested_by=actor.id)
        job = replace(job, traceparent=act.trace)
        uow.jobs.add(job)
        act.record(Tag.CLINICIAN_JOB_QUEUED, job, detail={"kind": job.kind, "base_version": job.base_version})
        wake_workers(act, job)
        uow.commit()
        return job


@retried
def cancel_job(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, job_id: str) -> Job:
    """Cancel an open job: at once while it waits, between two denoising steps while it runs. It leaves no draft.

    A cancelled draft fails its report, so that it can be asked for again. Raises Conflict for a job that has ended.
    """
    require(actor, Permission.CANCEL_JOBS)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        job = load_job(uow, job_id)
        if not job.state.is_open:
            raise Conflict("job-ended", f"The job is {job.state}.", "job.state")
        after = replace(job, cancel_requested=True, reason=_CANCELLED)
        if job.state is not JobState.RUNNING:
            after = replace(job.finish(JobState.CANCELLED, act.now, _CANCELLED), cancel_requested=True)
        _save(act, after, Tag.CLINICIAN_JOB_CANCELLED, {"state": after.state})
        _fail_report(act, job, load_report(uow, job.report_id), _CANCELLED, Tag.CLINICIAN_REPORT_FAILED)
        uow.commit()
        return after


def retire_jobs(act: Act, report_id: str, tag: Tag) -> None:
    """End the jobs of a report whose text moves on: waiting ones now, running ones when their worker asks next."""
    for job in act.uow.jobs.of_report(report_id):
        if job.state is JobState.RUNNING and not job.cancel_requested:
            _save(act, replace(job, cancel_requested=True, reason=_SUPERSEDED), tag, {"state": job.state})
        elif job.state in (JobState.QUEUED, JobState.WAITING_IMAGES):
            _save(act, job.finish(JobState.SUPERSEDED, act.now, _SUPERSEDED), tag, {"state": JobState.SUPERSEDED})


# ---------------------------------------------------------------------------------------------- sweepers


def jobs_waiting_for_images(
    uow: UnitOfWork, *, limit: int = 100, after: tuple[datetime, str] | None = None
) -> list[Waiting]:
    """Jobs whose images are missing, oldest first; go on `after` the (created_at, id) of the last one."""
    with uow:
        jobs = uow.jobs.in_state(JobState.WAITING_IMAGES, limit, after)
        return [Waiting(job, _wanted(uow, load_report(uow, job.report_id))) for job in jobs]


@retried
def images_arrived(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, job_id: str) -> Job:
    """The images of a waiting job are here: queue it. A job that waits no longer is left alone."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        job = load_job(uow, job_id)
        if job.state is JobState.WAITING_IMAGES:
            job = job.to(JobState.QUEUED)
            _save(act, job, Tag.SWEEPER_JOB_QUEUED)
            wake_workers(act, job)
        uow.commit()
        return job


@retried
def reclaim_expired(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, *, site: Site = DEFAULT_SITE, limit: int = 100
) -> list[Job]:
    """Take jobs back from workers that fell silent; what they write later is refused by the fence."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        taken = [_reclaimed(act, job) for job in uow.jobs.expired(act.now, limit)]
        uow.commit()
        return taken


@retried
def wake_forgotten(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    *,
    older_than_seconds: float,
    site: Site = DEFAULT_SITE,
    limit: int = 100,
) -> int:
    """Announce queued jobs again that nobody took: the broker may lose everything. Return how many."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        allowed = allowance(uow, site).for_writer(UNKNOWN)
        forgotten = uow.jobs.unwoken(act.now - timedelta(seconds=older_than_seconds), act.now, allowed, limit)
        for job in forgotten:
            wake_workers(act, job)
        uow.jobs.woken([job.id for job in forgotten], act.now)
        uow.commit()
        return len(forgotten)


def backoff(attempts: int) -> timedelta:
    """The pause before the next attempt: doubling, up to five minutes."""
    doublings: int = min(max(attempts - 1, 0), 20)
    return min(_FIRST_BACKOFF * (1 << doublings), _LONGEST_BACKOFF)


# ---------------------------------------------------------------------------------------------- steps


def _prepared(act: Act, job: Job) -> Claimed | None:
    """What the worker needs for a job that was just claimed; None when the job ended instead."""
    report = load_report(act.uow, job.report_id)
    if _ended(act, job, report) is not None:
        return None
    if job.attempts > act.site.max_attempts:
        _parked(act, job, report, _PARKED, Tag.WORKER_JOB_FAILED)
        return None
    allowed_text = act.site.generation.imported_text_allowed
    sections: tuple[ResolvedSection, ...] = ()
    if job.kind is JobKind.INFILL:
        try:
            request = InfillRequest.from_json(job.request)
            sections = resolve(request, report.sections, imported_text_allowed=allowed_text)
        except DomainError as error:
            _parked(act, job, report, Reason(error.code, error.message), Tag.WORKER_JOB_FAILED)
            return None
    act.record(Tag.WORKER_JOB_CLAIMED, job, detail={"fence": job.fence, "attempt": job.attempts})
    order = load_order(act.uow, report.order_id)
    return Claimed(
        job,
        _wanted(act.uow, report),
        sections,
        reason=order.reason if allowed_text else None,
        # An infill shows the report's own Comparison section, as its reader left it.
        comparisons=_compared(act, order) if allowed_text and job.kind is JobKind.DRAFT else (),
        site=order.assigner,
    )


def _compared(act: Act, order: Order) -> tuple[Comparison, ...]:
    found = (comparison_of(each, act.site.zone) for each in comparisons(act.uow, order))
    return tuple(each for each in found if each is not None)


def _is_stopped(uow: UnitOfWork, job: Job, site: Site, writer: Writer) -> bool:
    """Whether settings or switches keep this job from going on; a switch that only a newer version knows does."""
    try:
        allowed = allowance(uow, site).for_writer(writer)
    except Invalid:
        return True
    if job.kind not in allowed.kinds or not allowed.stops:
        # As a rule nothing is switched by site or modality, and the order need not be asked for.
        return job.kind not in allowed.kinds
    return not allowed.allows(job.kind, load_order(uow, load_report(uow, job.report_id).order_id), writer)


def _writer_of(generated: Generated) -> Writer:
    """The model that wrote, as the run record states it."""
    name, digest = (generated.run_record.get(key) for key in ("model", "model_digest"))
    return Writer(str(name or ""), str(digest or ""))


def _held(uow: UnitOfWork, job_id: str, fence: int) -> Job:
    job = load_job(uow, job_id)
    job.check_fence(fence)
    return job


def _ended(act: Act, job: Job, report: Report) -> Job | None:
    """The job's end, when it was cancelled or its report moved on; None while it still matters."""
    superseded = job.reason is not None and job.reason.code == _SUPERSEDED.code
    if job.cancel_requested and not superseded:
        ended = job.finish(JobState.CANCELLED, act.now, job.reason or _CANCELLED)
        _save(act, ended, Tag.WORKER_JOB_CANCELLED)
        return ended
    if job.cancel_requested or report.version != job.base_version:
        ended = job.finish(JobState.SUPERSEDED, act.now, _SUPERSEDED)
        _save(act, ended, Tag.WORKER_JOB_SUPERSEDED, {"base": job.base_version, "found": report.version})
        return ended
    return None


def _with_result(act: Act, job: Job, before: Report, generated: Generated) -> tuple[Report, tuple[LockDigest, ...]]:
    if job.kind is JobKind.DRAFT:
        order = load_order(act.uow, before.order_id)
        imported = (
            *imported_indication(order.reason, act.new_id),
            *imported_comparison(comparisons(act.uow, order), act.site.zone, act.new_id),
        )
        sections = draft_sections(generated.texts, act.new_id, job.id, imported)
        sections = in_order(sections, act.site.section_order)
        return before.take_draft(sections, job.id, act.actor, act.now), ()
    spliced = splice(
        InfillRequest.from_json(job.request),
        before.sections,
        generated.fills,
        new_id=act.new_id,
        job_id=job.id,
        disputes=generated.disputes,
    )
    sections = in_order(spliced.sections, act.site.section_order)
    return before.take_infill(sections, job.id, act.actor, act.now), spliced.digests


def _reclaimed(act: Act, job: Job) -> Job:
    report = load_report(act.uow, job.report_id)
    ended = _ended(act, job, report)
    if ended is not None:
        return ended
    if job.attempts >= act.site.max_attempts:
        return _parked(act, job, report, _PARKED, Tag.SWEEPER_JOB_FAILED)
    return _requeued(act, job, _LEASE_OVER, Tag.SWEEPER_JOB_RECLAIMED, None)


def _requeued(act: Act, job: Job, reason: Reason, tag: Tag, not_before: datetime | None) -> Job:
    queued = replace(job.to(JobState.QUEUED), reason=reason, not_before=not_before, lease_until=None)
    _save(act, queued, tag, {"code": reason.code, "attempts": job.attempts})
    wake_workers(act, job, not_before)
    return queued


def _released(act: Act, job: Job) -> Job:
    """Back to the queue through no fault of the job: the attempt does not count."""
    queued = replace(job.to(JobState.QUEUED), attempts=job.attempts - 1, lease_until=None)
    _save(act, queued, Tag.WORKER_JOB_RELEASED)
    wake_workers(act, job)
    return queued


def _parked(act: Act, job: Job, report: Report, reason: Reason, tag: Tag) -> Job:
    failed = job.finish(JobState.FAILED, act.now, reason)
    _save(act, failed, tag, {"code": reason.code, "attempts": job.attempts})
    _fail_report(act, job, report, reason, Tag.WORKER_REPORT_FAILED)
    return failed


def _fail_report(act: Act, job: Job, report: Report, reason: Reason, tag: Tag) -> None:
    """A draft that will not come fails its report, unless the report has moved on without it."""
    if job.kind is not JobKind.DRAFT or report.version != job.base_version or not allowed(report.status, Event.FAIL):
        return
    failed = report.fail(reason, act.actor, act.now)
    act.uow.reports.save(failed)
    act.record(tag, failed, detail={"job": job.id, "code": reason.code})


def _save(act: Act, job: Job, tag: Tag, detail: dict[str, Detail] | None = None) -> None:
    act.uow.jobs.save(job, fence=job.fence)
    act.record(tag, job, detail=detail)


def _keep_study_time(act: Act, report: Report, studied_at: datetime | None) -> None:
    order = load_order(act.uow, report.order_id)
    if studied_at is None or order.studied_at == studied_at:
        return
    changed = replace(order, studied_at=studied_at, version=order.version + 1, updated_at=act.now)
    act.uow.orders.save(changed)
    act.record(Tag.WORKER_ORDER_STUDIED, changed, report_id=report.id)


def _refused_patient(act: Act, job: Job, report: Report, shown: Sequence[PatientShown]) -> Job | None:
    """The job parked, where an image is of somebody else than the order's patient; None where nothing says so."""
    patient = load_order(act.uow, report.order_id).patient
    records = records_of(act.uow, patient)
    check = act.site.patient_check
    found = sorted({fact for each in shown for fact in contradictions(each, records, check)})
    if not found:
        return None
    facts = ", ".join(found)
    act.record(
        Tag.WORKER_PATIENT_CONTRADICTED,
        (Kind.PATIENT, patient.id),
        report_id=report.id,
        detail={"job": job.id, "facts": facts, "check": check},
    )
    reason = Reason("patient-contradicts", f"The image's header names another patient than the order, by {facts}.")
    return _parked(act, job, report, reason, Tag.WORKER_JOB_FAILED)


def _wanted(uow: UnitOfWork, report: Report) -> ImageWanted:
    order = load_order(uow, report.order_id)
    return ImageWanted(order.study_instance_uid, order.accession_number, order.modality)
