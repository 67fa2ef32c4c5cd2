"""Interaction `search-type` beside DiagnosticReport: resources that are found by one identifier or by one reference.

https://hl7.org/fhir/R4/search.html. Each of these searches names what it looks for; none lists everything there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from inlay_fhir import parameters
from inlay_fhir.bundle import bundle, full_url, page_links
from inlay_fhir.elements import Json
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Detail, Kind, NotFound, ReportSearch, Sort, Tag
from inlay_fhir.mapping.imaging_study import imaging_study
from inlay_fhir.mapping.naming import UID_SYSTEM, assigners
from inlay_fhir.mapping.patient import patient_resource
from inlay_fhir.mapping.provenance import provenance
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.mapping.task import task
from inlay_fhir.outcome import Refusal
from inlay_fhir.parameters import Token
from inlay_fhir.read import access_of, report_access
from inlay_fhir.store import Access
from inlay_fhir.summary import cut_of

Found = tuple[Json, Access]
Find = Callable[[Exchange, str], list[Found]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A search parameter of a resource: its FHIR type, what it does in words and in fact."""

    name: str
    type: str
    documentation: str
    find: Find


def look_up(resource: str) -> Callable[[Exchange], Answer]:
    """The search of one resource type."""

    def search(exchange: Exchange) -> Answer:
        asked = parameters.of_request(exchange.request)
        known = {lookup.name: lookup for lookup in LOOKUPS[resource]}
        used = [(name, value) for name, value in asked if name in known and value]
        if parameters.is_strict(exchange.request) and any(n not in known and not n.startswith("_") for n, _ in asked):
            raise Refusal(400, "not-supported", "A search parameter is not supported.")
        if len(used) != 1:
            raise Refusal(400, "too-costly", f"{resource} is searched by one of {', '.join(known)}.")
        ((name, value),) = used
        found = known[name].find(exchange, value)[: exchange.site.max_count]
        base = exchange.request.base_url
        cut = cut_of(asked)
        entries = [
            {"fullUrl": full_url(base, each), "resource": cut(each), "search": {"mode": "match"}} for each, _ in found
        ]
        links = page_links(f"{base}/{resource}", used, len(found), 0, 0)
        detail: dict[str, Detail] = {"interface": "fhir", "interaction": "search-type", "parameters": name}
        searched = Access(Tag.READER_REPORT_SEARCHED, (Kind.ACCESS, resource), detail=detail | {"total": len(found)})
        accesses = (searched, *(access for _, access in found))
        return Answer(bundle("searchset", len(found), links, entries), accesses, cacheable=False)

    return search


def _tokens(name: str, value: str) -> list[Token]:
    return [parameters.token(name, text) for text in parameters.alternatives(value)]


def _owners(exchange: Exchange, token: Token) -> tuple[str | None, ...]:
    return assigners(exchange.site, token.system) if token.system is not None else (None,)


def _orders(exchange: Exchange, value: str) -> list[Found]:
    found = {
        order.id: order
        for token in _tokens("identifier", value)
        for owner in _owners(exchange, token)
        for order in exchange.store.orders(exchange.actor, token.code, owner)
    }
    return [
        (
            service_request(exchange.site, order),
            access_of(Tag.READER_ORDER_READ, Kind.ORDER, order.id, "ServiceRequest", None, order.patient.id, "search"),
        )
        for order in found.values()
    ]


def _patients(exchange: Exchange, value: str) -> list[Found]:
    found = {
        patient.id: patient
        for token in _tokens("identifier", value)
        for owner in _owners(exchange, token)
        for patient in exchange.store.patients(exchange.actor, token.code, owner)
    }
    return [
        (
            patient_resource(exchange.site, patient),
            access_of(Tag.READER_PATIENT_READ, Kind.PATIENT, patient.id, "Patient", None, patient.id, "search"),
        )
        for patient in found.values()
    ]


def _studies(exchange: Exchange, value: str) -> list[Found]:
    uids: list[str] = []
    accessions: list[tuple[str | None, str]] = []
    for token in _tokens("identifier", value):
        if token.system in (None, UID_SYSTEM):
            uids.append(token.code.removeprefix("urn:oid:"))
        if token.system != UID_SYSTEM:
            accessions += [(owner, token.code) for owner in _owners(exchange, token)]
    searches = [ReportSearch(study_instance_uids=tuple(uids))] if uids else []
    searches += [ReportSearch(accessions=tuple(accessions))] if accessions else []
    rows = {
        row.report.id: row
        for search in searches
        for row in exchange.store.search_reports(exchange.actor, search, Sort.OLDEST, 0, exchange.site.max_count).rows
        if row.order.study_instance_uid
    }
    by_uid: dict[str, list[str]] = {}
    for identity, row in rows.items():
        by_uid.setdefault(row.order.study_instance_uid or "", []).append(identity)
    found: list[Found] = []
    for uid, identities in by_uid.items():
        of_study = [rows[identity] for identity in identities]
        order = of_study[0].order
        access = access_of(
            Tag.READER_ORDER_READ, Kind.ORDER, order.id, "ImagingStudy", identities[0], order.patient.id, "search"
        )
        found.append((imaging_study(exchange.site, uid, of_study), access))
    return found


def _jobs(exchange: Exchange, value: str) -> list[Found]:
    report_id = parameters.referenced(value, "DiagnosticReport", exchange.request.base_url)
    if report_id is None:
        return []
    try:
        listed = exchange.store.jobs(exchange.actor, report_id)
    except NotFound:
        return []
    # Each by itself: seeing a job takes another right than seeing its report.
    jobs = [exchange.store.job(exchange.actor, job.id) for job in listed]
    return [
        (task(job), access_of(Tag.READER_JOB_READ, Kind.JOB, job.id, "Task", job.report_id, None, "search"))
        for job in jobs
    ]


def _provenances(exchange: Exchange, value: str) -> list[Found]:
    target = parameters.unescaped(value).removeprefix(f"{exchange.request.base_url}/")
    kind, _, rest = target.partition("/")
    report_id, _, version = rest.partition("/_history/")
    if kind != "DiagnosticReport" or not report_id or (version and not (version.isascii() and version.isdecimal())):
        raise parameters.bad("target", "a DiagnosticReport/<id>, with or without /_history/<version>.")
    try:
        versions = exchange.store.versions(exchange.actor, report_id)
        wanted = [v.version for v in versions if not version or str(v.version) == version.lstrip("0")]
        rows = [exchange.store.report(exchange.actor, report_id, number) for number in wanted]
    except NotFound:
        return []
    return [
        (provenance(row.report, exchange.jobs_of(row.report)), report_access(row, "search", "Provenance"))
        for row in rows
    ]


LOOKUPS: Final[Mapping[str, tuple[Lookup, ...]]] = MappingProxyType(
    {
        "ServiceRequest": (Lookup("identifier", "token", "Placer, filler or accession number.", _orders),),
        "Patient": (Lookup("identifier", "token", "The record number.", _patients),),
        "ImagingStudy": (Lookup("identifier", "token", "StudyInstanceUID or accession number.", _studies),),
        "Task": (Lookup("focus", "reference", "The report, as `DiagnosticReport/<id>`.", _jobs),),
        "Provenance": (
            Lookup(
                "target", "reference", "`DiagnosticReport/<id>`, or one version of it by `/_history/<n>`.", _provenances
            ),
        ),
    }
)
"""Resource -> its search parameters. The capability statement lists them."""
