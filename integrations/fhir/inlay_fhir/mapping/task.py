"""A job as a Task.

https://hl7.org/fhir/R4/task.html
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inlay_core.domain.job import Job, JobState
from inlay_fhir.elements import Json, concept, filled, instant
from inlay_fhir.mapping.naming import ACTOR_SYSTEM

_STATUSES: Final[Mapping[JobState, str]] = MappingProxyType(
    {
        JobState.WAITING_IMAGES: "on-hold",
        JobState.QUEUED: "requested",
        JobState.RUNNING: "in-progress",
        JobState.SUCCEEDED: "completed",
        JobState.FAILED: "failed",
        JobState.CANCELLED: "cancelled",
        JobState.SUPERSEDED: "cancelled",
    }
)


def task(job: Job) -> Json:
    """A job; `businessStatus` is its exact state, `statusReason` why it stands there."""
    period = filled(
        start=instant(job.started_at) if job.started_at else None,
        end=instant(job.finished_at) if job.finished_at and job.started_at else None,
    )
    moments = (job.created_at, job.started_at, job.finished_at)
    return filled(
        resourceType="Task",
        id=job.id,
        status=_STATUSES[job.state],
        statusReason=concept(text=job.reason.text or job.reason.code) if job.reason else None,
        businessStatus=concept(text=str(job.state)),
        intent="order",
        priority=str(job.priority),
        code=concept(text=str(job.kind)),
        focus={"reference": f"DiagnosticReport/{job.report_id}"},
        executionPeriod=period,
        authoredOn=instant(job.created_at),
        lastModified=instant(max(moment for moment in moments if moment is not None)),
        requester=_requester(job.requested_by),
    )


def _requester(actor_id: str | None) -> Json | None:
    return {"identifier": {"system": ACTOR_SYSTEM, "value": actor_id}} if actor_id else None
