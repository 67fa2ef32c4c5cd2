"""A FHIR endpoint over a unit of work, a client for it, and the checks that every emitted resource has to pass."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

from fhir.resources.R4B import get_fhir_model_class
from fhir_core.fhirabstractmodel import FHIRAbstractModel

from inlay_api.readings import event_of_access
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
)
from inlay_core.domain.audit import AuditEvent
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.infill import InfillRequest
from inlay_core.domain.job import Job
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.patient import Patient
from inlay_core.domain.report import Report
from inlay_core.domain.subscription import Subscription
from inlay_fhir.http import FhirRequest, FhirResponse
from inlay_fhir.router import FhirRouter
from inlay_fhir.site import FhirSite
from inlay_fhir.store import Access
from inlay_testkit.core import EHR, Ward

BASE = "https://inlay.test/fhir"


class QueryStore:
    """`FhirStore` by the core's queries, on the unit of work of a ward. It also keeps what was recorded."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self.accesses: list[Access] = []

    def search_reports(self, actor: Actor, search: ReportSearch, sort: Sort, offset: int, limit: int) -> Page:
        """See the protocol."""
        return queries.search_reports(self.ward.uow, actor, search, sort=sort, offset=offset, limit=limit)

    def report(self, actor: Actor, report_id: str, version: int | None = None) -> ReportRow:
        """See the protocol."""
        return queries.read_report(self.ward.uow, actor, report_id, version)

    def history(self, actor: Actor, since: datetime | None, offset: int, limit: int) -> Page:
        """See the protocol."""
        return queries.report_history(self.ward.uow, actor, since, offset=offset, limit=limit)

    def versions(self, actor: Actor, report_id: str) -> Sequence[Report]:
        """See the protocol."""
        return queries.report_versions(self.ward.uow, actor, report_id)

    def jobs(self, actor: Actor, report_id: str) -> Sequence[Job]:
        """See the protocol."""
        return queries.jobs_of_report(self.ward.uow, actor, report_id)

    def job(self, actor: Actor, job_id: str) -> Job:
        """See the protocol."""
        return queries.read_job(self.ward.uow, actor, job_id)

    def order(self, actor: Actor, order_id: str) -> Order:
        """See the protocol."""
        return queries.read_order(self.ward.uow, actor, order_id)

    def patient(self, actor: Actor, patient_id: str) -> Patient:
        """See the protocol."""
        return queries.read_patient(self.ward.uow, actor, patient_id)

    def audit_event(self, actor: Actor, event_id: str) -> AuditEvent:
        """See the protocol."""
        return queries.read_audit_event(self.ward.uow, actor, event_id)

    def run_with_model(self, actor: Actor, digest_prefix: str) -> Mapping[str, Any]:
        """See the protocol."""
        return queries.run_with_model(self.ward.uow, actor, digest_prefix)

    def orders(self, actor: Actor, number: str, assigner: str | None) -> Sequence[Order]:
        """See the protocol."""
        return queries.orders_with_identifier(self.ward.uow, actor, number, assigner)

    def patients(self, actor: Actor, identifier: str, assigner: str | None) -> Sequence[Patient]:
        """See the protocol."""
        return queries.patients_by_identifier(self.ward.uow, actor, identifier, assigner)

    def place(self, actor: Actor, command: OrderCommand, condition: OrderCondition | None, *, joins: bool) -> Placed:
        """See the protocol."""
        return intake.place_order(
            *self.ward.trio, actor, command, condition=condition, joins=joins, site=self.ward.site
        )

    def sign(self, actor: Actor, report_id: str, expected_version: int) -> Report:
        """See the protocol."""
        return signing.sign(*self.ward.trio, actor, report_id, expected_version=expected_version, site=self.ward.site)

    def infill(self, actor: Actor, report_id: str, expected_version: int, request: InfillRequest) -> Job:
        """See the protocol."""
        return drafting.request_infill(
            *self.ward.trio, actor, report_id, expected_version=expected_version, request=request, site=self.ward.site
        )

    def subscribe(
        self, actor: Actor, endpoint: str, statuses: Sequence[Status] | None, ends_at: datetime | None
    ) -> Subscription:
        """See the protocol."""
        return subscribing.subscribe(*self.ward.trio, actor, endpoint, statuses=statuses, ends_at=ends_at)

    def subscription(self, actor: Actor, subscription_id: str) -> Subscription:
        """See the protocol."""
        return subscribing.read_subscription(self.ward.uow, actor, subscription_id)

    def unsubscribe(self, actor: Actor, subscription_id: str) -> Subscription:
        """See the protocol."""
        return subscribing.unsubscribe(*self.ward.trio, actor, subscription_id)

    def read_again(self, actor: Actor, standing: Standing, access: Access) -> bool:
        """See the protocol."""
        require(actor, Permission.READ_REPORTS)
        event = self._event(actor, access)
        recorded = queries.record_while(self.ward.uow, [(event, standing)])
        self.accesses += [access] * len(recorded)
        return event.id in recorded

    def record(self, actor: Actor, accesses: Sequence[Access]) -> None:
        """See the protocol."""
        queries.record_accesses(self.ward.uow, [self._event(actor, access) for access in accesses])
        self.accesses += accesses

    def _event(self, actor: Actor, access: Access) -> AuditEvent:
        return event_of_access(self.ward.new_id(), self.ward.clock(), actor, access)


