"""Subscriptions: a system that is told that a report has a new version. What it is told is an id, never content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from inlay_core.domain.lifecycle import Status


class SubscriptionState(StrEnum):
    """`requested` until the endpoint has answered a handshake; `error` when it does not answer; `off` is the end."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ERROR = "error"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who is told, where, and of which reports. `statuses` None: of all; `events` counts what was told."""

    id: str
    owner: str
    endpoint: str
    created_at: datetime
    updated_at: datetime
    state: SubscriptionState = SubscriptionState.REQUESTED
    statuses: tuple[Status, ...] | None = None
    events: int = 0
    reason: str | None = None
    ends_at: datetime | None = None
    version: int = 1

    def wants(self, status: Status, now: datetime) -> bool:
        """Whether a new version of that status is to be told."""
        open_still = self.ends_at is None or now < self.ends_at
        return open_still and (self.statuses is None or status in self.statuses)

    def to(self, state: SubscriptionState, now: datetime, reason: str | None = None) -> Subscription:
        """The next version, in another state."""
        return replace(self, state=state, reason=reason, updated_at=now, version=self.version + 1)

    @property
    def filters(self) -> Mapping[str, list[str] | None]:
        """What it is told of, at rest."""
        return {"statuses": None if self.statuses is None else [str(status) for status in self.statuses]}
