"""Sign-off and what follows it. A named clinician, the version that they saw, one report at a time: no other way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from inlay_core.application.drafting import retire_jobs
from inlay_core.application.editing import sources_of
from inlay_core.application.ports import DEFAULT_SITE, Site, UnitOfWork
from inlay_core.application.publishing import publish_report
from inlay_core.application.transaction import Act, load_report, retried
from inlay_core.domain.audit import Tag
from inlay_core.domain.edits import SectionEdit, edited
from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import in_order
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.job import Reason
from inlay_core.domain.lifecycle import Event, Status
from inlay_core.domain.report import Report
from inlay_core.domain.text import refuse_unstorable

_TAGS: Final[Mapping[Event, Tag]] = MappingProxyType(
    {
        Event.AMEND: Tag.CLINICIAN_REPORT_AMENDED,
        Event.CORRECT: Tag.CLINICIAN_REPORT_CORRECTED,
        Event.APPEND: Tag.CLINICIAN_REPORT_APPENDED,
    }
)


@retried
def sign(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    report_id: str,
    *,
    expected_version: int,
    site: Site = DEFAULT_SITE,
) -> Report:
    """Make the version that the clinician saw final, and tell other systems.

    Whoever signs a draft that nobody has opened has read it by that act: it is opened first, as a version of its own.
    Raises Forbidden, Stale, Conflict (not in review), Invalid (no text).
    """
    require(actor, Permission.SIGN_REPORTS)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        if report.status is Status.DRAFTED:
            report = report.open(actor, act.now)
            uow.reports.save(report)
            act.record(Tag.CLINICIAN_REPORT_OPENED, report)
        signed = report.sign(actor, act.now)
        retire_jobs(act, report_id, Tag.CLINICIAN_JOB_CANCELLED)
        _save(act, signed, Tag.CLINICIAN_REPORT_SIGNED)
        uow.commit()
        return signed


@retried
def amend(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    report_id: str,
    *,
    expected_version: int,
    kind: Event,
    edits: Sequence[SectionEdit],
    reason: str,
    site: Site = DEFAULT_SITE,
) -> Report:
    """A new version after sign-off, signed in the same act: `kind` is amend, correct or append (only adds text)."""
    require(actor, Permission.SIGN_REPORTS)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        sections = edited(report.sections, edits, new_id, sources_of(uow, report_id))
        sections = in_order(sections, site.section_order)
        amended = report.amend(kind, sections, _reason(kind, reason), actor, act.now)
        _save(act, amended, _TAGS[kind])
        uow.commit()
        return amended


@retried
def retract(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    report_id: str,
    *,
    expected_version: int,
    reason: str,
    site: Site = DEFAULT_SITE,
) -> Report:
    """Withdraw a signed report: it was entered in error."""
    require(actor, Permission.SIGN_REPORTS)
    with uow:
        act = Act(uow, clock(), new_id, actor, site)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        withdrawn = report.retract(_reason(Event.RETRACT, reason), actor, act.now)
        _save(act, withdrawn, Tag.CLINICIAN_REPORT_RETRACTED)
        uow.commit()
        return withdrawn


def _reason(event: Event, text: str) -> Reason:
    """A clinician's own words; they are part of the version and never of the trail."""
    if not text.strip():
        raise Invalid("reason-missing", "A change after sign-off needs its reason.", "reason")
    return Reason(event, refuse_unstorable(text, "reason"))


def _save(act: Act, report: Report, tag: Tag) -> None:
    act.uow.reports.save(report)
    act.record(tag, report)
    publish_report(act, report)
