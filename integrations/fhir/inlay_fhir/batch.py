"""Interaction `batch` for reads: several questions in one request, each answered as if it had come alone.

https://hl7.org/fhir/R4/http.html#transaction. Entries that change something are refused one by one: a write names one
record and the version that its author saw, and has a request of its own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from inlay_fhir.body import resource_of
from inlay_fhir.elements import Json, filled
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.http import FhirRequest, FhirResponse
from inlay_fhir.outcome import Refusal, outcome

# Each entry may be a page of a search; more of them belong into more requests.
_MOST: Final = 50


def batch(exchange: Exchange) -> Answer:
    """The answers to the entries, in their order. Raises Refusal for what is no batch."""
    body = resource_of(exchange.request, "Bundle")
    if body.get("type") != "batch":
        raise Refusal(400, "not-supported", "Only a Bundle of type batch is answered here.")
    entries = body.get("entry", [])
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise Refusal(400, "too-costly", f"A batch has at most {_MOST} entries.")
    answers = [_answered(exchange, entry) for entry in entries]
    return Answer(filled(resourceType="Bundle", type_="batch-response", entry=answers), cacheable=False)


def _answered(exchange: Exchange, entry: Any) -> Json:
    try:
        response = exchange.again(_request(exchange.request, entry))
    except Refusal as refusal:
        return {"response": {"status": str(refusal.status), "outcome": outcome(refusal)}}
    return _entry(response)


def _request(whole: FhirRequest, entry: Any) -> FhirRequest:
    stated = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(stated, dict) or not isinstance(stated.get("url"), str):
        raise Refusal(400, "structure", "An entry needs its request with method and url.")
    if stated.get("method") not in ("GET", "HEAD"):
        raise Refusal(405, "not-supported", "A batch only reads here.")
    try:
        address = urlsplit(stated["url"].removeprefix(f"{whole.base_url}/"))
        query = tuple(parse_qsl(address.query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Refusal(400, "structure", "The url of an entry cannot be read.") from None
    if address.scheme or address.netloc:
        raise Refusal(400, "not-supported", "The url of an entry is below this endpoint.")
    # The sender's preferences hold for every entry; conditions are the entry's own.
    kept = {n: v for n, v in whole.headers.items() if n.lower() in ("prefer", "x-request-id", "authorization")}
    if isinstance(known := stated.get("ifNoneMatch"), str):
        kept["If-None-Match"] = known
    return replace(
        whole, method=stated["method"], path=f"/{address.path.lstrip('/')}", query=query, headers=kept, body=b""
    )


def _entry(response: FhirResponse) -> Json:
    found = json.loads(response.body) if response.body else None
    wrong = response.status >= 400
    told = filled(
        status=str(response.status),
        etag=response.headers.get("ETag"),
        outcome=found if wrong else None,
    )
    return filled(resource=None if wrong else found, response=told)
