"""What the FHIR endpoint needs from Inlay, as one protocol. The adapter calls the core's queries, which ask for rights.

Each method raises the core's errors: Forbidden where the actor lacks the permission, NotFound where nothing is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from inlay_fhir.http import FhirRequest
from inlay_fhir.mapping.core import (
    Actor,
    AuditEvent,
    Detail,
    InfillRequest,
    Job,
    Kind,
    Order,
    OrderCommand,
    OrderCondition,
    Outcome,
    Page,
    Patient,
    Placed,
    Report,
    ReportRow,
    ReportSearch,
    Sort,
    Standing,
    Status,
    Subscription,
    Tag,
)


@dataclass(frozen=True, slots=True)
class Access:
    """Something that was read, or refused, for the trail. The fields are the arguments of `queries.record_access`."""

    tag: Tag
    subject: tuple[Kind, str]
    report_id: str | None = None
    version: int | None = None
    outcome: Outcome = Outcome.SUCCESS
    detail: Mapping[str, Detail] = field(default_factory=dict)
    request_id: str | None = None

    def of(self, request: FhirRequest) -> Access:
        """The access as the one of that request."""
        return replace(self, request_id=request.request_id)


class FhirStore(Protocol):
    """What one request at a time asks for; safe to be called from several threads."""

    def search_reports(self, actor: Actor, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        """`queries.search_reports`: one page of the newest versions that fit. `limit` may be 0: the total alone."""
        ...

    def report(self, actor: Actor, report_id: str, version: int | None = None) -> ReportRow:
        """`queries.read_report`: the newest version, or that one."""
        ...

    def history(self, actor: Actor, since: datetime | None, offset: int, limit: int) -> Page:
        """`queries.report_history`: all versions of all reports, the newest first."""
        ...

    def versions(self, actor: Actor, report_id: str) -> Sequence[Report]:
        """`queries.report_versions`: all versions, the first one first."""
        ...

    def jobs(self, actor: Actor, report_id: str) -> Sequence[Job]:
        """`queries.jobs_of_report`: with the right to read reports, because run records belong to the report."""
        ...

    def job(self, actor: Actor, job_id: str) -> Job:
        """`queries.read_job`."""
        ...

    def order(self, actor: Actor, order_id: str) -> Order:
        """`queries.read_order`."""
        ...

    def patient(self, actor: Actor, patient_id: str) -> Patient:
        """`queries.read_patient`."""
        ...

    def audit_event(self, actor: Actor, event_id: str) -> AuditEvent:
        """`queries.read_audit_event`."""
        ...

    def run_with_model(self, actor: Actor, digest_prefix: str) -> Mapping[str, Any]:
        """`queries.run_with_model`: a run record whose `model_digest` begins so; NotFound when no job used it."""
        ...

    def orders(self, actor: Actor, number: str, assigner: str | None) -> Sequence[Order]:
        """`queries.orders_with_identifier`."""
        ...

    def patients(self, actor: Actor, identifier: str, assigner: str | None) -> Sequence[Patient]:
        """`queries.patients_by_identifier`."""
        ...

    def place(self, actor: Actor, command: OrderCommand, condition: OrderCondition | None, *, joins: bool) -> Placed:
        """`intake.place_order`."""
        ...

    def sign(self, actor: Actor, report_id: str, expected_version: int) -> Report:
        """`signing.sign`."""
        ...

    def infill(self, actor: Actor, report_id: str, expected_version: int, request: InfillRequest) -> Job:
        """`drafting.request_infill`."""
        ...

    def subscribe(
        self, actor: Actor, endpoint: str, statuses: Sequence[Status] | None, ends_at: datetime | None
    ) -> Subscription:
        """`subscribing.subscribe`."""
        ...

    def subscription(self, actor: Actor, subscription_id: str) -> Subscription:
        """`subscribing.read_subscription`."""
        ...

    def unsubscribe(self, actor: Actor, subscription_id: str) -> Subscription:
        """`subscribing.unsubscribe`."""
        ...

    def read_again(self, actor: Actor, standing: Standing, access: Access) -> bool:
        """`queries.record_while`: write the access into the trail if the report stands like that, or say that not."""
        ...

    def record(self, actor: Actor, accesses: Sequence[Access]) -> None:
        """`queries.record_access` for each; what cannot be recorded raises, and then nothing is answered."""
        ...
