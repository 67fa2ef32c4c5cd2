"""Interaction `search-type` on DiagnosticReport, by GET and by POST to `_search`.

https://hl7.org/fhir/R4/search.html. Unknown parameters are ignored and left out of the self link, or refused where the
client prefers strict handling; a value that cannot be read is always refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from inlay_fhir import parameters
from inlay_fhir.bundle import OFFSET, bundle, full_url, page_links
from inlay_fhir.elements import Json
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Detail, Kind, ReportRow, Sort, Tag
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.mapping.imaging_study import imaging_study
from inlay_fhir.mapping.naming import study_reference
from inlay_fhir.mapping.patient import patient_resource
from inlay_fhir.mapping.provenance import provenance
from inlay_fhir.mapping.searching import Narrowing, restriction
from inlay_fhir.mapping.service_request import service_request
from inlay_fhir.outcome import Refusal
from inlay_fhir.parameters import Pair
from inlay_fhir.read import report_access
from inlay_fhir.store import Access
from inlay_fhir.summary import MODES, cut_of

SORTS = {
    "_lastUpdated": Sort.OLDEST,
    "-_lastUpdated": Sort.NEWEST,
    "date": Sort.STUDIED_FIRST,
    "-date": Sort.STUDIED_LAST,
    "issued": Sort.SIGNED_FIRST,
    "-issued": Sort.SIGNED_LAST,
}
INCLUDES = {
    "DiagnosticReport:patient": "Patient",
    "DiagnosticReport:subject": "Patient",
    "DiagnosticReport:based-on": "ServiceRequest",
    "DiagnosticReport:imaging-study": "ImagingStudy",
}
REVERSE_INCLUDES = {"Provenance:target": "Provenance"}
# They shape the answer elsewhere (negotiation), or ask for what is given anyway.
_ELSEWHERE = frozenset({"_format", "_pretty"})
_TOTALS = frozenset({"none", "estimate", "accurate"})


@dataclass(slots=True)
class Plan:
    """What a search asks for. `applied` are the parameters that were obeyed, as the self link repeats them."""

    narrowing: Narrowing
    count: int
    offset: int = 0
    sort: Sort = Sort.NEWEST
    total_only: bool = False
    including: set[str] = field(default_factory=set)
    applied: list[Pair] = field(default_factory=list)


def search_diagnostic_reports(exchange: Exchange) -> Answer:
    """A page of reports, newest change first unless sorted otherwise."""
    plan = planned(exchange)
    limit = 0 if plan.total_only else plan.count
    page = exchange.store.search_reports(exchange.actor, plan.narrowing.search(), plan.sort, plan.offset, limit)
    url = f"{exchange.request.base_url}/DiagnosticReport"
    links = page_links(url, plan.applied, page.total, plan.offset, limit)
    entries = _entries(exchange, page.rows, _allowed(exchange, plan.including), plan.applied)
    accesses = (_searched(plan, page.total, len(page.rows)), *(report_access(row, "search") for row in page.rows))
    return Answer(bundle("searchset", page.total, links, entries), accesses, cacheable=False)


def _allowed(exchange: Exchange, including: set[str]) -> set[str]:
    """The types that may come along: a token that is not for a type does not get at it by an include."""
    scopes = exchange.request.scopes
    return including if scopes is None else {kind for kind in including if scopes.allow(kind, "r")}


def planned(exchange: Exchange) -> Plan:
    """The plan that the parameters of the request make. Raises Refusal."""
    site, request = exchange.site, exchange.request
    plan = Plan(Narrowing(site, request.base_url), site.default_count)
    strict = parameters.is_strict(request)
    for name, value in parameters.of_request(request):
        if name in _ELSEWHERE or not value:
            continue
        if _obey(plan, name, value, site.max_count):
            if name != OFFSET:
                plan.applied.append((name, value))
        elif strict:
            raise Refusal(400, "not-supported", "A search parameter or its value is not supported.")
    return plan


def _obey(plan: Plan, name: str, value: str, most: int) -> bool:
    """Let one parameter shape the plan; whether it did."""
    restrict = restriction(name)
    if restrict is not None:
        restrict(plan.narrowing, name, value)
        return True
    match name:
        case "_count":
            plan.count = min(parameters.count(name, value), most)
            plan.total_only = plan.count == 0
            return True
        case "_offset":
            plan.offset = parameters.count(name, value)
            return True
        case "_sort" if value in SORTS:
            plan.sort = SORTS[value]
            return True
        case "_summary" if value == "count" or value in MODES:
            plan.total_only = value == "count"
            return True
        case "_elements":
            return True
        case "_total":
            return value in _TOTALS
        case "_include" if value in INCLUDES:
            plan.including.add(INCLUDES[value])
            return True
        case "_revinclude" if value in REVERSE_INCLUDES:
            plan.including.add(REVERSE_INCLUDES[value])
            return True
        case _:
            return False


def _entries(exchange: Exchange, rows: Iterable[ReportRow], including: set[str], asked: Iterable[Pair]) -> list[Json]:
    matches: list[Json] = []
    included: dict[str, Json] = {}
    base_url = exchange.request.base_url
    for row in rows:
        jobs = exchange.jobs_of(row.report)
        matches.append(diagnostic_report(exchange.site, row, jobs))
        others: list[Json] = []
        if "Provenance" in including:
            others.append(provenance(row.report, jobs))
        if "Patient" in including:
            others.append(patient_resource(exchange.site, row.order.patient))
        if "ServiceRequest" in including:
            others.append(service_request(exchange.site, row.order))
        if "ImagingStudy" in including and study_reference(row.order.study_instance_uid):
            others.append(imaging_study(exchange.site, row.order.study_instance_uid or "", [row]))
        included |= {full_url(base_url, resource): resource for resource in others}
    cut = cut_of(asked)
    shown = [(full_url(base_url, resource), cut(resource), "match") for resource in matches]
    shown += [(url, cut(resource), "include") for url, resource in included.items()]
    return [{"fullUrl": url, "resource": resource, "search": {"mode": mode}} for url, resource, mode in shown]


def _searched(plan: Plan, total: int, count: int) -> Access:
    """The search for the trail: which parameters were used, never their values."""
    names = ",".join(sorted({name for name, _ in plan.applied}))
    detail: dict[str, Detail] = {"interface": "fhir", "interaction": "search-type", "parameters": names}
    detail |= {"total": total, "count": count}
    return Access(Tag.READER_REPORT_SEARCHED, (Kind.ACCESS, "DiagnosticReport"), detail=detail)
