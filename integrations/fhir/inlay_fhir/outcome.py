"""Errors as answers: the one place where a refusal or a domain error becomes a status and an OperationOutcome.

https://hl7.org/fhir/R4/operationoutcome.html. Diagnostics name the place, never a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inlay_fhir.elements import Json, filled
from inlay_fhir.mapping.core import Ambiguous, Category, DomainError, Stale

ERROR_SYSTEM: Final = "urn:x-inlay:error"

# Category -> (HTTP status, issue type of https://hl7.org/fhir/R4/valueset-issue-type.html)
_CATEGORIES: Final[Mapping[Category, tuple[int, str]]] = MappingProxyType(
    {
        Category.INVALID: (400, "invalid"),
        Category.FORBIDDEN: (403, "forbidden"),
        Category.NOT_FOUND: (404, "not-found"),
        Category.CONFLICT: (409, "conflict"),
        Category.LOCKED: (423, "lock-error"),
        Category.UNAVAILABLE: (503, "transient"),
        Category.FAULT: (500, "exception"),
    }
)


class Refusal(Exception):
    """What the protocol refuses, before or beside the domain: a status, an issue type and words without values."""

    def __init__(self, status: int, issue: str, diagnostics: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.issue = issue
        self.diagnostics = diagnostics
        self.headers = headers or {}


def refusal_of(error: DomainError) -> Refusal:
    """The answer to a domain error. A stale version, or a condition that several fit, is 412 in R4."""
    status, issue = (412, "conflict") if isinstance(error, Stale | Ambiguous) else _CATEGORIES[error.category]
    return Refusal(status, issue, str(error))


def outcome(refusal: Refusal) -> Json:
    """The OperationOutcome that says why."""
    severity = "fatal" if refusal.status == 500 else "error"
    issue = filled(severity=severity, code=refusal.issue, diagnostics=refusal.diagnostics)
    return {"resourceType": "OperationOutcome", "issue": [issue]}


DONE: Final[Json] = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "information", "code": "informational", "diagnostics": "Done."}],
}
FAULT: Final = Refusal(500, "exception", "Inlay failed to answer. The fault is in its log.")
