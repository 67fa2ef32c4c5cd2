"""Interaction `history-instance`: every version of one report, the newest first.

https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

from inlay_fhir import parameters
from inlay_fhir.bundle import OFFSET, bundle, full_url, page_links
from inlay_fhir.elements import Json, instant
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Report, ReportRow
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.read import report_access


def history_of_diagnostic_report(exchange: Exchange) -> Answer:
    """A page of versions. `_since` leaves out what is older; `_count` is the size of a page."""
    order = exchange.store.report(exchange.actor, exchange.identity).order
    versions = list(reversed(exchange.store.versions(exchange.actor, exchange.identity)))
    pairs = exchange.request.query
    applied = [(name, value) for name, value in pairs if name in ("_count", "_since") and value]
    if since := parameters.last(applied, "_since"):
        start = parameters.bound("_since", since).start
        versions = [version for version in versions if version.updated_at >= start]
    count = min(
        parameters.count("_count", parameters.last(applied, "_count") or str(exchange.site.default_count)),
        exchange.site.max_count,
    )
    offset = parameters.count(OFFSET, parameters.last(pairs, OFFSET) or "0")
    page = versions[offset : offset + count]
    jobs = exchange.store.jobs(exchange.actor, exchange.identity)
    entries = [
        _entry(exchange, version, diagnostic_report(exchange.site, ReportRow(version, order), jobs)) for version in page
    ]
    url = f"{exchange.request.base_url}/DiagnosticReport/{exchange.identity}/_history"
    links = page_links(url, applied, len(versions), offset, count)
    accesses = tuple(report_access(version, "history-instance") for version in page)
    return Answer(bundle("history", len(versions), links, entries), accesses, cacheable=False)


def _entry(exchange: Exchange, version: Report, resource: Json) -> Json:
    """A version with the request that would have made it: Inlay's own interfaces did."""
    first = version.version == 1
    return {
        "fullUrl": full_url(exchange.request.base_url, resource),
        "resource": resource,
        "request": {
            "method": "POST" if first else "PUT",
            "url": "DiagnosticReport" if first else f"DiagnosticReport/{version.id}",
        },
        "response": {
            "status": "201" if first else "200",
            "etag": f'W/"{version.version}"',
            "lastModified": instant(version.updated_at),
        },
    }
