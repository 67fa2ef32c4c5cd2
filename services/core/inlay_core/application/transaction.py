"""What every use case shares: running again when another transaction was first, and recording what was done."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

from inlay_core.application.ports import DEFAULT_SITE, Site, UnitOfWork
from inlay_core.application.tracing import current
from inlay_core.domain.audit import Detail, Kind, Outcome, Tag, event_of
from inlay_core.domain.errors import NotFound, Race
from inlay_core.domain.identity import Actor
from inlay_core.domain.ids import NewId
from inlay_core.domain.job import Job
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report

P = ParamSpec("P")
R = TypeVar("R")

# Each lost race means that another transaction was committed, so a handful of rounds is plenty.
ATTEMPTS: Final = 8


def retried(use_case: Callable[P, R]) -> Callable[P, R]:
    """Run the use case again when it lost a race: it is one transaction, and a lost race wrote nothing."""

    @functools.wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(ATTEMPTS - 1):
            try:
                return use_case(*args, **kwargs)
            except Race:
                continue
        return use_case(*args, **kwargs)

    return run


@dataclass(frozen=True, slots=True)
class Act:
    """One act of one actor: the open transaction it happens in, its moment, and the site whose choices it obeys.

    `trace` is what jobs and deliveries that it causes belong to: the trace that its thread is in.
    """

    uow: UnitOfWork
    now: datetime
    new_id: NewId
    actor: Actor
    site: Site = DEFAULT_SITE
    trace: str | None = field(default_factory=current)

    def record(
        self,
        tag: Tag,
        subject: Report | Order | Job | tuple[Kind, str],
        *,
        report_id: str | None = None,
        detail: Mapping[str, Detail] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """Record that the actor did what `tag` says to `subject`, in the transaction of the change."""
        kind, subject_id, version, of_report = _named(subject)
        event = event_of(
            self.new_id(),
            self.now,
            self.actor,
            tag,
            (kind, subject_id),
            report_id=report_id or of_report,
            version=version,
            detail=detail,
            outcome=outcome,
        )
        self.uow.audit.record(event)


def _named(subject: Report | Order | Job | tuple[Kind, str]) -> tuple[Kind, str, int | None, str | None]:
    if isinstance(subject, Report):
        return Kind.REPORT, subject.id, subject.version, subject.id
    if isinstance(subject, Order):
        return Kind.ORDER, subject.id, subject.version, None
    if isinstance(subject, Job):
        return Kind.JOB, subject.id, None, subject.report_id
    return *subject, None, None


def load_report(uow: UnitOfWork, report_id: str) -> Report:
    """The newest version; raise NotFound when there is no such report."""
    report = uow.reports.get(report_id)
    if report is None:
        raise NotFound("unknown-report", "No such report.", "report.id")
    return report


def load_order(uow: UnitOfWork, order_id: str) -> Order:
    """The order; raise NotFound when there is no such order."""
    order = uow.orders.get(order_id)
    if order is None:
        raise NotFound("unknown-order", "No such order.", "order.id")
    return order


def load_job(uow: UnitOfWork, job_id: str) -> Job:
    """The job; raise NotFound when there is no such job."""
    job = uow.jobs.get(job_id)
    if job is None:
        raise NotFound("unknown-job", "No such job.", "job.id")
    return job
