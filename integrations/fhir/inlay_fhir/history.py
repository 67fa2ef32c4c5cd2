"""Interactions `history-instance` and `history-type`: every version of one report or of all, the newest first.

https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from inlay_fhir import parameters
from inlay_fhir.bundle import OFFSET, bundle, full_url, page_links
from inlay_fhir.elements import Json, instant
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.mapping.core import Report, ReportRow
from inlay_fhir.mapping.diagnostic_report import diagnostic_report
from inlay_fhir.parameters import Pair
from inlay_fhir.read import report_access


def history_of_diagnostic_report(exchange: Exchange) -> Answer:
    """A page of versions. `_since` leaves out what is older; `_count` is the size of a page."""
    order = exchange.store.report(exchange.actor, exchange.identity).order
    versions = list(reversed(exchange.store.versions(exchange.actor, exchange.identity)))
    asked = _asked(exchange)
    versions = [version for version in versions if asked.since is None or version.updated_at >= asked.since]
    rows = [ReportRow(version, order) for version in versions[asked.offset : asked.offset + asked.count]]
    url = f"{exchange.request.base_url}/DiagnosticReport/{exchange.identity}/_history"
    return _page(exchange, asked, url, rows, len(versions), "history-instance")


def history_of_diagnostic_reports(exchange: Exchange) -> Answer:
    """A page of versions of all reports."""
    asked = _asked(exchange)
    page = exchange.store.history(exchange.actor, asked.since, asked.offset, asked.count)
    url = f"{exchange.request.base_url}/DiagnosticReport/_history"
    return _page(exchange, asked, url, page.rows, page.total, "history-type")


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which page of a history is wanted."""

    since: datetime | None
    count: int
    offset: int
    applied: tuple[Pair, ...]


def _asked(exchange: Exchange) -> _Asked:
    pairs = exchange.request.query
    applied = tuple((name, value) for name, value in pairs if name in ("_count", "_since") and value)
    since = parameters.last(applied, "_since")
    wanted = parameters.count("_count", parameters.last(applied, "_count") or str(exchange.site.default_count))
    return _Asked(
        parameters.bound("_since", since).start if since else None,
        min(wanted, exchange.site.max_count),
        parameters.count(OFFSET, parameters.last(pairs, OFFSET) or "0"),
        applied,
    )


def _page(
    exchange: Exchange, asked: _Asked, url: str, rows: Sequence[ReportRow], total: int, interaction: str
) -> Answer:
    entries = [
        _entry(exchange, row.report, diagnostic_report(exchange.site, row, exchange.jobs_of(row.report)))
        for row in rows
    ]
    links = page_links(url, asked.applied, total, asked.offset, asked.count)
    accesses = tuple(report_access(row, interaction) for row in rows)
    return Answer(bundle("history", total, links, entries), accesses, cacheable=False)


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
