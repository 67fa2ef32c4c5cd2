"""Interaction `create` on ServiceRequest and ImagingStudy: orders that come by FHIR, conditional ones included.

https://hl7.org/fhir/R4/http.html#create, #ccreate. What comes in this way is an order like one by HL7 v2.
"""

from __future__ import annotations

from inlay_fhir.body import bad, resource_of
from inlay_fhir.elements import Json
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Kind, NotFound, OrderCommand, Patient, Placed, ReportSearch, Sort, Tag
from inlay_fhir.mapping.imaging_study import imaging_study
from inlay_fhir.mapping.intake import FindPatient, condition_of, order_of_imaging_study, order_of_service_request
from inlay_fhir.mapping.naming import order_number
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.read import access_of


def create_service_request(exchange: Exchange) -> Answer:
    """A new order: 201; the one that If-None-Exist names: 200; another that has its number: 409."""
    body = resource_of(exchange.request, "ServiceRequest")
    command = order_of_service_request(exchange.site, body, _patient_of(exchange, "ServiceRequest"))
    placed = _placed(exchange, command, joins=False)
    order = placed.order
    location = f"{exchange.request.base_url}/ServiceRequest/{order.id}/_history/{order.version}"
    return _created(service_request(exchange.site, order), placed, location, str(order.version))


def create_imaging_study(exchange: Exchange) -> Answer:
    """A study of a known order, or of one that it makes known by its accession number."""
    body = resource_of(exchange.request, "ImagingStudy")

    def number(order_id: str) -> tuple[str, str]:
        try:
            return order_number(exchange.store.order(exchange.actor, order_id))
        except NotFound:
            raise bad("ImagingStudy.basedOn", "no such ServiceRequest.") from None

    command = order_of_imaging_study(exchange.site, body, _patient_of(exchange, "ImagingStudy"), number)
    placed = _placed(exchange, command, joins=True)
    uid = placed.order.study_instance_uid or ""
    search = ReportSearch(study_instance_uids=(uid,))
    rows = exchange.store.search_reports(exchange.actor, search, Sort.OLDEST, 0, exchange.site.max_count).rows
    location = f"{exchange.request.base_url}/ImagingStudy/{uid}"
    return _created(imaging_study(exchange.site, uid, rows), placed, location, None)


def _patient_of(exchange: Exchange, resource: str) -> FindPatient:
    def find(identity: str) -> Patient:
        try:
            return exchange.store.patient(exchange.actor, identity)
        except NotFound:
            raise bad(f"{resource}.subject", "no such Patient.") from None

    return find


def _placed(exchange: Exchange, command: OrderCommand, *, joins: bool) -> Placed:
    stated = exchange.request.header("If-None-Exist")
    condition = condition_of(exchange.site, stated) if stated else None
    return exchange.store.place(exchange.actor, command, condition, joins=joins)


def _created(resource: Json, placed: Placed, location: str, version: str | None) -> Answer:
    """What the use case changed it has recorded; an order that was there already is shown, which is recorded here."""
    order = placed.order
    kind = resource["resourceType"]
    shown = access_of(Tag.READER_ORDER_READ, Kind.ORDER, order.id, kind, None, order.patient.id, "create")
    return Answer(
        resource,
        () if placed.created else (shown,),
        version,
        order.updated_at,
        status=201 if placed.created else 200,
        headers={"Location": location},
        written=True,
    )
