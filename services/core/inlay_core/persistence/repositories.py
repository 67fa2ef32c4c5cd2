"""Orders, patients, reports, jobs, messages and switches in the database, as the ports ask for them."""

# ruff: noqa: D102 (what the methods promise is written once, in application/ports.py)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
    union_all,
    update,
)

from inlay_core.application.ports import (
    MessageOutcome,
    Page,
    QueueCount,
    ReportRow,
    ReportSearch,
    SenderCount,
    Sort,
    StepProgress,
    StoredMessage,
    Switch,
    TimeBound,
)
from inlay_core.domain.audit import Kind
from inlay_core.domain.errors import Invalid, Stale
from inlay_core.domain.job import OPEN_STATES, Job, JobKind, JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, Priority
from inlay_core.domain.patient import Patient
from inlay_core.domain.prior import PriorReport
from inlay_core.domain.report import Author, Report
from inlay_core.domain.subscription import Subscription, SubscriptionState
from inlay_core.domain.switch import Allowance, Scope
from inlay_core.persistence import mapping
from inlay_core.persistence.columns import Moment
from inlay_core.persistence.encryption import KeyRing, opened
from inlay_core.persistence.statements import LookUp, Statements
from inlay_core.persistence.tables import (
    ASSERTIONS,
    CANVASES,
    JOBS,
    MESSAGES,
    ORDERS,
    PATIENTS,
    PRIOR_REPORTS,
    PROGRESS,
    REPORT_VERSIONS,
    REPORTS,
    SUBSCRIPTIONS,
    SWITCHES,
)

# Public ones are those that intake foresees.
BY_PATIENT: Final = LookUp(PATIENTS, ("assigner", "identifier"))
_BY_IDENTIFIER: Final = LookUp(PATIENTS, ("identifier",))
_OLDEST_FIRST: Final = ("created_at", "id")
BY_PLACER: Final = LookUp(ORDERS, ("assigner", "placer_number"), _OLDEST_FIRST)
_BY_FILLER: Final = LookUp(ORDERS, ("assigner", "filler_number"), _OLDEST_FIRST)
BY_ACCESSION: Final = LookUp(ORDERS, ("accession_assigner", "accession_number"), _OLDEST_FIRST)
_BY_ACCESSION_OF_ANY: Final = LookUp(ORDERS, ("accession_number",), _OLDEST_FIRST)
# Without the raw bytes: a sender that numbers every message 1 has many of them.
DIGESTS: Final = LookUp(MESSAGES, ("sending_application", "sending_facility", "control_id"), columns=("sha256",))


def _save_next_version(statements: Statements, table: Table, values: mapping.Values) -> None:
    """Update a row whose stored version must be the one before."""
    statements.must_change_one(
        update(table).where(table.c.id == values["id"], table.c.version == values["version"] - 1).values(values)
    )


