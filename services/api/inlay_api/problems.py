"""Errors as problem+json (RFC 9457), mapped once: each category of the domain has one status, here and nowhere else.

A problem names the place in the request, never the value that stood there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flask import Response
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from inlay_core.domain.errors import Category, DomainError, Invalid, Stale

PROBLEM: Final = "application/problem+json"

STATUSES: Final[Mapping[Category, int]] = MappingProxyType(
    {
        Category.INVALID: 400,
        Category.FORBIDDEN: 403,
        Category.NOT_FOUND: 404,
        Category.CONFLICT: 409,
        Category.LOCKED: 423,
        Category.UNAVAILABLE: 503,
        Category.FAULT: 500,
    }
)
"""Category -> HTTP status."""

# What is switched off or overloaded is worth another look after this; clients that poll faster only add load.
_RETRY_AFTER_SECONDS: Final = 2
# Of errors of the web framework only the status is told: their texts may quote the request.
_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        404: "no-such-path",
        405: "method-not-allowed",
        413: "body-too-large",
        414: "address-too-long",
    }
)
# https://hl7.org/fhir/R4/valueset-issue-type.html
_ISSUES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "invalid",
        401: "login",
        403: "forbidden",
        404: "not-found",
        405: "not-supported",
        413: "too-long",
        421: "security",
        429: "throttled",
        503: "transient",
    }
)


class Unauthenticated(Exception):
    """No token, or one that does not hold. `code` says which for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Refused(Exception):
    """An answer of HTTP's own (415, 421, 428) that no category of the domain stands for."""

    def __init__(self, status: int, code: str, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.place = place


def status_of(error: DomainError) -> int:
    """The status of a domain error; a version that is not the newest is a failed precondition."""
    return 412 if isinstance(error, Stale) else STATUSES[error.category]


def problem(status: int, code: str, detail: str, place: str | None = None) -> Response:
    """The answer for an error."""
    body = {
        "type": f"urn:inlay:problem:{code}",
        "title": HTTP_STATUS_CODES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if place is not None:
        body["place"] = place
    answer = Response(json.dumps(body, ensure_ascii=False), status=status, content_type=PROBLEM)
    if status == 503:
        answer.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return answer


def as_outcome(answer: Response) -> Response:
    """The same error for a FHIR client: an OperationOutcome (FHIR R4, 3.1.0.1.5)."""
    body = json.loads(answer.get_data(as_text=True))
    issue = _ISSUES.get(answer.status_code, "processing" if answer.status_code < 500 else "exception")
    words = f"{body['detail']} ({body['code']})"
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": issue, "diagnostics": words}],
    }
    answer.set_data(json.dumps(outcome, ensure_ascii=False))
    answer.content_type = "application/fhir+json"
    return answer


def of_domain(error: DomainError) -> Response:
    """The answer for a domain error; of a defect only that it is one is told."""
    if error.category is Category.FAULT:
        return problem(500, error.code, "Inlay has a defect here; the log has its place.")
    return problem(status_of(error), error.code, error.message, error.place)


def of_unauthenticated(error: Unauthenticated) -> Response:
    """401 with the challenge that RFC 6750 asks for."""
    answer = problem(401, error.code, error.message)
    reason = "" if error.code == "token-missing" else ', error="invalid_token"'
    answer.headers["WWW-Authenticate"] = f'Bearer realm="inlay"{reason}'
    return answer


def of_refused(error: Refused) -> Response:
    """The answer for an error of HTTP's own."""
    return problem(error.status, error.code, error.message, error.place)


def of_http(error: HTTPException) -> Response:
    """The answer for an error of the web framework."""
    status = error.code or 500
    answer = problem(status, _CODES.get(status, f"http-{status}"), HTTP_STATUS_CODES.get(status, "Error"))
    valid_methods = getattr(error, "valid_methods", None)
    if status == 405 and valid_methods:
        answer.headers["Allow"] = ", ".join(sorted(valid_methods))
    return answer


def of_unexpected(_error: Exception) -> Response:
    """The answer for a defect."""
    return problem(500, "fault", "Inlay has a defect here; the log has its place.")


def bad_request(message: str, place: str | None = None, code: str = "bad-request") -> Invalid:
    """An error in the shape of a request."""
    return Invalid(code, message, place)
