"""Draft jobs: one request to the model each. Only the holder of the newest fence may write a job's outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from inlay_core.domain.errors import Conflict, Stale
from inlay_core.domain.order import Priority


class JobKind(StrEnum):
    """`draft`: everything is free; `infill`: some fragments are locked."""

    DRAFT = "draft"
    INFILL = "infill"


class JobState(StrEnum):
    """Where a job stands."""

    WAITING_IMAGES = "waiting-images"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def is_open(self) -> bool:
        """Whether a result can still come of it."""
        return self in OPEN_STATES


OPEN_STATES: Final = frozenset({JobState.WAITING_IMAGES, JobState.QUEUED, JobState.RUNNING})

JOB_TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset(
            {JobState.RUNNING, JobState.CANCELLED, JobState.SUPERSEDED, JobState.FAILED, JobState.QUEUED}
        ),
        JobState.WAITING_IMAGES: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.SUPERSEDED}),
        JobState.RUNNING: frozenset(set(JobState) - {JobState.RUNNING}),
    }
)
"""State -> the states that may follow; what is missing is final."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job or a report stands where it stands: a code for programs, a text without patient data for people."""

    code: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One request to the model.

    `request` is JSON-able (for infill see `domain.infill`). `fence` rises by one per claim. `base_version` is the
    version of the report that the result applies to. `run_record` is what the model used, as JSON.
    `alternatives` are the texts that each gap might hold, as JSON, where an infill asked for more than one.
    `traceparent` is the trace that the job belongs to (W3C Trace Context).
    """

    id: str
    report_id: str
    kind: JobKind
    base_version: int
    priority: Priority
    created_at: datetime
    state: JobState = JobState.QUEUED
    request: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    fence: int = 0
    lease_until: datetime | None = None
    not_before: datetime | None = None
    woken_at: datetime | None = None
    reason: Reason | None = None
    run_record: Mapping[str, Any] | None = None
    alternatives: tuple[Mapping[str, Any], ...] = ()
    cancel_requested: bool = False
    requested_by: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    traceparent: str | None = None

    def to(self, state: JobState, **changes: Any) -> Job:
        """This job in another state; raise Conflict when no such step exists."""
        if state not in JOB_TRANSITIONS.get(self.state, frozenset()):
            raise Conflict("wrong-job-state", f"A job that is {self.state} cannot become {state}.", "job.state")
        return replace(self, state=state, **changes)

    def finish(self, state: JobState, now: datetime, reason: Reason | None = None) -> Job:
        """This job in a final state, its lease given up."""
        return self.to(state, finished_at=now, lease_until=None, reason=reason)

    def check_fence(self, fence: int) -> None:
        """Raise Stale unless the job runs under that fence: another worker, or nobody, holds it now."""
        if self.state is not JobState.RUNNING or self.fence != fence:
            raise Stale("fence-moved", "The job is no longer held under this fence.", "job.fence")