class SqlPatients:
    """`Patients` on the table `patients`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, patient: Patient) -> None:
        self._statements.changed.add((Kind.PATIENT, patient.id))
        self._statements.insert(PATIENTS, mapping.patient_values(patient))

    def save(self, patient: Patient) -> None:
        self._statements.changed.add((Kind.PATIENT, patient.id))
        _save_next_version(self._statements, PATIENTS, mapping.patient_values(patient))

    def get(self, patient_id: str) -> Patient | None:
        row = self._statements.one(select(PATIENTS).where(PATIENTS.c.id == patient_id))
        return mapping.patient_of(row) if row else None

    def find(self, assigner: str | None, identifier: str) -> Sequence[Patient]:
        if assigner is None:
            rows = self._statements.matching(_BY_IDENTIFIER, identifier)
        else:
            rows = self._statements.matching(BY_PATIENT, assigner, identifier)
        return [mapping.patient_of(row) for row in rows]

    def merged_into(self, patient_id: str) -> Sequence[Patient]:
        query = select(PATIENTS).where(PATIENTS.c.merged_into == patient_id).order_by(PATIENTS.c.id)
        return [mapping.patient_of(row) for row in self._statements.all(query)]

    def by_ids(self, patient_ids: Iterable[str]) -> Mapping[str, Patient]:
        """Patients by id, for rows that refer to them."""
        rows = self._statements.all(select(PATIENTS).where(PATIENTS.c.id.in_(set(patient_ids))))
        return {row.id: mapping.patient_of(row) for row in rows}


class SqlOrders:
    """`Orders` on the table `orders`."""

    def __init__(self, statements: Statements, patients: SqlPatients) -> None:
        self._statements = statements
        self._patients = patients

    def add(self, order: Order) -> None:
        self._statements.changed.add((Kind.ORDER, order.id))
        self._statements.insert(ORDERS, mapping.order_values(order))

    def save(self, order: Order) -> None:
        self._statements.changed.add((Kind.ORDER, order.id))
        _save_next_version(self._statements, ORDERS, mapping.order_values(order))

    def get(self, order_id: str) -> Order | None:
        return self._first(ORDERS.c.id == order_id)

    def by_placer(self, assigner: str, placer_number: str) -> Order | None:
        return next(iter(self._matching(BY_PLACER, assigner, placer_number)), None)

    def by_filler(self, assigner: str, filler_number: str) -> Order | None:
        return next(iter(self._matching(_BY_FILLER, assigner, filler_number)), None)

    def by_accession(self, assigner: str | None, accession_number: str) -> Sequence[Order]:
        if assigner is None:
            return self._matching(_BY_ACCESSION_OF_ANY, accession_number)
        return self._matching(BY_ACCESSION, assigner, accession_number)

    def by_study(self, study_instance_uid: str) -> Sequence[Order]:
        return self._all(ORDERS.c.study_instance_uid == study_instance_uid)

    def with_identifier(self, assigner: str | None, number: str) -> Sequence[Order]:
        columns = (
            (ORDERS.c.assigner, ORDERS.c.placer_number),
            (ORDERS.c.assigner, ORDERS.c.filler_number),
            (ORDERS.c.accession_assigner, ORDERS.c.accession_number),
        )
        return self._all(or_(*(_identified(owner, value, [(assigner, number)]) for owner, value in columns)))

    def of_patient(self, patient_id: str) -> Sequence[Order]:
        return self._all(ORDERS.c.patient_id == patient_id)

    def by_ids(self, order_ids: Sequence[str]) -> Mapping[str, Order]:
        """Orders by id, for a page of reports."""
        return {order.id: order for order in self._all(ORDERS.c.id.in_(order_ids))}

    def _first(self, where: ColumnElement[bool]) -> Order | None:
        return next(iter(self._all(where)), None)

    def _matching(self, look_up: LookUp, *values: str) -> list[Order]:
        return self._with_patients(self._statements.matching(look_up, *values))

    def _all(self, where: ColumnElement[bool]) -> list[Order]:
        query = select(ORDERS).where(where).order_by(ORDERS.c.created_at, ORDERS.c.id)
        return self._with_patients(self._statements.all(query))

    def _with_patients(self, rows: Sequence[Row[Any]]) -> list[Order]:
        patients = self._patients.by_ids(row.patient_id for row in rows) if rows else {}
        return [mapping.order_of(row, patients[row.patient_id]) for row in rows]


class SqlPriors:
    """`Priors` on the table `prior_reports`."""

    def __init__(self, statements: Statements, patients: SqlPatients) -> None:
        self._statements = statements
        self._patients = patients

    def add(self, prior: PriorReport) -> None:
        self._statements.changed.add((Kind.PRIOR, prior.id))
        self._statements.insert(PRIOR_REPORTS, mapping.prior_values(prior))

    def save(self, prior: PriorReport) -> None:
        self._statements.changed.add((Kind.PRIOR, prior.id))
        _save_next_version(self._statements, PRIOR_REPORTS, mapping.prior_values(prior))

    def find(self, assigner: str, number: str) -> PriorReport | None:
        where = and_(PRIOR_REPORTS.c.assigner == assigner, PRIOR_REPORTS.c.number == number)
        return next(iter(self._all(select(PRIOR_REPORTS).where(where))), None)

    def of_patients(self, patient_ids: Sequence[str], limit: int = 200) -> Sequence[PriorReport]:
        when = func.coalesce(PRIOR_REPORTS.c.performed_at, PRIOR_REPORTS.c.reported_at, PRIOR_REPORTS.c.created_at)
        query = select(PRIOR_REPORTS).where(PRIOR_REPORTS.c.patient_id.in_(list(patient_ids)))
        return self._all(query.order_by(when.desc(), PRIOR_REPORTS.c.id).limit(limit))

    def _all(self, query: Select[Any]) -> list[PriorReport]:
        rows = self._statements.all(query)
        patients = self._patients.by_ids(row.patient_id for row in rows) if rows else {}
        return [mapping.prior_of(row, patients[row.patient_id]) for row in rows]


class SqlReports:
    """`Reports`: the newest version's keys in `reports`, the text of each version in `report_versions`."""

    def __init__(self, statements: Statements, orders: SqlOrders) -> None:
        self._statements = statements
        self._orders = orders

    def add(self, report: Report) -> None:
        self._statements.changed.add((Kind.REPORT, report.id))
        self._statements.insert(REPORTS, mapping.report_values(report))
        self._statements.insert(REPORT_VERSIONS, mapping.version_values(report))

    def save(self, report: Report) -> None:
        self._statements.changed.add((Kind.REPORT, report.id))
        _save_next_version(self._statements, REPORTS, mapping.report_values(report))
        self._statements.insert(REPORT_VERSIONS, mapping.version_values(report))

    def get(self, report_id: str) -> Report | None:
        return self._one(_newest().where(REPORTS.c.id == report_id))

    def by_order(self, order_id: str) -> Report | None:
        return self._one(_newest().where(REPORTS.c.order_id == order_id))

    def version(self, report_id: str, version: int) -> Report | None:
        return self._one(_versions().where(REPORTS.c.id == report_id, REPORT_VERSIONS.c.version == version))

    def versions(self, report_id: str) -> Sequence[Report]:
        query = _versions().where(REPORTS.c.id == report_id).order_by(REPORT_VERSIONS.c.version)
        return [_report(row) for row in self._statements.all(query)]

    def search(self, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        where = _conditions(search)
        counted = select(func.count()).select_from(_searched(search, None)).where(*where)
        total = self._statements.run(counted).scalar_one()
        order = (*_sorted_by(sort), REPORTS.c.id)
        ids = select(REPORTS.c.id).select_from(_searched(search, sort)).where(*where).order_by(*order)
        ids = ids.offset(offset).limit(limit)
        wanted = [row.id for row in self._statements.all(ids)]
        found = {r.id: r for r in map(_report, self._statements.all(_newest().where(REPORTS.c.id.in_(wanted))))}
        orders = self._orders.by_ids([report.order_id for report in found.values()])
        rows = tuple(ReportRow(found[i], orders[found[i].order_id]) for i in wanted)
        return Page(rows, total, offset, limit)

    def history(self, since: datetime | None, offset: int, limit: int) -> Page:
        where = [] if since is None else [REPORT_VERSIONS.c.updated_at >= since]
        total = self._statements.run(select(func.count()).select_from(REPORT_VERSIONS).where(*where)).scalar_one()
        newest = (REPORT_VERSIONS.c.updated_at.desc(), REPORTS.c.id, REPORT_VERSIONS.c.version.desc())
        query = _versions().where(*where).order_by(*newest).offset(offset).limit(limit)
        versions = [_report(row) for row in self._statements.all(query)]
        orders = self._orders.by_ids([version.order_id for version in versions])
        return Page(tuple(ReportRow(v, orders[v.order_id]) for v in versions), total, offset, limit)

    def counts(self, at_most: int) -> Mapping[Status, int]:
        # The worklist asks every second: what was signed over the years is not gone through each time.
        some = [select(REPORTS.c.status).where(REPORTS.c.status == one.value).limit(at_most) for one in Status]
        found = union_all(*(select(each.subquery()) for each in some)).subquery()
        query = select(found.c.status, func.count().label("reports")).group_by(found.c.status)
        return {Status(row.status): row.reports for row in self._statements.all(query)}

    def openers(self, report_ids: Sequence[str]) -> Mapping[str, Author]:
        first = (
            select(REPORT_VERSIONS.c.report_id, func.min(REPORT_VERSIONS.c.version).label("version"))
            .where(REPORT_VERSIONS.c.report_id.in_(list(report_ids)), REPORT_VERSIONS.c.status == Status.IN_REVIEW)
            .group_by(REPORT_VERSIONS.c.report_id)
            .subquery()
        )
        at = and_(REPORTS.c.id == first.c.report_id, REPORT_VERSIONS.c.version == first.c.version)
        found = map(_report, self._statements.all(_versions().join(first, at)))
        return {report.id: report.author for report in found}

    def drafted(
        self, since: datetime, until: datetime, limit: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[tuple[datetime, str]]:
        columns = (REPORT_VERSIONS.c.updated_at, REPORT_VERSIONS.c.report_id)
        query = (
            select(*columns)
            # A version gets this status by the arrival of its draft and by nothing else.
            .where(REPORT_VERSIONS.c.status == Status.DRAFTED.value)
            .where(REPORT_VERSIONS.c.updated_at >= since, REPORT_VERSIONS.c.updated_at < until)
            .order_by(*columns)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(*columns) > tuple_(*after))
        return [(row.updated_at, row.report_id) for row in self._statements.all(query)]

    def versions_of(self, report_ids: Sequence[str]) -> Mapping[str, Sequence[Report]]:
        query = _versions().where(REPORTS.c.id.in_(list(report_ids))).order_by(REPORTS.c.id, REPORT_VERSIONS.c.version)
        found: dict[str, list[Report]] = {}
        for row in self._statements.all(query):
            found.setdefault(row.id, []).append(_report(row))
        return found

    def _one(self, query: Select[Any]) -> Report | None:
        row = self._statements.one(query)
        return _report(row) if row else None


# The study's own time where its images told it, else the one that the order plans.
_STUDIED = func.coalesce(ORDERS.c.studied_at, ORDERS.c.scheduled_at, type_=Moment)


_BY_ORDER: Final = frozenset({Sort.WORKLIST, Sort.STUDIED_FIRST, Sort.STUDIED_LAST})


def _searched(search: ReportSearch, sort: Sort | None) -> FromClause:
    """Reports, and what else their search or their order looks at: joins of everything are what long lists wait for."""
    asks_patients = search.patient_ids or search.patient_identifiers
    asks_orders = search.study_instance_uids or search.accessions or search.procedures or search.studied
    if not (asks_patients or asks_orders or sort in _BY_ORDER):
        return REPORTS
    joined = REPORTS.join(ORDERS, ORDERS.c.id == REPORTS.c.order_id)
    return joined.join(PATIENTS, PATIENTS.c.id == ORDERS.c.patient_id) if asks_patients else joined


def _sorted_by(sort: Sort) -> tuple[ColumnElement[Any], ...]:
    match sort:
        case Sort.WORKLIST:
            return (ORDERS.c.priority, REPORTS.c.created_at)
        case Sort.NEWEST:
            return (REPORTS.c.updated_at.desc(),)
        case Sort.OLDEST:
            return (REPORTS.c.updated_at,)
        case Sort.STUDIED_FIRST:
            return (_STUDIED.nulls_last(),)
        case Sort.STUDIED_LAST:
            return (_STUDIED.desc().nulls_last(),)
        case Sort.SIGNED_FIRST:
            return (REPORTS.c.signed_at.nulls_last(),)
        case Sort.SIGNED_LAST:
            return (REPORTS.c.signed_at.desc().nulls_last(),)


def _versions() -> Select[Any]:
    head = (REPORTS.c.id, REPORTS.c.order_id, REPORTS.c.created_at)
    text = (
        REPORT_VERSIONS.c.version,
        REPORT_VERSIONS.c.status,
        REPORT_VERSIONS.c.updated_at,
        REPORT_VERSIONS.c.body,
    )
    return select(*head, *text).join_from(REPORTS, REPORT_VERSIONS, REPORT_VERSIONS.c.report_id == REPORTS.c.id)


def _newest() -> Select[Any]:
    return _versions().where(REPORT_VERSIONS.c.version == REPORTS.c.version)


def _report(row: Row[Any]) -> Report:
    return mapping.report_of(row.id, row.order_id, row.created_at, row)


def _conditions(search: ReportSearch) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    for column, values in (
        (REPORTS.c.id, search.ids),
        (REPORTS.c.order_id, search.order_ids),
        (ORDERS.c.study_instance_uid, search.study_instance_uids),
    ):
        if values:
            where.append(column.in_(values))
    if search.patient_ids:
        # Signed reports stay with a record that was merged away: whoever asks for the survivor gets them as well.
        ids = list(search.patient_ids)
        where.append(or_(ORDERS.c.patient_id.in_(ids), PATIENTS.c.merged_into.in_(ids)))
    if search.statuses is not None:
        where.append(REPORTS.c.status.in_([status.value for status in search.statuses]))
    if search.patient_identifiers:
        survivor = PATIENTS.alias("survivor")
        survivors = select(survivor.c.id).where(
            _identified(survivor.c.assigner, survivor.c.identifier, search.patient_identifiers)
        )
        own = _identified(PATIENTS.c.assigner, PATIENTS.c.identifier, search.patient_identifiers)
        where.append(or_(own, PATIENTS.c.merged_into.in_(survivors)))
    if search.accessions:
        where.append(_identified(ORDERS.c.accession_assigner, ORDERS.c.accession_number, search.accessions))
    if search.procedures:
        code = func.coalesce(ORDERS.c.procedure_code, "")
        where.append(_identified(ORDERS.c.procedure_system, code, search.procedures))
    where += [_bounded(REPORTS.c.updated_at, bound) for bound in search.last_updated]
    where += [_bounded(REPORTS.c.signed_at, bound) for bound in search.signed]
    where += [_bounded(_STUDIED, bound) for bound in search.studied]
    return where


def _identified(
    assigner: ColumnElement[str], value: ColumnElement[str], wanted: Iterable[tuple[str | None, str]]
) -> ColumnElement[bool]:
    return or_(*(value == v if a is None else and_(value == v, assigner == a) for a, v in wanted))


def _bounded(column: ColumnElement[datetime], bound: TimeBound) -> ColumnElement[bool]:
    """FHIR R4 search prefixes (3.1.1.4.6) on a column that is a moment, against the period [start, end)."""
    match bound.op:
        case "eq":
            return and_(column >= bound.start, column < bound.end)
        case "ne":
            return or_(column < bound.start, column >= bound.end)
        case "gt" | "sa":
            return column >= bound.end
        case "ge":
            return column >= bound.start
        case "lt" | "eb":
            return column < bound.start
        case "le":
            return column < bound.end
        case _:
            raise ValueError("unknown prefix")


class SqlJobs:
    """`Jobs` on the table `jobs`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, job: Job) -> None:
        self._statements.changed.add((Kind.JOB, job.id))
        self._statements.insert(JOBS, mapping.job_values(job))

    def save(self, job: Job, *, fence: int) -> None:
        self._statements.changed.add((Kind.JOB, job.id))
        self._statements.must_change_one(
            update(JOBS).where(JOBS.c.id == job.id, JOBS.c.fence == fence).values(mapping.job_values(job))
        )

    def get(self, job_id: str) -> Job | None:
        row = self._statements.one(select(JOBS).where(JOBS.c.id == job_id))
        return mapping.job_of(row) if row else None

    def of_report(self, report_id: str) -> Sequence[Job]:
        return self._all(select(JOBS).where(JOBS.c.report_id == report_id).order_by(JOBS.c.created_at, JOBS.c.id))

    def with_model(self, digest_prefix: str) -> Job | None:
        # The record is stored as compact JSON text (JsonText), so the pair stands in it exactly like this.
        stated = f'"model_digest":"{digest_prefix}'
        record = type_coerce(JOBS.c.run_record, Text)
        row = self._statements.one(select(JOBS).where(record.contains(stated, autoescape=True)).limit(1))
        return mapping.job_of(row) if row else None

    def claim(
        self, now: datetime, lease_until: datetime, allowed: Allowance, held_reports: Sequence[str] = ()
    ) -> Job | None:
        # One statement: on PostgreSQL the inner query skips rows that another worker is taking at this moment, on
        # SQLite the whole transaction holds the write lock.
        if not allowed.kinds:
            return None
        best = (
            select(JOBS.c.id)
            .where(
                JOBS.c.state == JobState.QUEUED.value,
                *_allowed(allowed),
                or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now),
            )
            .order_by(
                JOBS.c.priority,
                case((JOBS.c.report_id.in_(list(held_reports)), 0), else_=1),
                JOBS.c.created_at,
                JOBS.c.id,
            )
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(JOBS)
            .where(JOBS.c.id == best.scalar_subquery(), JOBS.c.state == JobState.QUEUED.value)
            .values(
                state=JobState.RUNNING.value,
                fence=JOBS.c.fence + 1,
                attempts=JOBS.c.attempts + 1,
                lease_until=lease_until,
                not_before=None,
            )
            .returning(JOBS)
        )
        row = self._statements.one(taken)
        if row is None:
            return None
        self._statements.changed.add((Kind.JOB, row.id))
        return mapping.job_of(row)

    def renew(self, job_id: str, fence: int, lease_until: datetime) -> Job:
        held = and_(JOBS.c.id == job_id, JOBS.c.fence == fence, JOBS.c.state == JobState.RUNNING.value)
        row = self._statements.one(update(JOBS).where(held).values(lease_until=lease_until).returning(JOBS))
        if row is None:
            raise Stale("fence-moved", "The job is no longer held under this fence.", "job.fence")
        return mapping.job_of(row)

    def in_state(self, state: JobState, limit: int, after: tuple[datetime, str] | None = None) -> Sequence[Job]:
        query = select(JOBS).where(JOBS.c.state == state.value).order_by(JOBS.c.created_at, JOBS.c.id).limit(limit)
        if after is not None:
            query = query.where(tuple_(JOBS.c.created_at, JOBS.c.id) > tuple_(*after))
        return self._all(query)

    def expired(self, now: datetime, limit: int) -> Sequence[Job]:
        over = and_(JOBS.c.state == JobState.RUNNING.value, JOBS.c.lease_until < now)
        return self._all(select(JOBS).where(over).order_by(JOBS.c.lease_until).limit(limit))

    def unwoken(self, woken_before: datetime, now: datetime, allowed: Allowance, limit: int) -> Sequence[Job]:
        forgotten = and_(
            JOBS.c.state == JobState.QUEUED.value,
            *_allowed(allowed),
            func.coalesce(JOBS.c.woken_at, JOBS.c.created_at) < woken_before,
            or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now),
        )
        return self._all(select(JOBS).where(forgotten).order_by(JOBS.c.priority, JOBS.c.created_at).limit(limit))

    def woken(self, job_ids: Sequence[str], now: datetime) -> None:
        if job_ids:
            self._statements.run(update(JOBS).where(JOBS.c.id.in_(job_ids)).values(woken_at=now))

    def count(self, states: Iterable[JobState]) -> Mapping[tuple[JobState, Priority], int]:
        query = (
            select(JOBS.c.state, JOBS.c.priority, func.count().label("number"))
            .where(JOBS.c.state.in_([state.value for state in states]))
            .group_by(JOBS.c.state, JOBS.c.priority)
        )
        ranks = tuple(Priority)
        return {(JobState(row.state), ranks[row.priority]): row.number for row in self._statements.all(query)}

    def census(self, failed_since: datetime) -> Sequence[QueueCount]:
        counted = or_(
            JOBS.c.state.in_([state.value for state in OPEN_STATES]),
            and_(JOBS.c.state == JobState.FAILED.value, JOBS.c.finished_at >= failed_since),
        )
        columns = (JOBS.c.kind, JOBS.c.state, JOBS.c.priority)
        oldest = func.min(JOBS.c.created_at, type_=Moment).label("oldest")
        query = select(*columns, func.count().label("number"), oldest).where(counted).group_by(*columns)
        ranks = tuple(Priority)
        found = [
            QueueCount(JobKind(row.kind), JobState(row.state), ranks[row.priority], row.number, row.oldest)
            for row in self._statements.all(query)
        ]
        return sorted(found, key=lambda one: (one.kind, one.state, one.priority.rank))

    def of_reports(self, report_ids: Sequence[str]) -> Sequence[Job]:
        query = select(JOBS).where(JOBS.c.report_id.in_(list(report_ids)))
        return self._all(query.order_by(JOBS.c.created_at, JOBS.c.id))

    def ahead(self, job: Job, now: datetime) -> int:
        mine = (job.priority.rank, job.created_at, job.id)
        query = select(func.count()).where(
            JOBS.c.state == JobState.QUEUED.value,
            or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now),
            tuple_(JOBS.c.priority, JOBS.c.created_at, JOBS.c.id) < tuple_(*mine),
        )
        return int(self._statements.all(query)[0][0])

    def queued_since(self) -> Mapping[Priority, datetime]:
        # The index by which jobs are claimed answers this.
        query = (
            select(JOBS.c.priority, func.min(JOBS.c.created_at).label("since"))
            .where(JOBS.c.state == JobState.QUEUED.value)
            .group_by(JOBS.c.priority)
        )
        ranks = tuple(Priority)
        return {ranks[row.priority]: row.since for row in self._statements.all(query)}

    def _all(self, query: Select[Any]) -> list[Job]:
        return [mapping.job_of(row) for row in self._statements.all(query)]


def _allowed(allowed: Allowance) -> list[ColumnElement[bool]]:
    """Conditions on jobs: of these kinds, and none that a stop covers."""
    kinds = JOBS.c.kind.in_([kind.value for kind in allowed.kinds])
    return [kinds, *(~_covered(stop) for stop in allowed.stops)]


def _covered(stop: Scope) -> ColumnElement[bool]:
    orders = select(REPORTS.c.id).join(ORDERS, ORDERS.c.id == REPORTS.c.order_id)
    if stop.site is not None:
        orders = orders.where(or_(ORDERS.c.assigner == stop.site, ORDERS.c.accession_assigner == stop.site))
    if stop.modality is not None:
        orders = orders.where(ORDERS.c.modality == stop.modality)
    use = [] if stop.use is None else [JOBS.c.kind == stop.use.value]
    return and_(JOBS.c.report_id.in_(orders), *use)


class SqlMessages:
    """`Messages` on the table `messages`; a key ring encrypts their bytes, and no other column."""

    def __init__(self, statements: Statements, ring: KeyRing | None = None) -> None:
        self._statements = statements
        self._ring = ring

    def add(self, message: StoredMessage) -> None:
        self._statements.changed.add((Kind.MESSAGE, message.id))
        self._statements.insert(MESSAGES, mapping.message_values(message, self._ring))

    def replace(self, message: StoredMessage) -> None:
        self._statements.changed.add((Kind.MESSAGE, message.id))
        self._statements.must_change_one(
            update(MESSAGES).where(MESSAGES.c.id == message.id).values(mapping.message_values(message, self._ring))
        )

    def find(self, application: str, facility: str, control_id: str, sha256: str) -> StoredMessage | None:
        where = and_(_of_sender(application, facility, control_id), MESSAGES.c.sha256 == sha256)
        row = self._statements.one(select(MESSAGES).where(where))
        return mapping.message_of(row, self._ring) if row else None

    def digests(self, application: str, facility: str, control_id: str) -> Sequence[str]:
        return [row.sha256 for row in self._statements.matching(DIGESTS, application, facility, control_id)]

    def get(self, message_id: str) -> StoredMessage | None:
        row = self._statements.one(select(MESSAGES).where(MESSAGES.c.id == message_id))
        return mapping.message_of(row, self._ring) if row else None

    def received(
        self,
        *,
        outcome: MessageOutcome | None = None,
        since: datetime | None = None,
        application: str | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> Sequence[StoredMessage]:
        query = select(MESSAGES).order_by(MESSAGES.c.received_at, MESSAGES.c.id).limit(limit)
        if outcome is not None:
            query = query.where(MESSAGES.c.outcome == outcome.value)
        if since is not None:
            query = query.where(MESSAGES.c.received_at >= since)
        if application is not None:
            query = query.where(MESSAGES.c.sending_application == application)
        if after is not None:
            query = query.where(tuple_(MESSAGES.c.received_at, MESSAGES.c.id) > tuple_(*after))
        return [mapping.message_of(row, self._ring) for row in self._statements.all(query)]

    def reencrypt(self, after: str, limit: int) -> tuple[int, str] | None:
        if self._ring is None:
            raise Invalid("bad-setting", "There is no key ring.", "INLAY_MESSAGE_KEYS")
        wanted = MESSAGES.c.raw_key.is_distinct_from(self._ring.current or None)
        query = select(MESSAGES.c.id, MESSAGES.c.raw, MESSAGES.c.raw_key).where(wanted, MESSAGES.c.id > after)
        rows = self._statements.all(query.order_by(MESSAGES.c.id).limit(limit))
        changed = 0
        for row in rows:
            raw_key, raw = self._ring.encrypt(opened(row.raw, row.raw_key, row.id, self._ring), row.id)
            same = and_(MESSAGES.c.id == row.id, MESSAGES.c.raw_key.is_not_distinct_from(row.raw_key))
            self._statements.must_change_one(update(MESSAGES).where(same).values(raw=raw, raw_key=raw_key))
            changed += 1
        return (changed, rows[-1].id) if rows else None

    def senders(self, since: datetime) -> Sequence[SenderCount]:
        sender = (MESSAGES.c.sending_application, MESSAGES.c.sending_facility)
        refused = MESSAGES.c.outcome == MessageOutcome.REFUSED.value
        query = (
            select(
                *sender,
                func.count().label("number"),
                func.sum(case((refused, 1), else_=0)).label("refused"),
                func.max(MESSAGES.c.received_at, type_=Moment).label("last_at"),
                func.max(case((refused, MESSAGES.c.received_at)), type_=Moment).label("last_refused_at"),
            )
            .where(MESSAGES.c.received_at >= since)
            .group_by(*sender)
            .order_by(*sender)
        )
        return [
            SenderCount(
                row.sending_application,
                row.sending_facility,
                row.number,
                row.refused,
                row.last_at,
                row.last_refused_at,
                self._error_at(row.sending_application, row.sending_facility, row.last_refused_at),
            )
            for row in self._statements.all(query)
        ]

    def _error_at(self, application: str, facility: str, moment: datetime | None) -> str | None:
        if moment is None:
            return None
        own = (MESSAGES.c.sending_application == application, MESSAGES.c.sending_facility == facility)
        refused = (MESSAGES.c.received_at == moment, MESSAGES.c.outcome == MessageOutcome.REFUSED.value)
        row = self._statements.one(select(MESSAGES.c.error_code).where(*own, *refused).order_by(MESSAGES.c.id.desc()))
        return row.error_code if row else None


def _of_sender(application: str, facility: str, control_id: str) -> ColumnElement[bool]:
    return and_(
        MESSAGES.c.sending_application == application,
        MESSAGES.c.sending_facility == facility,
        MESSAGES.c.control_id == control_id,
    )


class SqlProgressRows:
    """`ProgressRows` on the tables `progress`, one row per job, overwritten step by step, and `canvases`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def put(self, progress: StepProgress, now: datetime) -> None:
        values = {
            "sequence": progress.sequence,
            "step": progress.step,
            "steps": progress.steps,
            "text": progress.text,
            "accepted": [list(span) for span in progress.accepted],
            "updated_at": now,
        }
        changed = self._statements.run(update(PROGRESS).where(PROGRESS.c.job_id == progress.job_id).values(values))
        if changed.rowcount == 0:
            self._statements.insert(PROGRESS, values | {"job_id": progress.job_id})

    def get(self, job_id: str) -> StepProgress | None:
        row = self._statements.one(select(PROGRESS).where(PROGRESS.c.job_id == job_id))
        return mapping.progress_of(row) if row else None

    def keep(self, job_id: str, canvases: Sequence[StepProgress]) -> None:
        self._statements.insert(CANVASES, {"job_id": job_id, "body": mapping.canvases_body(canvases)})

    def kept(self, job_id: str) -> Sequence[StepProgress]:
        row = self._statements.one(select(CANVASES).where(CANVASES.c.job_id == job_id))
        return mapping.canvases_of(job_id, row.body) if row else ()


class SqlSwitches:
    """`Switches` on the table `switches`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def get(self, name: str) -> Switch | None:
        row = self._statements.one(select(SWITCHES).where(SWITCHES.c.name == name))
        return Switch(row.name, row.is_on, row.changed_at, row.changed_by) if row else None

    def all(self) -> Sequence[Switch]:
        rows = self._statements.all(select(SWITCHES).order_by(SWITCHES.c.name))
        return [Switch(row.name, row.is_on, row.changed_at, row.changed_by) for row in rows]

    def save(self, switch: Switch) -> None:
        self._statements.changed.add((Kind.SWITCH, switch.name))
        values = {"is_on": switch.on, "changed_at": switch.changed_at, "changed_by": switch.changed_by}
        changed = self._statements.run(update(SWITCHES).where(SWITCHES.c.name == switch.name).values(values))
        if changed.rowcount == 0:
            self._statements.insert(SWITCHES, values | {"name": switch.name})


class SqlAssertions:
    """`Assertions` on the table `assertions`; its key is what makes each good once."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def is_used(self, issuer: str, jti: str) -> bool:
        named = and_(ASSERTIONS.c.issuer == issuer, ASSERTIONS.c.jti == jti)
        return self._statements.one(select(ASSERTIONS.c.jti).where(named)) is not None

    def add(self, issuer: str, jti: str, expires_at: datetime) -> None:
        self._statements.insert(ASSERTIONS, {"issuer": issuer, "jti": jti, "expires_at": expires_at})

    def forget(self, before: datetime) -> None:
        self._statements.run(delete(ASSERTIONS).where(ASSERTIONS.c.expires_at < before))


class SqlSubscriptions:
    """`Subscriptions` on the table `subscriptions`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def add(self, subscription: Subscription) -> None:
        self._statements.changed.add((Kind.SUBSCRIPTION, subscription.id))
        self._statements.insert(SUBSCRIPTIONS, mapping.subscription_values(subscription))

    def save(self, subscription: Subscription) -> None:
        self._statements.changed.add((Kind.SUBSCRIPTION, subscription.id))
        # The count is the relay's; whoever changes the state has read an older one.
        values = {k: v for k, v in mapping.subscription_values(subscription).items() if k != "events"}
        _save_next_version(self._statements, SUBSCRIPTIONS, values)

    def get(self, subscription_id: str) -> Subscription | None:
        row = self._statements.one(select(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.id == subscription_id))
        return mapping.subscription_of(row) if row else None

    def active(self) -> Sequence[Subscription]:
        wanted = SUBSCRIPTIONS.c.state == SubscriptionState.ACTIVE.value
        query = select(SUBSCRIPTIONS).where(wanted).order_by(SUBSCRIPTIONS.c.created_at, SUBSCRIPTIONS.c.id)
        return [mapping.subscription_of(row) for row in self._statements.all(query)]

    def count_event(self, subscription_id: str) -> int:
        counted = (
            update(SUBSCRIPTIONS)
            .where(SUBSCRIPTIONS.c.id == subscription_id)
            .values(events=SUBSCRIPTIONS.c.events + 1)
            .returning(SUBSCRIPTIONS.c.events)
        )
        return int(self._statements.run(counted).scalar_one())
