"""What a clinician does to a draft: opening it, changing text, setting and lifting locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inlay_core.application.drafting import retire_jobs
from inlay_core.application.ports import DEFAULT_SITE, Site, UnitOfWork
from inlay_core.application.transaction import Act, load_report, retried
from inlay_core.domain.audit import Tag
from inlay_core.domain.edits import SectionEdit, Sources, edited
from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import Section, in_order
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.report import Report


@retried
def open_report(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, report_id: str, *, expected_version: int
) -> Report:
    """A clinician begins to read the draft; a report that is already in review stays as it is."""
    require(actor, Permission.EDIT_REPORTS)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        if report.status is Status.IN_REVIEW:
            return report
        opened = report.open(actor, act.now)
        uow.reports.save(opened)
        act.record(Tag.CLINICIAN_REPORT_OPENED, opened)
        uow.commit()
        return opened


@retried
def put_fragments(
    uow: UnitOfWork,
    clock: Clock,
    new_id: NewId,
    actor: Actor,
    report_id: str,
    *,
    expected_version: int,
    edits: Sequence[SectionEdit],
    site: Site = DEFAULT_SITE,
) -> Report:
    """Take the clinician's text and locks, a whole ordered list per section. Jobs on the older version end.

    Raises Stale for another version, Conflict when the report is signed or closed, Invalid or Locked where the edits
    do not fit the stored fragments.
    """
    require(actor, Permission.EDIT_REPORTS)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        report = load_report(uow, report_id)
        report.check_version(expected_version)
        sections = edited(report.sections, edits, new_id, sources_of(uow, report_id))
        after = report.edit(in_order(sections, site.section_order), actor, act.now)
        retire_jobs(act, report_id, Tag.CLINICIAN_JOB_CANCELLED)
        uow.reports.save(after)
        locks = sum(fragment.locked for section in after.sections for fragment in section.fragments)
        act.record(Tag.CLINICIAN_REPORT_EDITED, after, detail={"sections": len(edits), "locks": locks})
        uow.commit()
        return after


def sources_of(uow: UnitOfWork, report_id: str) -> Sources:
    """What edits of this report may bring back: its earlier versions, and what its own jobs offered."""

    def earlier(version: int) -> Sequence[Section]:
        found = uow.reports.version(report_id, version)
        if found is None:
            raise Invalid("unknown-version", "No such version of the report.", "version")
        return found.sections

    def offers(job_id: str) -> Sequence[Mapping[str, Any]]:
        job = uow.jobs.get(job_id)
        if job is None or job.report_id != report_id:
            raise Invalid("unknown-offer", "No such job of the report.", "offered.job_id")
        return job.alternatives

    return Sources(earlier, offers)
