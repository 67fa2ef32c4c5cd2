"""What a new study is compared with: earlier studies of the patient, as an archive tells of them, asked once per order.

They stand in the Comparison section of the draft as imported text, which the model sees only where the site allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from inlay_core.application.patients import records_of
from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import Act, load_order, load_report, retried
from inlay_core.domain.audit import Tag
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import JobKind, JobState
from inlay_core.domain.order import Order, PriorStudy
from inlay_core.domain.prior import PriorReport, PriorStatus

# LOINC, as OBX-3 names the impression (PS3.20 section 9).
_IMPRESSION: Final = "19005-8"
_ANSWERED: Final = frozenset({PriorStatus.FINAL, PriorStatus.CORRECTED})
# A radiologist compares with the last film or two; a list of twenty would hide them.
MOST_PRIORS: Final = 3


def orders_without_priors(uow: UnitOfWork, *, limit: int = 100) -> list[Order]:
    """Orders whose draft is still to come and for which no archive was asked, the oldest first."""
    with uow:
        jobs = [job for state in (JobState.WAITING_IMAGES, JobState.QUEUED) for job in uow.jobs.in_state(state, limit)]
        drafts = sorted((job for job in jobs if job.kind is JobKind.DRAFT), key=lambda job: job.created_at)
        orders = [load_order(uow, load_report(uow, job.report_id).order_id) for job in drafts]
    return [order for order in orders if order.priors is None][:limit]


@retried
def keep_priors(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, order_id: str, priors: Sequence[PriorStudy]
) -> None:
    """What the archive has of the patient, the newest first; none is an answer, too."""
    require(actor, Permission.GENERATE)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        order = load_order(uow, order_id)
        newest = sorted(priors, key=lambda prior: prior.studied_at, reverse=True)[:MOST_PRIORS]
        changed = replace(order, priors=tuple(newest), version=order.version + 1, updated_at=act.now)
        report = uow.reports.by_order(order_id)
        uow.orders.save(changed)
        act.record(
            Tag.RELAY_ORDER_COMPARED,
            changed,
            report_id=report.id if report else None,
            detail={"priors": len(newest)},
        )
        uow.commit()


def comparisons(uow: UnitOfWork, order: Order) -> list[tuple[PriorStudy, str]]:
    """The order's prior studies, each with the impression of a report about it that somebody answers for, if known."""
    if not order.priors:
        return []
    patients = [record.id for record in records_of(uow, order.patient)]
    others = uow.priors.of_patients(patients)
    return [(prior, _own(uow, patients, prior) or _of_others(others, prior)) for prior in order.priors]


def _own(uow: UnitOfWork, patients: Sequence[str], prior: PriorStudy) -> str:
    for other in uow.orders.by_study(prior.study_instance_uid):
        report = uow.reports.by_order(other.id)
        if other.patient.id in patients and report is not None and report.is_signed:
            section = report.section("impression")
            return section.text.strip() if section else ""
    return ""


def _of_others(reports: Sequence[PriorReport], prior: PriorStudy) -> str:
    """The impression of another system's report, which is about this study by its accession number."""
    for report in reports:
        if prior.accession_number and report.accession_number == prior.accession_number and report.status in _ANSWERED:
            return " ".join(s.text.strip() for s in report.sections if s.code == _IMPRESSION)
    return ""
