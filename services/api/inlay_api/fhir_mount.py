"""FHIR at /fhir: Flask's requests as those of `inlay_fhir`, and its store over the core's queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any, Final

from flask import Blueprint, Response, abort, g, request

from inlay_api.auth import Identity
from inlay_api.desk import desk
from inlay_api.readings import Readings
from inlay_api.routes import identified
from inlay_api.smart import TokenError, configuration
from inlay_core.application import drafting, intake, queries, signing, subscribing
from inlay_core.application.ports import (
    OrderCommand,
    OrderCondition,
    Page,
    Placed,
    ReportRow,
    ReportSearch,
    Sort,
    Standing,
    UnitOfWork,
)
from inlay_core.bootstrap import Services
from inlay_core.domain.audit import AuditEvent, Detail, Kind, Outcome, Tag
from inlay_core.domain.identity import Actor, ActorKind, Permission, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.infill import InfillRequest
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.patient import Patient
from inlay_core.domain.report import Report
from inlay_core.domain.subscription import Subscription
from inlay_core.printing import Printed, Printer
from inlay_core.together import Together
from inlay_fhir.http import HEADERS, FhirRequest
from inlay_fhir.router import FhirRouter
from inlay_fhir.site import FhirSite, Pairs
from inlay_fhir.store import Access

blueprint: Final = Blueprint("fhir", __name__)
MOUNT: Final = "/fhir"
# What a client may ask before it has a token (SMART App Launch, 2.1; FHIR R4, 3.1.0.8).
_OPEN: Final = frozenset({("GET", "/metadata"), ("HEAD", "/metadata")})
NOBODY: Final = Actor("anonymous", "anonymous", kind=ActorKind.PERSON)
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(slots=True)
class Store:
    """The FHIR store over the core's queries: a transaction per question, but for what threads ask together."""

    services: Services
    readings: Readings
    # Hears of each order that was created.
    ordered: Callable[[], None] = lambda: None
    # Hears the id of each job that somebody waits for.
    queued: Callable[[str], None] = lambda _job_id: None
    repeated: Together[tuple[AuditEvent, Standing], bool] = field(init=False)

    def __post_init__(self) -> None:
        self.repeated = Together(self._record_again)

    @property
    def _act(self) -> tuple[UnitOfWork, Clock, NewId]:
        """The first three arguments of a use case that writes."""
        return self.services.uow(), self.services.clock, self.services.new_id

    def search_reports(self, actor: Actor, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        """One page of the newest versions that fit."""
        return queries.search_reports(self.services.reader(), actor, search, sort=sort, offset=offset, limit=limit)

    def report(self, actor: Actor, report_id: str, version: int | None = None) -> ReportRow:
        """The newest version, or that one."""
        return queries.read_report(self.services.reader(), actor, report_id, version)

    def history(self, actor: Actor, since: datetime | None, offset: int, limit: int) -> Page:
        """All versions of all reports, the newest first."""
        return queries.report_history(self.services.reader(), actor, since, offset=offset, limit=limit)

    def versions(self, actor: Actor, report_id: str) -> Sequence[Report]:
        """All versions, the first one first."""
        return queries.report_versions(self.services.reader(), actor, report_id)

    def jobs(self, actor: Actor, report_id: str) -> Sequence[Job]:
        """The jobs of a report."""
        return queries.jobs_of_report(self.services.reader(), actor, report_id)

    def job(self, actor: Actor, job_id: str) -> Job:
        """One job."""
        return queries.read_job(self.services.reader(), actor, job_id)

    def order(self, actor: Actor, order_id: str) -> Order:
        """One order."""
        return queries.read_order(self.services.reader(), actor, order_id)

    def patient(self, actor: Actor, patient_id: str) -> Patient:
        """One patient."""
        return queries.read_patient(self.services.reader(), actor, patient_id)

    def audit_event(self, actor: Actor, event_id: str) -> AuditEvent:
        """One event of the trail."""
        return queries.read_audit_event(self.services.reader(), actor, event_id)

    def run_with_model(self, actor: Actor, digest_prefix: str) -> Mapping[str, Any]:
        """A run record of the model whose digest begins so."""
        return queries.run_with_model(self.services.reader(), actor, digest_prefix)

    def orders(self, actor: Actor, number: str, assigner: str | None) -> Sequence[Order]:
        """The orders with that number."""
        return queries.orders_with_identifier(self.services.reader(), actor, number, assigner)

    def patients(self, actor: Actor, identifier: str, assigner: str | None) -> Sequence[Patient]:
        """The patients with that identifier."""
        return queries.patients_by_identifier(self.services.reader(), actor, identifier, assigner)

    def place(self, actor: Actor, command: OrderCommand, condition: OrderCondition | None, *, joins: bool) -> Placed:
        """Place one order."""
        with self.services.tracer.span("order store") as span:
            placed = intake.place_order(
                *self._act, actor, command, condition=condition, joins=joins, site=self.services.site
            )
            span.set(known=not placed.created)
        if placed.created:
            self.ordered()
        return placed

    def sign(self, actor: Actor, report_id: str, expected_version: int) -> Report:
        """Make the version final."""
        return signing.sign(*self._act, actor, report_id, expected_version=expected_version, site=self.services.site)

    def infill(self, actor: Actor, report_id: str, expected_version: int, request: InfillRequest) -> Job:
        """Ask for the gaps to be filled."""
        job = drafting.request_infill(
            *self._act, actor, report_id, expected_version=expected_version, request=request, site=self.services.site
        )
        self.queued(job.id)
        return job

    def subscribe(
        self, actor: Actor, endpoint: str, statuses: Sequence[Status] | None, ends_at: datetime | None
    ) -> Subscription:
        """A new subscription."""
        return subscribing.subscribe(*self._act, actor, endpoint, statuses=statuses, ends_at=ends_at)

    def subscription(self, actor: Actor, subscription_id: str) -> Subscription:
        """A subscription of the actor."""
        return subscribing.read_subscription(self.services.reader(), actor, subscription_id)

    def unsubscribe(self, actor: Actor, subscription_id: str) -> Subscription:
        """The end of a subscription."""
        return subscribing.unsubscribe(*self._act, actor, subscription_id)

    def record(self, actor: Actor, accesses: Sequence[Access]) -> None:
        """Write what was read into the trail."""
        self.readings.record(actor, accesses)

    def read_again(self, actor: Actor, standing: Standing, access: Access) -> bool:
        """Write into the trail that a report is read which still stands like that, or say that it does not."""
        require(actor, Permission.READ_REPORTS)
        return self.repeated.ask((self.readings.event(actor, access), standing))

    def _record_again(self, readings: Sequence[tuple[AuditEvent, Standing]]) -> Sequence[bool]:
        recorded = queries.record_while(self.services.single(), readings)
        return [event.id in recorded for event, _ in readings]


def router_of(
    services: Services, readings: Readings, ordered: Callable[[], None], queued: Callable[[str], None]
) -> FhirRouter:
    """The FHIR endpoint over these services, which records what it shows like the rest of the process.

    `ordered` hears of each order that is created, `queued` the id of each job that somebody waits for.
    """
    settings = services.settings
    printer = Printer(settings.pdf_font)

    def pdf(title: str, notice: str, facts: Pairs, sections: Pairs) -> bytes | None:
        return printer.page(Printed(title, notice, facts, sections))

    site = FhirSite(
        draft_status=settings.fhir_draft_status,
        version=metadata.version("inlay"),
        zone=settings.zone,
        pdf=pdf,
        origins=settings.origins,
    )
    return FhirRouter(Store(services, readings, ordered, queued), site)


def _base_url() -> str:
    """The endpoint as others name it."""
    address = desk().settings.public_url or f"{request.scheme}://{request.host}{request.root_path}"
    return f"{address.rstrip('/')}{MOUNT}"


@blueprint.get(f"{MOUNT}/.well-known/smart-configuration")
def smart_configuration() -> Response:
    """How systems get a token; open to all, because it says nothing of anybody."""
    if desk().verifier.smart is None:
        abort(404)
    return _json(configuration(_base_url()))


@blueprint.post(f"{MOUNT}/auth/token")
def token() -> Response:
    """An access token for a client that proves who it is. Known clients' successes and failures are in the trail."""
    smart = desk().verifier.smart
    if smart is None:
        abort(404)
    base_url = _base_url()
    try:
        client, scopes = smart.authenticate(desk().services, request.form, f"{base_url}/auth/token")
    except TokenError as error:
        if error.client:
            _record_client(Tag.ISSUER_CLIENT_REFUSED, error.client, Outcome.REFUSED, {"code": error.error})
        answer = _json({"error": error.error, "error_description": error.description}, error.status)
        if error.status == 401:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="inlay"'
        return answer
    _record_client(Tag.ISSUER_CLIENT_ADMITTED, client.id, Outcome.SUCCESS, {"scope": str(scopes)})
    return _json(smart.issue(client, scopes, base_url))


def _record_client(tag: Tag, client: str, outcome: Outcome, detail: dict[str, Detail]) -> None:
    actor = Actor(f"client:{client}", client, kind=ActorKind.SYSTEM)
    access = Access(tag, (Kind.CLIENT, client), outcome=outcome, detail=detail, request_id=g.request_id)
    desk().readings.record(actor, [access])


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    answer = Response(json.dumps(body), status=status, content_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _told() -> dict[str, str]:
    """The headers that the router knows, and no others: a client sends many."""
    return {name: value for name in HEADERS if (value := request.headers.get(name)) is not None}


@blueprint.route(MOUNT, methods=_METHODS, defaults={"path": ""}, provide_automatic_options=False)
@blueprint.route(f"{MOUNT}/", methods=_METHODS, defaults={"path": ""}, provide_automatic_options=False)
@blueprint.route(f"{MOUNT}/<path:path>", methods=_METHODS, provide_automatic_options=False)
def fhir(path: str) -> Response:
    """Hand the request to the router; only who sent it is decided here."""
    below = f"/{path}"
    identity = Identity(NOBODY) if (request.method, below) in _OPEN else identified()
    answer = desk().fhir.handle(
        FhirRequest(
            method=request.method,
            path=below,
            query=tuple(request.args.items(multi=True)),
            # The one in the answer, so that trail and log name the same request.
            headers={**_told(), "X-Request-Id": g.request_id},
            body=b"" if request.method in ("GET", "HEAD") else request.get_data(),
            actor=identity.actor,
            base_url=_base_url(),
            scopes=identity.scopes,
        )
    )
    return Response(answer.body, status=answer.status, headers=dict(answer.headers))
