"""Why a message is not taken, in both languages: the domain's error, and what the acknowledgement says of it."""

from __future__ import annotations

import re
from typing import Final

from inlay_core.domain.errors import Category, DomainError, Invalid
from inlay_hl7.ack import Issue, Outcome
from inlay_hl7.message import Condition, Place


class Malformed(Invalid):
    """A message that cannot be taken; it remembers what its acknowledgement has to say."""

    def __init__(self, outcome: Outcome, issue: Issue) -> None:
        super().__init__(f"hl7-{int(issue.condition)}", issue.text or "malformed", str(issue.place or "MSH"))
        self.outcome = outcome
        self.issue = issue

    def __reduce__(self) -> tuple[type[DomainError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.outcome, self.issue)


_BY_CODE: Final = {"accession-taken": Condition.DUPLICATE_KEY}
_BY_CATEGORY: Final = {
    Category.INVALID: Condition.DATA_TYPE,
    Category.NOT_FOUND: Condition.UNKNOWN_KEY,
    Category.LOCKED: Condition.LOCKED,
}
_PLACE: Final = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?")


def answer_of(error: DomainError | None) -> tuple[Outcome, tuple[Issue, ...]]:
    """What the acknowledgement of a message says when its use case ended so."""
    if error is None:
        return Outcome.ACCEPTED, ()
    if isinstance(error, Malformed):
        return error.outcome, (error.issue,)
    temporary = error.category in (Category.UNAVAILABLE, Category.FAULT)
    condition = _BY_CODE.get(error.code) or _BY_CATEGORY.get(error.category, Condition.APPLICATION)
    found = _PLACE.match(error.place or "")
    place = Place(found[1], int(found[2] or 1)) if found else None
    return Outcome.UNAVAILABLE if temporary else Outcome.CONTENT_ERROR, (Issue(condition, place, error.message),)
