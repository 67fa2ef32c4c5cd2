"""The FHIR endpoint without a web framework: a request in, an answer out, every error an OperationOutcome.

https://hl7.org/fhir/R4/http.html. What is shown is in the trail before it leaves: no record, no answer.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

import structlog

from inlay_fhir.capability import capabilities
from inlay_fhir.elements import json_bytes
from inlay_fhir.exchange import Answer, Exchange
from inlay_fhir.http import ID, FhirRequest, FhirResponse
from inlay_fhir.mapping.core import Detail, DomainError, Kind, Outcome, Standing, Tag
from inlay_fhir.negotiation import MEDIA_TYPE, check_format, etag, has_already, preferred_return
from inlay_fhir.outcome import DONE, FAULT, Refusal, outcome, refusal_of
from inlay_fhir.recent import Recent
from inlay_fhir.site import FhirSite
from inlay_fhir.store import Access, FhirStore
from inlay_fhir.summary import cut_of
from inlay_fhir.table import DOCUMENTATION, ROUTES, Route

_LOG: Final = structlog.get_logger("inlay_fhir")
# A report is asked for several times in a short while: by each who was notified, and by each viewer that opens it. With
# its PDF it takes some 100 KB, as a dictionary and as bytes.
_KEPT: Final = 128
_METADATA: Final = Route("", "capabilities", "GET", "metadata", capabilities)
_TEMPLATES: Final = tuple((route, tuple(route.path.split("/"))) for route in (_METADATA, *ROUTES))
# By the first segment, which is no variable in any of them.
_BELOW: Final = {
    first: tuple(each for each in _TEMPLATES if each[1][0] == first) for first in {t[0] for _, t in _TEMPLATES}
}


class FhirRouter:
    """Answers every request; safe to be called from several threads."""

    def __init__(self, store: FhirStore, site: FhirSite | None = None) -> None:
        self._store = store
        self._site = site or FhirSite()
        self._kept: Recent[str, tuple[Standing, Answer]] = Recent(_KEPT)

    def handle(self, request: FhirRequest) -> FhirResponse:
        """The answer to a request. Nothing that a client sends makes it raise."""
        asked = replace(request, method="GET") if request.method == "HEAD" else request
        route: Route | None = None
        try:
            route, variables = routed(asked)
            check_format(asked)
            check_scopes(asked, route)
            answer = route.interact(Exchange(asked, self._store, self._site, self.handle, self._kept, variables))
            response = _response(asked, answer)
            self._record(asked, answer.accesses)
        except Refusal as refusal:
            response = self._refused(asked, route, refusal)
        except DomainError as error:
            if refusal_of(error).status >= 500:
                _log(error)
            response = self._refused(asked, route, refusal_of(error))
        except Exception as error:  # noqa: BLE001 (the last resort of an endpoint that must always answer)
            _log(error)
            response = self._refused(asked, route, FAULT)
        return _without_body(response) if request.method == "HEAD" else response

    def _record(self, request: FhirRequest, accesses: tuple[Access, ...]) -> None:
        if accesses:
            self._store.record(request.actor, [access.of(request) for access in accesses])

    def _refused(self, request: FhirRequest, route: Route | None, refusal: Refusal) -> FhirResponse:
        """The outcome of a refusal. Whatever was asked of a record and not given is in the trail with its status."""
        if route is not None and route.code != "capabilities":
            detail: dict[str, Detail] = {"interface": "fhir", "interaction": route.code, "status": refusal.status}
            subject = (Kind.ACCESS, route.resource or route.code)
            access = Access(Tag.READER_ACCESS_REFUSED, subject, outcome=Outcome.REFUSED, detail=detail)
            try:
                self._record(request, (access,))
            except Exception as error:  # noqa: BLE001 (nothing was shown: the refusal stands, the log tells)
                _log(error)
        return FhirResponse(refusal.status, _typed(refusal.headers), json_bytes(outcome(refusal)))


def check_scopes(request: FhirRequest, route: Route) -> None:
    """Raise Refusal (403) where the token has scopes and none of them is for this interaction."""
    letter = route.letter
    if request.scopes is None or letter is None or route.resource == "OperationDefinition":
        return
    if not request.scopes.allow(route.resource, letter):
        raise Refusal(403, "forbidden", f"The token has no scope system/{route.resource}.{letter}.")


def _response(request: FhirRequest, answer: Answer) -> FhirResponse:
    """The answer as HTTP: 304 where the client has it, and after a write what the client prefers to get back."""
    resource = cut_of(request.query)(answer.resource)
    body = answer.whole if answer.whole and resource is answer.resource else json_bytes(resource)
    headers = {**_headers(answer, body), **answer.headers}
    if answer.status == 204:
        return FhirResponse(204, answer.headers)
    if answer.written:
        wanted = preferred_return(request)
        if wanted == "minimal":
            return FhirResponse(answer.status, headers)
        body = json_bytes(DONE) if wanted == "operationoutcome" else body
    elif answer.settled and "ETag" in headers and has_already(request, headers["ETag"]):
        return FhirResponse(304, headers)
    return FhirResponse(answer.status, _typed(headers), body)


def routed(request: FhirRequest) -> tuple[Route, Mapping[str, str]]:
    """The route of a request and the variables in its path. Raises Refusal (404, 405)."""
    segments = tuple(request.path.strip("/").split("/"))
    fitting = [
        (route, found)
        for route, template in _BELOW.get(segments[0], ())
        if (found := _variables(template, segments)) is not None
    ]
    for route, variables in fitting:
        if route.method == request.method:
            return route, variables
    methods = {route.method for route, _ in fitting}
    if methods or (len(segments) == 1 and segments[0] in DOCUMENTATION):
        allowed = sorted(methods | ({"HEAD"} if "GET" in methods else set()))
        raise Refusal(405, "not-supported", "No such interaction here.", {"Allow": ", ".join(allowed)})
    raise Refusal(404, "not-supported" if "$" in request.path else "not-found", "Nothing has this address.")


def _variables(template: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    """The variables with which `template` is that path; None when it is not, or when an id cannot be one."""
    if len(template) != len(segments):
        return None
    variables: dict[str, str] = {}
    for part, segment in zip(template, segments, strict=True):
        if part.startswith("{"):
            if not ID.fullmatch(segment):
                return None
            variables[part.strip("{}")] = segment
        elif part != segment:
            return None
    return variables


def _headers(answer: Answer, body: bytes) -> dict[str, str]:
    # Patient data: kept by nobody on the way, and asked for again each time (with the ETag, where there is one).
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization"}
    if answer.cacheable:
        headers["ETag"] = etag(answer, body)
    if answer.last_modified is not None:
        headers["Last-Modified"] = _http_date(answer.last_modified)
    return headers


def _http_date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def _typed(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Content-Type": MEDIA_TYPE}


def _without_body(response: FhirResponse) -> FhirResponse:
    return replace(response, headers={**response.headers, "Content-Length": str(len(response.body))}, body=b"")


def _log(error: BaseException) -> None:
    """The type and the place of a fault; its words may quote a patient."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    _LOG.error("fhir answer failed", error_type=type(error).__name__, error_at=place)
