"""From the outbox to the hospital's own FHIR server: each published version of a report, in order, never twice.

What is there is looked up first, by the report's identifier: a version that arrived although its answer was lost is not
sent again, and an older version never replaces a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inlay_core.application.ports import Destination, OutboxItem, ReportRow
from inlay_core.application.publishing import claim_deliveries
from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import Job
from inlay_core.settings import Settings
from inlay_fhir.client import Credentials, Failed, FhirServer, signing_key
from inlay_fhir.elements import Json
from inlay_fhir.mapping.writeback import Remote, remote_of, search_of, transaction
from inlay_fhir.site import FhirSite
from inlay_gateway.delivery import Books, Sent, sent_each
from inlay_gateway.notifying import http_client

# A lookup, a token and a transaction, each with the client's time limit.
_LEASE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where reports are written, and how this site writes FHIR."""

    server: FhirServer
    site: FhirSite


def target_of(settings: Settings) -> Target:
    """The target that the settings name. Raises Invalid."""
    credentials = None
    if settings.fhir_client_id:
        try:
            key = signing_key(settings.fhir_client_key)
        except (OSError, ValueError):
            raise Invalid(
                "bad-setting", "Expected a private key (JWK), RSA or EC on P-384.", "INLAY_FHIR_CLIENT_KEY"
            ) from None
        credentials = Credentials(settings.fhir_token_url, settings.fhir_client_id, key, settings.fhir_scope)
    server = FhirServer(settings.fhir_target.rstrip("/"), http_client(), credentials)
    return Target(server, FhirSite(draft_status=settings.fhir_draft_status, zone=settings.zone))


def deliver_report(books: Books, target: Target) -> Sequence[Sent]:
    """Write the next due report version; one at a time, because each waits for its answer."""
    items = claim_deliveries(books.new_uow(), books.clock, Destination.FHIR, limit=1, lease_seconds=_LEASE_SECONDS)
    return sent_each(books, items, lambda item: _write(books, target, item))


def _write(books: Books, target: Target, item: OutboxItem) -> Sent:
    found = _loaded(books, item)
    if found is None:
        books.failed(item, "report-missing", permanent=True)
        return Sent(item, "report-missing")
    row, jobs = found
    try:
        with books.tracer.span("fhir search", kind="client"):
            remote = _remote(target.server, row.report.id)
        if remote is None or remote.version < row.report.version:
            with books.tracer.span("fhir transaction", kind="client"):
                answer = target.server.transact(transaction(target.site, row, jobs, remote))
                _check_created(answer, remote)
    except Failed as failure:
        books.failed(item, failure.code)
        return Sent(item, failure.code)
    books.done(item)
    return Sent(item, "delivered")


def _loaded(books: Books, item: OutboxItem) -> tuple[ReportRow, Sequence[Job]] | None:
    with books.new_uow() as uow:
        report = uow.reports.version(str(item.payload["report_id"]), int(item.payload["version"]))
        order = uow.orders.get(report.order_id) if report else None
        jobs = uow.jobs.of_report(report.id) if report else ()
    return (ReportRow(report, order), jobs) if report and order else None


def _check_created(answer: Json, remote: Remote | None) -> None:
    """Raise Failed where the create found a report that the lookup had not: that one has to be updated."""
    first: Any = next(iter(answer.get("entry", [])), {})
    status = first.get("response", {}).get("status", "") if isinstance(first, dict) else ""
    if remote is None and str(status).startswith("200"):
        raise Failed("target-changed")


def _remote(server: FhirServer, report_id: str) -> Remote | None:
    """The report there. Raises Failed when there are several: somebody has to look at that."""
    found = server.search("DiagnosticReport", search_of(report_id))
    if len(found) > 1:
        raise Failed("target-ambiguous")
    try:
        return remote_of(found[0]) if found else None
    except KeyError:
        raise Failed("answer-malformed") from None
