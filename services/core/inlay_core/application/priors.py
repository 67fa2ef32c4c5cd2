"""Prior reports: storing what other systems reported of a patient, and reading it beside a new report."""

from __future__ import annotations

from collections.abc import Sequence

from inlay_core.application.comparing import earlier_examinations
from inlay_core.application.patients import OUTDATED, patient_after
from inlay_core.application.ports import PriorCommand, UnitOfWork
from inlay_core.application.transaction import Act, load_order, load_report
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.prior import Examination, PriorReport


def store_prior(act: Act, command: PriorCommand) -> str | None:
    """Store a report of another system, or its newer state; return the flag of a message that changed nothing."""
    known = act.uow.priors.find(command.assigner, command.number)
    if known is not None and known.is_older(command.message_time):
        return OUTDATED
    patient = patient_after(act, command.patient, command.message_time)
    prior = PriorReport(
        id=known.id if known else act.new_id(),
        patient=patient,
        assigner=command.assigner,
        number=command.number,
        status=command.status,
        # A withdrawal may come without its text: what was known stays readable as withdrawn.
        sections=command.sections or (known.sections if known else ()),
        accession_number=command.accession_number,
        procedure_code=command.procedure_code,
        procedure_system=command.procedure_system,
        procedure_text=command.procedure_text,
        modality=command.modality,
        performed_at=command.performed_at,
        reported_at=command.reported_at,
        message_time=command.message_time,
        version=known.version + 1 if known else 1,
        created_at=known.created_at if known else act.now,
        updated_at=act.now,
    )
    if known is None:
        act.uow.priors.add(prior)
        act.record(Tag.INTAKE_PRIOR_CREATED, (Kind.PRIOR, prior.id), detail={"status": prior.status})
    else:
        act.uow.priors.save(prior)
        act.record(Tag.INTAKE_PRIOR_CHANGED, (Kind.PRIOR, prior.id), detail={"status": prior.status})
    return None


def priors_of_report(uow: UnitOfWork, actor: Actor, report_id: str) -> Sequence[Examination]:
    """The earlier examinations of the report's patient, the newest first, with the text where there is one."""
    require(actor, Permission.READ_REPORTS)
    with uow:
        return earlier_examinations(uow, load_order(uow, load_report(uow, report_id).order_id))
