"""A unit of work in memory that keeps every promise of the port; the contract tests hold it to the database's."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from inlay_core.application.ports import (
    Aged,
    Delivery,
    Destination,
    DestinationCount,
    MessageOutcome,
    Old,
    OutboxItem,
    Page,
    QueueCount,
    ReportRow,
    ReportSearch,
    SenderCount,
    Sort,
    Sought,
    Standing,
    StepProgress,
    StoredMessage,
    Switch,
    TimeBound,
    WorkerSeen,
)
from inlay_core.domain.audit import (
    GENESIS,
    AuditEvent,
    Checkpoint,
    Kind,
    Link,
    Verification,
    first_break,
    seal,
    start_of,
)
from inlay_core.domain.errors import Fault, Race, Stale
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, Priority
from inlay_core.domain.patient import Patient
from inlay_core.domain.prior import PriorReport
from inlay_core.domain.reader_study import Grade, ReaderStudy
from inlay_core.domain.report import Author, Report
from inlay_core.domain.session import Session
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_core.domain.switch import Allowance

T = TypeVar("T")


@dataclass
class World:
    """What is committed."""

    patients: dict[str, Patient] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    priors: dict[str, PriorReport] = field(default_factory=dict)
    reports: dict[str, list[Report]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    messages: dict[str, StoredMessage] = field(default_factory=dict)
    outbox: dict[str, OutboxItem] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    checkpoints: dict[tuple[int, bool], str] = field(default_factory=dict)
    cursors: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    progress: dict[str, StepProgress] = field(default_factory=dict)
    canvases: dict[str, tuple[StepProgress, ...]] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    assertions: dict[tuple[str, str], datetime] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    workers: dict[str, WorkerSeen] = field(default_factory=dict)
    studies: dict[str, ReaderStudy] = field(default_factory=dict)
    grades: dict[tuple[str, int, str], Grade] = field(default_factory=dict)

    def copied(self) -> World:
        """A copy that can be changed; the records themselves are immutable."""
        twin = World(**{name: copy.copy(value) for name, value in vars(self).items()})
        twin.reports = {key: list(versions) for key, versions in self.reports.items()}
        return twin


class Memory:
    """A database in memory: one transaction at a time."""

    def __init__(self) -> None:
        self.world = World()
        self.lock = threading.RLock()

    def __call__(self) -> MemoryUnitOfWork:
        """A new unit of work."""
        return MemoryUnitOfWork(self)


class _Duty:
    """The working copy, what it changed and what it recorded."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.changed: set[tuple[str, str]] = set()
        self.recorded: set[tuple[str, str]] = set()


def _unique(records: Iterable[T], key: Callable[[T], object], new: T) -> None:
    wanted = key(new)
    if wanted is not None and any(key(record) == wanted for record in records):
        raise Race("lost-race", "The key is taken.")


class _Part:
    def __init__(self, duty: _Duty) -> None:
        self._duty = duty

    @property
    def _world(self) -> World:
        return self._duty.world

    def _change(self, kind: Kind, record_id: str) -> None:
        self._duty.changed.add((kind, record_id))


class MemoryPatients(_Part):
    """`Patients` in memory."""

    def add(self, patient: Patient) -> None:
        """See the port."""
        _unique(self._world.patients.values(), lambda p: (p.assigner, p.identifier), patient)
        self._change(Kind.PATIENT, patient.id)
        self._world.patients[patient.id] = patient

    def save(self, patient: Patient) -> None:
        """See the port."""
        self._change(Kind.PATIENT, patient.id)
        _check_next(self._world.patients.get(patient.id), patient.version)
        self._world.patients[patient.id] = patient

    def get(self, patient_id: str) -> Patient | None:
        """See the port."""
        return self._world.patients.get(patient_id)

    def find(self, assigner: str | None, identifier: str) -> Sequence[Patient]:
        """See the port."""
        return [
            p for p in self._world.patients.values() if p.identifier == identifier and assigner in (None, p.assigner)
        ]

    def merged_into(self, patient_id: str) -> Sequence[Patient]:
        """See the port."""
        return [p for p in self._world.patients.values() if p.merged_into == patient_id]


def _check_next(stored: Patient | Order | PriorReport | Report | Subscription | None, version: int) -> None:
    if stored is None or stored.version != version - 1:
        raise Race("lost-race", "Another version is stored.")


