"""The life of a report as one table: the only place that says which status follows which event.

No event that the model or a machine causes leads to a signed status; a test walks every pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inlay_core.domain.errors import Conflict


class Status(StrEnum):
    """Where a report stands."""

    REGISTERED = "registered"
    DRAFTING = "drafting"
    DRAFTED = "drafted"
    IN_REVIEW = "in-review"
    SIGNED = "signed"
    AMENDED = "amended"
    CORRECTED = "corrected"
    APPENDED = "appended"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"

    @property
    def is_unsigned(self) -> bool:
        """Nobody has answered for the text yet, and somebody still can."""
        return self in UNSIGNED_STATUSES


class Event(StrEnum):
    """What can happen to a report."""

    START = "start"
    """A worker has the images and begins the draft."""
    DRAFT = "draft"
    """The draft arrives."""
    FAIL = "fail"
    """The draft cannot be made, or somebody stopped it; the reason is kept."""
    RETRY = "retry"
    """A failed draft is asked for again."""
    OPEN = "open"
    """A clinician begins to read."""
    EDIT = "edit"
    """A clinician changes text or locks."""
    INFILL = "infill"
    """The model's text for the gaps arrives, asked for by a clinician."""
    SIGN = "sign"
    AMEND = "amend"
    CORRECT = "correct"
    APPEND = "append"
    CANCEL = "cancel"
    """The order was cancelled before a signature."""
    RETRACT = "retract"
    """Withdrawn after a signature."""


def _table() -> dict[tuple[Status, Event], Status]:
    """Write the table row by row: status, then event and what follows."""
    review = {Event.EDIT: Status.IN_REVIEW, Event.CANCEL: Status.CANCELLED}
    after_signature = {
        Event.AMEND: Status.AMENDED,
        Event.CORRECT: Status.CORRECTED,
        Event.APPEND: Status.APPENDED,
        Event.RETRACT: Status.ENTERED_IN_ERROR,
    }
    rows: dict[Status, dict[Event, Status]] = {
        Status.REGISTERED: {Event.START: Status.DRAFTING, Event.FAIL: Status.FAILED, **review},
        Status.DRAFTING: {Event.DRAFT: Status.DRAFTED, Event.FAIL: Status.FAILED, **review},
        Status.DRAFTED: {Event.OPEN: Status.IN_REVIEW, Event.INFILL: Status.IN_REVIEW, **review},
        Status.IN_REVIEW: {Event.INFILL: Status.IN_REVIEW, Event.SIGN: Status.SIGNED, **review},
        Status.FAILED: {Event.RETRY: Status.REGISTERED, **review},
        Status.SIGNED: after_signature,
        Status.AMENDED: after_signature,
        Status.CORRECTED: after_signature,
        Status.APPENDED: after_signature,
    }
    return {(status, event): after for status, row in rows.items() for event, after in row.items()}


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = MappingProxyType(_table())
"""(status, event) -> the status that follows. A pair that is not here is refused."""

SIGNED_STATUSES: Final = frozenset({Status.SIGNED, Status.AMENDED, Status.CORRECTED, Status.APPENDED})
"""A named clinician answers for the text."""

UNSIGNED_STATUSES: Final = frozenset(
    {Status.REGISTERED, Status.DRAFTING, Status.DRAFTED, Status.IN_REVIEW, Status.FAILED}
)
"""Nobody has answered for the text yet, and somebody still can."""

REVIEWABLE_STATUSES: Final = frozenset({Status.DRAFTED, Status.IN_REVIEW})
"""There is text that a clinician may ask the model to rewrite."""

CLINICIAN_EVENTS: Final = frozenset(
    {Event.OPEN, Event.EDIT, Event.SIGN, Event.AMEND, Event.CORRECT, Event.APPEND, Event.RETRACT}
)
"""Events that only a person with the role can cause."""


def allowed(status: Status, event: Event) -> bool:
    """Whether `event` can happen to a report in `status`."""
    return (status, event) in TRANSITIONS


def follow(status: Status, event: Event) -> Status:
    """The status after `event`; raise Conflict when the table has no such row."""
    after = TRANSITIONS.get((status, event))
    if after is None:
        raise Conflict("wrong-status", f"A report that is {status} cannot take the event {event}.", "report.status")
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> registered"]
    edges: dict[tuple[Status, Status], list[str]] = {}
    for (status, event), after in TRANSITIONS.items():
        edges.setdefault((status, after), []).append(str(event))
    lines += [f"    {_node(a)} --> {_node(b)}: {', '.join(events)}" for (a, b), events in edges.items()]
    ends = [status for status in Status if not any(status is before for before, _ in TRANSITIONS)]
    lines += [f"    {_node(status)} --> [*]" for status in ends]
    lines += [f'    state "{status}" as {_node(status)}' for status in Status if "-" in status]
    return "\n".join(lines) + "\n"


def _node(status: Status) -> str:
    """Mermaid node names take no hyphen."""
    return status.replace("-", "_")