@dataclass(frozen=True)
class Reply:
    """An answer with its JSON."""

    response: FhirResponse

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status

    @property
    def json(self) -> dict[str, Any]:
        """The resource."""
        found: dict[str, Any] = json.loads(self.response.body)
        return found

    @property
    def ids(self) -> list[str]:
        """The ids of a search's matches."""
        return [e["resource"]["id"] for e in self.json.get("entry", []) if e["search"]["mode"] == "match"]

    def link(self, relation: str) -> str | None:
        """A page link."""
        return next((link["url"] for link in self.json["link"] if link["relation"] == relation), None)


class FhirClient:
    """Asks the router as the EHR, and checks every resource that comes back."""

    def __init__(self, ward: Ward, site: FhirSite | None = None) -> None:
        self.ward = ward
        self.store = QueryStore(ward)
        self.router = FhirRouter(self.store, site)

    def ask(
        self,
        path: str,
        *query: tuple[str, str],
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        actor: Actor = EHR,
    ) -> Reply:
        """The checked answer to a request below the endpoint."""
        request = FhirRequest(method, path, query, headers or {}, body, actor, BASE)
        reply = Reply(self.router.handle(request))
        if reply.response.body:
            check(reply.json)
        assert reply.status < 400 or method == "HEAD" or reply.json["resourceType"] == "OperationOutcome"
        return reply


def check(resource: dict[str, Any]) -> None:
    """Assert that a resource is valid FHIR R4: by the models of fhir.resources, and by what those let through."""
    validated = dict(resource)
    if resource["resourceType"] == "CapabilityStatement":
        validated["fhirVersion"] = "4.3.0"  # R4B's own code; everything else is as in R4.
    model: type[FHIRAbstractModel] = get_fhir_model_class(resource["resourceType"])
    model.model_validate(validated)
    for place, value in _walk(resource, resource["resourceType"]):
        assert value not in (None, "", [], {}), f"empty value at {place}"
        if place.endswith(".div"):
            _check_narrative(value)
        if place.endswith(".reference"):
            assert re.fullmatch(r"(https?://[a-z.]+/)?#?[A-Za-z0-9./_-]+", value), place
        if isinstance(value, dict) and "contentType" in value:
            _check_attachment(value)
        if isinstance(value, str) and not place.endswith(".div"):
            assert value.strip(), place
            assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", value), place
    for entry in resource.get("entry", []):
        if "resource" in entry:
            check(entry["resource"])


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    yield place, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _walk(child, f"{place}.{key}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _walk(child, f"{place}[{number}]")


_XHTML = "{http://www.w3.org/1999/xhtml}"
_ALLOWED = {f"{_XHTML}{tag}" for tag in ("div", "p", "b", "br", "h3")}


def _check_narrative(div: str) -> None:
    """Well-formed, in its namespace, nothing but our few elements without attributes, and some text."""
    root = ET.fromstring(div)  # noqa: S314 (our own text, without entities)
    assert root.tag == f"{_XHTML}div"
    for element in root.iter():
        assert element.tag in _ALLOWED
        assert not element.attrib
    assert "".join(root.itertext()).strip()


def _check_attachment(attachment: dict[str, Any]) -> None:
    data = base64.b64decode(attachment["data"], validate=True)
    assert attachment["size"] == len(data)
    assert base64.b64decode(attachment["hash"]) == hashlib.sha1(data, usedforsecurity=False).digest()