class MemoryOrders(_Part):
    """`Orders` in memory."""

    def add(self, order: Order) -> None:
        """See the port."""
        self._check_keys(order)
        self._change(Kind.ORDER, order.id)
        self._world.orders[order.id] = order

    def save(self, order: Order) -> None:
        """See the port."""
        _check_next(self._world.orders.get(order.id), order.version)
        self._check_keys(order)
        self._change(Kind.ORDER, order.id)
        self._world.orders[order.id] = order

    def _check_keys(self, order: Order) -> None:
        others = [other for other in self._world.orders.values() if other.id != order.id]
        _unique(others, lambda o: (o.assigner, o.placer_number) if o.placer_number is not None else None, order)
        _unique(
            others,
            lambda o: (o.accession_assigner, o.accession_number) if o.accession_number is not None else None,
            order,
        )

    def _current(self, order: Order) -> Order:
        return replace(order, patient=self._world.patients[order.patient.id])

    def _where(self, fits: Callable[[Order], bool]) -> list[Order]:
        return [self._current(order) for order in self._world.orders.values() if fits(order)]

    def get(self, order_id: str) -> Order | None:
        """See the port."""
        return next(iter(self._where(lambda o: o.id == order_id)), None)

    def by_placer(self, assigner: str, placer_number: str) -> Order | None:
        """See the port."""
        wanted = (assigner, placer_number)
        return next(iter(self._where(lambda o: (o.assigner, o.placer_number) == wanted)), None)

    def by_filler(self, assigner: str, filler_number: str) -> Order | None:
        """See the port."""
        wanted = (assigner, filler_number)
        return next(iter(self._where(lambda o: (o.assigner, o.filler_number) == wanted)), None)

    def by_accession(self, assigner: str | None, accession_number: str) -> Sequence[Order]:
        """See the port."""
        return self._where(
            lambda o: o.accession_number == accession_number and assigner in (None, o.accession_assigner)
        )

    def by_study(self, study_instance_uid: str) -> Sequence[Order]:
        """See the port."""
        return self._where(lambda o: o.study_instance_uid == study_instance_uid)

    def with_identifier(self, assigner: str | None, number: str) -> Sequence[Order]:
        """See the port."""

        def numbers(o: Order) -> list[tuple[str, str | None]]:
            return [
                (o.assigner, o.placer_number),
                (o.assigner, o.filler_number),
                (o.accession_assigner, o.accession_number),
            ]

        return self._where(lambda o: any(n == number and assigner in (None, a) for a, n in numbers(o)))

    def of_patient(self, patient_id: str) -> Sequence[Order]:
        """See the port."""
        return self._where(lambda o: o.patient.id == patient_id)

    def by_ids(self, order_ids: Sequence[str]) -> Mapping[str, Order]:
        """See the port."""
        return {order.id: order for order in self._where(lambda o: o.id in order_ids)}


class MemoryPriors(_Part):
    """`Priors` in memory."""

    def add(self, prior: PriorReport) -> None:
        """See the port."""
        _unique(self._world.priors.values(), lambda p: (p.assigner, p.number), prior)
        self._change(Kind.PRIOR, prior.id)
        self._world.priors[prior.id] = prior

    def save(self, prior: PriorReport) -> None:
        """See the port."""
        self._change(Kind.PRIOR, prior.id)
        _check_next(self._world.priors.get(prior.id), prior.version)
        self._world.priors[prior.id] = prior

    def find(self, assigner: str, number: str) -> PriorReport | None:
        """See the port."""
        return next((p for p in self._world.priors.values() if (p.assigner, p.number) == (assigner, number)), None)

    def of_patients(self, patient_ids: Sequence[str], limit: int = 200) -> Sequence[PriorReport]:
        """See the port."""
        found = [p for p in self._world.priors.values() if p.patient.id in patient_ids]
        current = [replace(p, patient=self._world.patients[p.patient.id]) for p in found]

        def when(prior: PriorReport) -> datetime:
            moment = prior.performed_at or prior.reported_at or prior.created_at
            assert moment is not None
            return moment

        return sorted(current, key=when, reverse=True)[:limit]


