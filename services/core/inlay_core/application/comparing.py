"""What a new study is compared with: earlier examinations of the patient, whether archive, RIS or we know of them.

An archive is asked once per order. The last few stand in the draft's Comparison section as imported text, which the
model sees only where the site allows it.
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
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, PriorStudy
from inlay_core.domain.prior import (
    IMPRESSION,
    Examination,
    PriorReport,
    PriorSection,
    PriorStatus,
    Source,
    merged,
)

# LOINC, as OBX-3 names the sections of a report.
_CODES: Final = {
    "indication": "18785-6",
    "technique": "55111-9",
    "comparison": "18834-2",
    "findings": "59776-5",
    "impression": IMPRESSION,
}
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


def earlier_examinations(uow: UnitOfWork, order: Order) -> list[Examination]:
    """Everything else of the order's patient, one entry per examination, the newest first.

    The order's own examination is left out (an interface engine may echo our results), and so is what was withdrawn.
    """
    records = [record.id for record in records_of(uow, order.patient)]
    others = [other for record in records for other in uow.orders.of_patient(record) if other.id != order.id]
    known = [one for other in others for one in _signed_here(uow, other)]
    known += [_of_archive(prior) for prior in order.priors or ()]
    known += [_of_ris(prior) for prior in uow.priors.of_patients(records) if prior.status is not PriorStatus.WITHDRAWN]
    own = Examination((), order.study_instance_uid or "", order.accession_number or "")
    return merged(each for each in known if not each.is_same(own))


def comparisons(uow: UnitOfWork, order: Order) -> list[Examination]:
    """The last few of them whose time is known, and is before this study: those that a draft names."""
    earlier = [each for each in earlier_examinations(uow, order) if each.at is not None]
    if (now := order.studied_at) is not None:
        earlier = [each for each in earlier if each.performed_at is None or each.performed_at < now]
    return earlier[:MOST_PRIORS]


def _of_archive(prior: PriorStudy) -> Examination:
    return Examination(
        (Source.ARCHIVE,),
        prior.study_instance_uid,
        prior.accession_number,
        prior.description,
        prior.modalities,
        prior.studied_at,
    )


def _of_ris(prior: PriorReport) -> Examination:
    return Examination(
        (Source.RIS,),
        accession_number=prior.accession_number or "",
        description=prior.procedure_text or prior.procedure_code or "",
        modalities=(prior.modality,) if prior.modality else (),
        performed_at=prior.performed_at,
        reported_at=prior.reported_at,
        status=prior.status,
        sections=prior.sections,
        prior_id=prior.id,
    )


def _signed_here(uow: UnitOfWork, order: Order) -> list[Examination]:
    """The order's report, if somebody signed it."""
    report = uow.reports.by_order(order.id)
    if report is None or not report.is_signed or report.signature is None:
        return []
    status = PriorStatus.FINAL if report.status is Status.SIGNED else PriorStatus.CORRECTED
    texts = [section for section in report.sections if section.text.strip()]
    sections = [PriorSection(_CODES[one.name], one.name.capitalize(), one.text) for one in texts]
    return [
        Examination(
            (Source.INLAY,),
            order.study_instance_uid or "",
            order.accession_number or "",
            order.procedure.text or order.procedure.code or "",
            (order.modality,) if order.modality else (),
            order.studied_at,
            report.signature.signed_at,
            status,
            tuple(sections),
            report_id=report.id,
        )
    ]
