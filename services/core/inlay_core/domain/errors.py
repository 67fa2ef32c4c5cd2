"""The tree of domain errors, each with one category of a closed set that every edge maps once.

The message names the place (segment, field, offset), never the value: errors reach logs, ACKs and response bodies.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Category(StrEnum):
    """What kind of failure it is; problem+json, OperationOutcome, ACK and worker action are chosen by it."""

    INVALID = "invalid"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    LOCKED = "locked"
    UNAVAILABLE = "unavailable"
    FAULT = "fault"


class DomainError(Exception):
    """Raised by domain and use cases. `code` is stable kebab-case for programs, `place` says where in the input."""

    category: ClassVar[Category] = Category.FAULT

    def __init__(self, code: str, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return f"{self.message} ({self.code} at {self.place})" if self.place else f"{self.message} ({self.code})"

    def __reduce__(self) -> tuple[type[DomainError], tuple[str, str, str | None]]:
        return type(self), (self.code, self.message, self.place)


class Invalid(DomainError):
    """The input breaks a rule; sending it again unchanged fails again."""

    category = Category.INVALID


class Forbidden(DomainError):
    """The actor may not do this."""

    category = Category.FORBIDDEN


class NotFound(DomainError):
    """What the input names is not known here."""

    category = Category.NOT_FOUND


class Conflict(DomainError):
    """The state of the record does not allow it now."""

    category = Category.CONFLICT


class Stale(Conflict):
    """The caller acted on a version (or a fence) that is no longer the newest; HTTP edges answer 412."""


class Ambiguous(Conflict):
    """More than one record fits the condition of a conditional write; FHIR answers 412."""


class Race(Conflict):
    """Another transaction was first (a unique key, a version). Nothing was written: the use case may run again."""


class Locked(DomainError):
    """Locked text would have been lost or changed."""

    category = Category.LOCKED


class Unavailable(DomainError):
    """Not possible at present (switched off, overloaded, a peer is away); it may be asked again later."""

    category = Category.UNAVAILABLE


class Fault(DomainError):
    """A defect of Inlay itself."""

    category = Category.FAULT