class MemoryReports(_Part):
    """`Reports` in memory."""

    def __init__(self, duty: _Duty, orders: MemoryOrders) -> None:
        super().__init__(duty)
        self._orders = orders

    def add(self, report: Report) -> None:
        """See the port."""
        _unique((versions[-1] for versions in self._world.reports.values()), lambda r: r.order_id, report)
        self._change(Kind.REPORT, report.id)
        self._world.reports[report.id] = [report]

    def save(self, report: Report) -> None:
        """See the port."""
        self._change(Kind.REPORT, report.id)
        _check_next(self.get(report.id), report.version)
        self._world.reports[report.id].append(report)

    def get(self, report_id: str) -> Report | None:
        """See the port."""
        versions = self._world.reports.get(report_id)
        return versions[-1] if versions else None

    def by_order(self, order_id: str) -> Report | None:
        """See the port."""
        return next((v[-1] for v in self._world.reports.values() if v[-1].order_id == order_id), None)

    def version(self, report_id: str, version: int) -> Report | None:
        """See the port."""
        return next((r for r in self._world.reports.get(report_id, ()) if r.version == version), None)

    def versions(self, report_id: str) -> Sequence[Report]:
        """See the port."""
        return list(self._world.reports.get(report_id, ()))

    def search(self, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        """See the port."""
        rows = [self._row(versions[-1]) for versions in self._world.reports.values()]
        rows = sorted((row for row in rows if _fits(row, search, self._survivor(row))), key=lambda row: row.report.id)
        if sort is Sort.WORKLIST:
            rows.sort(key=lambda row: (row.order.priority.rank, row.report.created_at))
        else:
            _sort_by_time(rows, sort)
        return Page(tuple(rows[offset : offset + limit]), len(rows), offset, limit)

    def history(self, since: datetime | None, offset: int, limit: int) -> Page:
        """See the port."""
        versions = [
            v for of_one in self._world.reports.values() for v in of_one if since is None or v.updated_at >= since
        ]
        versions.sort(key=lambda v: (-v.updated_at.timestamp(), v.id, -v.version))
        rows = tuple(self._row(version) for version in versions[offset : offset + limit])
        return Page(rows, len(versions), offset, limit)

    def counts(self, at_most: int) -> Mapping[Status, int]:
        """See the port."""
        found = Counter(versions[-1].status for versions in self._world.reports.values())
        return {status: min(number, at_most) for status, number in found.items()}

    def openers(self, report_ids: Sequence[str]) -> Mapping[str, Author]:
        """See the port."""
        reviews = {i: [v for v in self._world.reports[i] if v.status is Status.IN_REVIEW] for i in report_ids}
        return {report_id: versions[0].author for report_id, versions in reviews.items() if versions}

    def drafted(
        self, since: datetime, until: datetime, limit: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[tuple[datetime, str]]:
        """See the port."""
        found = [
            (version.updated_at, version.id)
            for versions in self._world.reports.values()
            for version in versions
            if version.status is Status.DRAFTED and since <= version.updated_at < until
        ]
        return [one for one in sorted(found) if after is None or one > after][:limit]

    def versions_of(self, report_ids: Sequence[str]) -> Mapping[str, Sequence[Report]]:
        """See the port."""
        return {report_id: self.versions(report_id) for report_id in report_ids if self.versions(report_id)}

    def standing(self, report_id: str) -> Standing | None:
        """How the report stands."""
        newest = self.get(report_id)
        return Standing.of(self._row(newest)) if newest else None

    def _survivor(self, row: ReportRow) -> Patient | None:
        return self._world.patients.get(row.order.patient.merged_into or "")

    def _row(self, report: Report) -> ReportRow:
        order = self._orders.get(report.order_id)
        assert order is not None
        return ReportRow(report, order)


_TIMES: Mapping[Sort, Callable[[ReportRow], datetime | None]] = {
    Sort.STUDIED_FIRST: lambda row: row.order.studied_at or row.order.scheduled_at,
    Sort.STUDIED_LAST: lambda row: row.order.studied_at or row.order.scheduled_at,
    Sort.SIGNED_FIRST: lambda row: row.report.signature.signed_at if row.report.signature else None,
    Sort.SIGNED_LAST: lambda row: row.report.signature.signed_at if row.report.signature else None,
}


def _sort_by_time(rows: list[ReportRow], sort: Sort) -> None:
    """By the time that `sort` names, in its direction; reports without it come last."""
    time = _TIMES.get(sort, _updated)
    sign = -1 if sort in (Sort.NEWEST, Sort.STUDIED_LAST, Sort.SIGNED_LAST) else 1
    rows.sort(key=lambda row: (time(row) is None, sign * (time(row) or row.report.updated_at).timestamp()))


def _updated(row: ReportRow) -> datetime | None:
    return row.report.updated_at


def _fits(row: ReportRow, search: ReportSearch, survivor: Patient | None = None) -> bool:
    report, order = row.report, row.order
    records = [order.patient, *([survivor] if survivor else [])]
    signed_at = report.signature.signed_at if report.signature else None
    studied_at = order.studied_at or order.scheduled_at
    plain = (
        (search.ids, report.id),
        (search.order_ids, report.order_id),
        (search.study_instance_uids, order.study_instance_uid),
    )
    identified = (
        (search.accessions, order.accession_assigner, order.accession_number),
        (search.procedures, order.procedure.system, order.procedure.code or ""),
    )
    return (
        all(not wanted or value in wanted for wanted, value in plain)
        and all(
            not wanted or any(v == value and a in (None, assigner) for a, v in wanted)
            for wanted, assigner, value in identified
        )
        and (not search.patient_ids or any(p.id in search.patient_ids for p in records))
        and (
            not search.patient_identifiers
            or any(
                v == p.identifier and a in (None, p.assigner) for a, v in search.patient_identifiers for p in records
            )
        )
        and (search.statuses is None or report.status in search.statuses)
        and all(_bounded(report.updated_at, bound) for bound in search.last_updated)
        and all(signed_at is not None and _bounded(signed_at, bound) for bound in search.signed)
        and all(studied_at is not None and _bounded(studied_at, bound) for bound in search.studied)
    )


def _bounded(moment: datetime, bound: TimeBound) -> bool:
    inside = bound.start <= moment < bound.end
    answers = {
        "eq": inside,
        "ne": not inside,
        "gt": moment >= bound.end,
        "ge": moment >= bound.start,
        "lt": moment < bound.start,
        "le": moment < bound.end,
    }
    return answers[bound.op]


class MemoryJobs(_Part):
    """`Jobs` in memory."""

    def add(self, job: Job) -> None:
        """See the port."""
        self._change(Kind.JOB, job.id)
        self._world.jobs[job.id] = job

    def save(self, job: Job, *, fence: int) -> None:
        """See the port."""
        stored = self._world.jobs.get(job.id)
        if stored is None or stored.fence != fence:
            raise Race("lost-race", "The fence moved.")
        self._change(Kind.JOB, job.id)
        self._world.jobs[job.id] = job

    def get(self, job_id: str) -> Job | None:
        """See the port."""
        return self._world.jobs.get(job_id)

    def of_report(self, report_id: str) -> Sequence[Job]:
        """See the port."""
        return self._where(lambda job: job.report_id == report_id)

    def with_model(self, digest_prefix: str) -> Job | None:
        """See the port."""
        stated = [job for job in self._world.jobs.values() if job.run_record and "model_digest" in job.run_record]
        return next(
            (j for j in stated if j.run_record and j.run_record["model_digest"].startswith(digest_prefix)), None
        )

    def claim(
        self, now: datetime, lease_until: datetime, allowed: Allowance, held_reports: Sequence[str] = ()
    ) -> Job | None:
        """See the port."""
        due = self._where(lambda j: j.state is JobState.QUEUED and self._is_allowed(j, allowed) and _is_due(j, now))
        if not due:
            return None
        best = min(due, key=lambda j: (j.priority.rank, j.report_id not in held_reports, j.created_at, j.id))
        taken = replace(
            best,
            state=JobState.RUNNING,
            fence=best.fence + 1,
            attempts=best.attempts + 1,
            lease_until=lease_until,
            not_before=None,
        )
        self._change(Kind.JOB, taken.id)
        self._world.jobs[taken.id] = taken
        return taken

    def renew(self, job_id: str, fence: int, lease_until: datetime) -> Job:
        """See the port."""
        job = self._world.jobs.get(job_id)
        if job is None or job.fence != fence or job.state is not JobState.RUNNING:
            raise Stale("fence-moved", "The job is no longer held under this fence.", "job.fence")
        self._world.jobs[job_id] = replace(job, lease_until=lease_until)
        return self._world.jobs[job_id]

    def in_state(self, state: JobState, limit: int, after: tuple[datetime, str] | None = None) -> Sequence[Job]:
        """See the port."""
        found = self._where(lambda j: j.state is state and (after is None or (j.created_at, j.id) > after))
        return found[:limit]

    def expired(self, now: datetime, limit: int) -> Sequence[Job]:
        """See the port."""
        found = self._where(lambda j: j.state is JobState.RUNNING and j.lease_until is not None and j.lease_until < now)
        return found[:limit]

    def unwoken(self, woken_before: datetime, now: datetime, allowed: Allowance, limit: int) -> Sequence[Job]:
        """See the port."""
        found = self._where(
            lambda j: (
                j.state is JobState.QUEUED
                and self._is_allowed(j, allowed)
                and _is_due(j, now)
                and (j.woken_at or j.created_at) < woken_before
            )
        )
        return sorted(found, key=lambda j: j.priority.rank)[:limit]

    def woken(self, job_ids: Sequence[str], now: datetime) -> None:
        """See the port."""
        for job_id in job_ids:
            if job_id in self._world.jobs:
                self._world.jobs[job_id] = replace(self._world.jobs[job_id], woken_at=now)

    def count(self, states: Iterable[JobState]) -> Mapping[tuple[JobState, Priority], int]:
        """See the port."""
        wanted = set(states)
        return Counter((job.state, job.priority) for job in self._world.jobs.values() if job.state in wanted)

    def census(self, failed_since: datetime) -> Sequence[QueueCount]:
        """See the port."""
        counted: dict[tuple[JobKind, JobState, Priority], list[datetime]] = {}
        for job in self._world.jobs.values():
            failed = job.state is JobState.FAILED and job.finished_at is not None and job.finished_at >= failed_since
            if job.state.is_open or failed:
                counted.setdefault((job.kind, job.state, job.priority), []).append(job.created_at)
        found = [QueueCount(*key, len(moments), min(moments)) for key, moments in counted.items()]
        return sorted(found, key=lambda one: (one.kind, one.state, one.priority.rank))

    def of_reports(self, report_ids: Sequence[str]) -> Sequence[Job]:
        """See the port."""
        return self._where(lambda job: job.report_id in report_ids)

    def _is_allowed(self, job: Job, allowed: Allowance) -> bool:
        order = self._world.orders[self._world.reports[job.report_id][-1].order_id]
        return allowed.allows(job.kind, order)

    def ahead(self, job: Job, now: datetime) -> int:
        """See the port."""

        def rank(one: Job) -> tuple[int, datetime, str]:
            return one.priority.rank, one.created_at, one.id

        due = self._where(lambda one: one.state is JobState.QUEUED and _is_due(one, now))
        return sum(rank(one) < rank(job) for one in due)

    def queued_since(self) -> Mapping[Priority, datetime]:
        """See the port."""
        oldest_last = reversed(self._where(lambda job: job.state is JobState.QUEUED))
        return {job.priority: job.created_at for job in oldest_last}

    def _where(self, fits: Callable[[Job], bool]) -> list[Job]:
        return sorted((j for j in self._world.jobs.values() if fits(j)), key=lambda j: (j.created_at, j.id))


def _is_due(job: Job, now: datetime) -> bool:
    return job.not_before is None or job.not_before <= now


class MemoryMessages(_Part):
    """`Messages` in memory."""

    def add(self, message: StoredMessage) -> None:
        """See the port."""
        _unique(self._world.messages.values(), _message_key, message)
        self._change(Kind.MESSAGE, message.id)
        self._world.messages[message.id] = message

    def replace(self, message: StoredMessage) -> None:
        """See the port."""
        self._change(Kind.MESSAGE, message.id)
        self._world.messages[message.id] = message

    def find(self, application: str, facility: str, control_id: str, sha256: str) -> StoredMessage | None:
        """See the port."""
        wanted = (application, facility, control_id, sha256)
        return next((m for m in self._world.messages.values() if _message_key(m) == wanted), None)

    def digests(self, application: str, facility: str, control_id: str) -> Sequence[str]:
        """See the port."""
        keys = (_message_key(message) for message in self._world.messages.values())
        return [key[3] for key in keys if key[:3] == (application, facility, control_id)]

    def get(self, message_id: str) -> StoredMessage | None:
        """See the port."""
        return self._world.messages.get(message_id)

    def reencrypt(self, after: str, limit: int) -> tuple[int, str] | None:
        """See the port; nothing here is encrypted."""

    def received(
        self,
        *,
        outcome: MessageOutcome | None = None,
        since: datetime | None = None,
        application: str | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> Sequence[StoredMessage]:
        """See the port."""
        found = [
            message
            for message in self._world.messages.values()
            if outcome in (None, message.outcome)
            and (since is None or message.received_at >= since)
            and application in (None, message.envelope.sending_application)
            and (after is None or (message.received_at, message.id) > after)
        ]
        return sorted(found, key=lambda message: (message.received_at, message.id))[:limit]

    def senders(self, since: datetime) -> Sequence[SenderCount]:
        """See the port."""
        found: dict[tuple[str, str], list[StoredMessage]] = {}
        for message in self.received(since=since, limit=len(self._world.messages)):
            found.setdefault(_message_key(message)[:2], []).append(message)
        counts = []
        for sender, messages in sorted(found.items()):
            refused = [message for message in messages if message.outcome is MessageOutcome.REFUSED]
            last = (refused[-1].received_at, refused[-1].error_code) if refused else (None, None)
            counts.append(SenderCount(*sender, len(messages), len(refused), messages[-1].received_at, *last))
        return counts


def _message_key(message: StoredMessage) -> tuple[str, str, str, str]:
    header = message.envelope
    return header.sending_application, header.sending_facility, header.control_id, message.sha256


class MemoryOutbox(_Part):
    """`Outbox` in memory; the dictionary keeps the order of writing."""

    def add(self, item: OutboxItem) -> None:
        """See the port."""
        self._world.outbox[item.id] = item

    def claim(self, destination: str, now: datetime, lease_until: datetime, limit: int) -> Sequence[OutboxItem]:
        """See the port."""
        heads: dict[str, OutboxItem] = {}
        for item in self._world.outbox.values():
            if item.destination == destination and item.state is Delivery.PENDING:
                heads.setdefault(item.key, item)
        due = [
            item
            for item in heads.values()
            if item.next_attempt_at <= now and (item.lease_until is None or item.lease_until < now)
        ][:limit]
        leased = [replace(item, lease_until=lease_until, attempts=item.attempts + 1) for item in due]
        self._world.outbox.update({item.id: item for item in leased})
        return leased

    def save(self, item: OutboxItem) -> None:
        """See the port."""
        self._world.outbox[item.id] = item

    def get(self, item_id: str) -> OutboxItem | None:
        """See the port."""
        return self._world.outbox.get(item_id)

    def count(self, states: Collection[Delivery] = tuple(Delivery)) -> Mapping[tuple[str, Delivery], int]:
        """See the port."""
        return Counter((item.destination, item.state) for item in self._world.outbox.values() if item.state in states)

    def pending_since(self) -> Mapping[str, datetime]:
        """See the port."""
        pending = [item for item in self._world.outbox.values() if item.state is Delivery.PENDING]
        return {item.destination: item.created_at for item in sorted(pending, key=lambda i: i.created_at, reverse=True)}

    def in_state(self, state: Delivery, limit: int, offset: int = 0) -> Sequence[OutboxItem]:
        """See the port."""
        items = [i for i in self._world.outbox.values() if i.state is state and i.destination != Destination.CELERY]
        return items[offset : offset + limit]

    def census(self, newest: int) -> Sequence[DestinationCount]:
        """See the port."""
        destinations = sorted({item.destination for item in self._world.outbox.values()})
        return [self._counted(destination, newest) for destination in destinations]

    def _counted(self, destination: str, newest: int) -> DestinationCount:
        items = [item for item in self._world.outbox.values() if item.destination == destination]
        pending = [item for item in items if item.state is Delivery.PENDING]
        delivered = sorted((i for i in items if i.state is Delivery.DELIVERED), key=lambda item: item.next_attempt_at)
        failed = [item.last_error for item in items if item.state is not Delivery.DELIVERED and item.last_error]
        return DestinationCount(
            destination,
            len(pending),
            sum(item.state is Delivery.DEAD for item in items),
            min((item.created_at for item in pending), default=None),
            max((item.delivered_at for item in delivered[-newest:] if item.delivered_at), default=None),
            failed[-1] if failed else None,
        )

    def after(self, item: OutboxItem) -> Sequence[OutboxItem]:
        """See the port."""
        items = list(self._world.outbox.values())
        later = items[[each.id for each in items].index(item.id) + 1 :]
        return [each for each in later if (each.destination, each.key) == (item.destination, item.key)]


class MemoryTrail(_Part):
    """`AuditTrail` in memory."""

    def __init__(self, duty: _Duty, reports: MemoryReports) -> None:
        super().__init__(duty)
        self._reports = reports

    def record(self, event: AuditEvent) -> None:
        """See the port."""
        self._duty.recorded.add((event.subject_kind, event.subject_id))
        self._world.events[event.id] = event.canonical()

    def record_while(self, readings: Sequence[tuple[AuditEvent, Standing]]) -> frozenset[str]:
        """See the port."""
        holding = [event for event, standing in readings if self._reports.standing(standing.report_id) == standing]
        for event in holding:
            self.record(event)
        return frozenset(event.id for event in holding)

    def of_report(self, report_id: str, offset: int = 0, limit: int = 1000) -> Sequence[AuditEvent]:
        """See the port."""
        events = [AuditEvent.from_canonical(body) for body in self._world.events.values()]
        return [event for event in events if event.report_id == report_id][offset : offset + limit]

    def get(self, event_id: str) -> AuditEvent | None:
        """See the port."""
        body = self._world.events.get(event_id)
        return AuditEvent.from_canonical(body) if body is not None else None

    def seal(self, limit: int = 1000) -> int:
        """See the port."""
        sealed = {link.event_id for link in self._world.links}
        pending = [(key, body) for key, body in self._world.events.items() if key not in sealed][:limit]
        head = self.head()
        position, previous = (head.position, head.hash) if head else (0, GENESIS)
        self._world.links += seal(pending, position, previous)
        return len(pending)

    def verify(self, checkpoints: Collection[Checkpoint] = ()) -> Verification:
        """See the port."""
        cut = start_of(checkpoints)
        purged = cut.position if cut else 0
        walked, head, broken = first_break(self.links(purged), checkpoints)
        unsealed = len(list(self.unsealed()))
        return Verification(walked - purged, unsealed, head, broken, purged, len(checkpoints))

    def links(self, after: int = 0) -> Iterator[tuple[Link, str | None]]:
        """See the port."""
        return ((link, self._world.events.get(link.event_id)) for link in self._world.links if link.position > after)

    def head(self) -> Link | None:
        """See the port."""
        return self._world.links[-1] if self._world.links else None

    def keep(self, checkpoint: Checkpoint, token: str) -> None:
        """See the port."""
        key = (checkpoint.position, checkpoint.is_cut)
        if key in self._world.checkpoints:
            raise Race("lost-race", "The key is taken.")
        self._world.checkpoints[key] = token

    def checkpoints(self) -> Sequence[str]:
        """See the port."""
        return [self._world.checkpoints[key] for key in sorted(self._world.checkpoints)]

    def claim_cursor(self, name: str, now: datetime, lease_until: datetime) -> int | None:
        """See the port."""
        position, leased = self._world.cursors.get(name, (0, None))
        if leased is not None and leased >= now:
            return None
        self._world.cursors[name] = position, lease_until
        return position

    def move_cursor(self, name: str, position: int, lease_until: datetime) -> None:
        """See the port."""
        if self._world.cursors.get(name, (0, None))[1] != lease_until:
            raise Race("lost-race", "Another holds the cursor.")
        self._world.cursors[name] = position, None

    def unsealed(self) -> Iterator[AuditEvent]:
        """See the port."""
        sealed = {link.event_id for link in self._world.links}
        return (AuditEvent.from_canonical(b) for key, b in self._world.events.items() if key not in sealed)


class MemoryRetention(_Part):
    """`Retention` in memory. Canvases have no time here, so that none of them is ever old."""

    def old(self, kind: Aged, before: datetime, after: tuple[datetime, str] | None, limit: int) -> Sequence[Old]:
        """See the port."""
        found = [row for row in self._rows(kind) if row.at < before and (after is None or (row.at, row.id) > after)]
        return sorted(found, key=lambda row: (row.at, row.id))[:limit]

    def _rows(self, kind: Aged) -> Iterator[Old]:
        if kind is Aged.MESSAGES:
            yield from (Old(m.id, m.received_at, tuple(m.order_ids)) for m in self._world.messages.values())
        elif kind is Aged.JOBS:
            for job in self._world.jobs.values():
                is_open = self._world.reports[job.report_id][-1].status.is_unsigned
                if job.finished_at is not None and job.run_record is None and not is_open:
                    yield Old(job.id, job.finished_at)
        elif kind is Aged.OUTBOX:
            for item in self._world.outbox.values():
                if item.state is Delivery.DELIVERED and item.delivered_at is not None:
                    yield Old(item.id, item.delivered_at)

    def remove(self, kind: Aged, ids: Sequence[str]) -> None:
        """See the port."""
        rows: dict[str, Any] = getattr(self._world, kind)
        for record_id in ids:
            del rows[record_id]

    def open_orders(self, order_ids: Iterable[str]) -> frozenset[str]:
        """See the port."""
        open_ones = {
            versions[-1].order_id for versions in self._world.reports.values() if versions[-1].status.is_unsigned
        }
        return frozenset(open_ones & set(order_ids))

    def open_studies(self) -> Sequence[tuple[str | None, str | None]]:
        """See the port."""
        orders = self._world.orders
        return [(orders[i].study_instance_uid, orders[i].accession_number) for i in self.open_orders(orders)]

    def trail_needed_from(self) -> int | None:
        """See the port."""
        needed = [position + 1 for position, _ in self._world.cursors.values()]
        for link in self._world.links:
            event = AuditEvent.from_canonical(self._world.events[link.event_id])
            report = self._world.reports.get(event.report_id or "")
            if report and report[-1].status.is_unsigned:
                needed.append(link.position)
        return min(needed, default=None)

    def remove_links(self, up_to: int, limit: int) -> int:
        """See the port."""
        doomed = [link for link in self._world.links if link.position <= up_to][:limit]
        for link in doomed:
            del self._world.events[link.event_id]
        self._world.links = self._world.links[len(doomed) :]
        return len(doomed)


class MemoryProgressRows(_Part):
    """`ProgressRows` in memory."""

    def put(self, progress: StepProgress, now: datetime) -> None:  # noqa: ARG002 (only rows have a time)
        """See the port."""
        self._world.progress[progress.job_id] = progress

    def get(self, job_id: str) -> StepProgress | None:
        """See the port."""
        return self._world.progress.get(job_id)

    def keep(self, job_id: str, canvases: Sequence[StepProgress]) -> None:
        """See the port."""
        self._world.canvases[job_id] = tuple(canvases)

    def kept(self, job_id: str) -> Sequence[StepProgress]:
        """See the port."""
        return self._world.canvases.get(job_id, ())


class MemorySwitches(_Part):
    """`Switches` in memory."""

    def get(self, name: str) -> Switch | None:
        """See the port."""
        return self._world.switches.get(name)

    def all(self) -> Sequence[Switch]:
        """See the port."""
        return [self._world.switches[name] for name in sorted(self._world.switches)]

    def save(self, switch: Switch) -> None:
        """See the port."""
        self._change(Kind.SWITCH, switch.name)
        self._world.switches[switch.name] = switch


class MemorySubscriptions(_Part):
    """`Subscriptions` in memory."""

    def add(self, subscription: Subscription) -> None:
        """See the port."""
        self._change(Kind.SUBSCRIPTION, subscription.id)
        self._world.subscriptions[subscription.id] = subscription

    def save(self, subscription: Subscription) -> None:
        """See the port."""
        self._change(Kind.SUBSCRIPTION, subscription.id)
        stored = self._world.subscriptions[subscription.id]
        _check_next(stored, subscription.version)
        self._world.subscriptions[subscription.id] = replace(subscription, events=stored.events)

    def get(self, subscription_id: str) -> Subscription | None:
        """See the port."""
        return self._world.subscriptions.get(subscription_id)

    def active(self) -> Sequence[Subscription]:
        """See the port."""
        found = [s for s in self._world.subscriptions.values() if s.state is SubscriptionState.ACTIVE]
        return sorted(found, key=lambda s: (s.created_at, s.id))

    def count_event(self, subscription_id: str) -> int:
        """See the port."""
        stored = self._world.subscriptions[subscription_id]
        self._world.subscriptions[subscription_id] = replace(stored, events=stored.events + 1)
        return stored.events + 1


class MemoryAssertions(_Part):
    """`Assertions` in memory."""

    def is_used(self, issuer: str, jti: str) -> bool:
        """See the port."""
        return (issuer, jti) in self._world.assertions

    def add(self, issuer: str, jti: str, expires_at: datetime) -> None:
        """See the port."""
        if (issuer, jti) in self._world.assertions:
            raise Race("lost-race", "The key is taken.")
        self._world.assertions[issuer, jti] = expires_at

    def forget(self, before: datetime) -> None:
        """See the port."""
        for key in [key for key, expires_at in self._world.assertions.items() if expires_at < before]:
            del self._world.assertions[key]


class MemorySessions(_Part):
    """`Sessions` in memory."""

    def add(self, session: Session) -> None:
        """See the port."""
        self._change(Kind.SESSION, session.id)
        self._world.sessions[session.id] = session

    def get(self, session_id: str) -> Session | None:
        """See the port."""
        return self._world.sessions.get(session_id)

    def seen(self, session_id: str, now: datetime) -> None:
        """See the port."""
        if session_id in self._world.sessions:
            self._world.sessions[session_id] = replace(self._world.sessions[session_id], seen_at=now)

    def remove(self, session_id: str) -> None:
        """See the port."""
        self._change(Kind.SESSION, session_id)
        self._world.sessions.pop(session_id, None)

    def forget(self, before: datetime) -> None:
        """See the port."""
        for key in [key for key, session in self._world.sessions.items() if session.expires_at < before]:
            del self._world.sessions[key]


class MemoryWorkers(_Part):
    """`Workers` in memory."""

    def put(self, worker: WorkerSeen) -> None:
        """See the port."""
        self._world.workers[worker.id] = worker

    def all(self) -> Sequence[WorkerSeen]:
        """See the port."""
        return sorted(self._world.workers.values(), key=lambda worker: (worker.started_at, worker.id))

    def remove(self, worker_id: str) -> None:
        """See the port."""
        self._world.workers.pop(worker_id, None)

    def forget(self, before: datetime) -> None:
        """See the port."""
        for key in [key for key, worker in self._world.workers.items() if worker.seen_at < before]:
            del self._world.workers[key]


class MemoryReaderStudies(_Part):
    """`ReaderStudies` in memory."""

    def add(self, study: ReaderStudy) -> None:
        """See the port."""
        _unique(self._world.studies.values(), lambda one: one.name, study)
        self._change(Kind.READER_STUDY, study.id)
        self._world.studies[study.id] = study

    def close(self, study_id: str, now: datetime) -> None:
        """See the port."""
        self._change(Kind.READER_STUDY, study_id)
        if self._world.studies[study_id].closed_at is not None:
            raise Race("lost-race", "It is closed.")
        self._world.studies[study_id] = replace(self._world.studies[study_id], closed_at=now)

    def get(self, study_id: str) -> ReaderStudy | None:
        """See the port."""
        return self._world.studies.get(study_id)

    def all(self) -> Sequence[ReaderStudy]:
        """See the port."""
        return sorted(self._world.studies.values(), key=lambda study: (-study.created_at.timestamp(), study.id))

    def put_grade(self, grade: Grade) -> None:
        """See the port."""
        self._change(Kind.READER_STUDY, grade.study_id)
        self._world.grades[grade.study_id, grade.number, grade.reader_id] = grade

    def grades(self, study_id: str, reader_id: str | None = None) -> Sequence[Grade]:
        """See the port."""
        keys = sorted(key for key in self._world.grades if key[0] == study_id and reader_id in (None, key[2]))
        return [self._world.grades[key] for key in keys]


class MemoryUnitOfWork:
    """`UnitOfWork` in memory; it holds the lock of its `Memory` while it is open."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise Fault("transaction-open", "A unit of work is one transaction at a time.")
        self.memory.lock.acquire()
        self._open = True
        self._begin()
        return self

    def _begin(self) -> None:
        self._duty = _Duty(self.memory.world.copied())
        self.patients = MemoryPatients(self._duty)
        self.orders = MemoryOrders(self._duty)
        self.priors = MemoryPriors(self._duty)
        self.reports = MemoryReports(self._duty, self.orders)
        self.jobs = MemoryJobs(self._duty)
        self.messages = MemoryMessages(self._duty)
        self.outbox = MemoryOutbox(self._duty)
        self.audit = MemoryTrail(self._duty, self.reports)
        self.retention = MemoryRetention(self._duty)
        self.progress = MemoryProgressRows(self._duty)
        self.switches = MemorySwitches(self._duty)
        self.assertions = MemoryAssertions(self._duty)
        self.subscriptions = MemorySubscriptions(self._duty)
        self.sessions = MemorySessions(self._duty)
        self.workers = MemoryWorkers(self._duty)
        self.reader_studies = MemoryReaderStudies(self._duty)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self.memory.lock.release()

    def foresee(self, sought: Sought) -> None:
        """See the port; nothing here is far away."""

    def commit(self) -> None:
        """See the port."""
        unrecorded = self._duty.changed - self._duty.recorded
        if unrecorded:
            kinds = ", ".join(sorted({kind for kind, _ in unrecorded}))
            raise Fault("audit-event-missing", f"A change of {kinds} has no audit event.")
        self.memory.world = self._duty.world
        self._begin()

    def rollback(self) -> None:
        """See the port."""
        self._begin()
