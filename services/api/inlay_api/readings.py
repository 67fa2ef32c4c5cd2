"""What is read, or refused, goes into the trail before its answer leaves: over FHIR, the API and the pages alike.

What several threads record at the same time is one statement and one commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from inlay_core.application import queries
from inlay_core.bootstrap import Services
from inlay_core.domain.audit import AuditEvent, event_of
from inlay_core.domain.identity import Actor
from inlay_core.together import Together
from inlay_fhir.store import Access


class Readings:
    """Records accesses; one per process, for all of its threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._together: Together[Sequence[AuditEvent], None] = Together(self._record)

    def record(self, actor: Actor, accesses: Sequence[Access]) -> None:
        """Write them into the trail; raises Unavailable or Fault where that cannot be, and nothing may be shown."""
        self._together.ask([self.event(actor, access) for access in accesses])

    def event(self, actor: Actor, access: Access) -> AuditEvent:
        """The event of an access that happens now."""
        return event_of_access(self._services.new_id(), self._services.clock(), actor, access)

    def _record(self, readings: Sequence[Sequence[AuditEvent]]) -> Sequence[None]:
        queries.record_accesses(self._services.single(), [event for events in readings for event in events])
        return [None] * len(readings)


def event_of_access(event_id: str, at: datetime, actor: Actor, access: Access) -> AuditEvent:
    """What the trail holds of an access."""
    return event_of(
        event_id,
        at,
        actor,
        access.tag,
        access.subject,
        report_id=access.report_id,
        version=access.version,
        outcome=access.outcome,
        detail=access.detail,
        request_id=access.request_id,
    )
