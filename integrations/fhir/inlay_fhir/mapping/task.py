"""A job as a Task.

https://hl7.org/fhir/R4/task.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from inlay_core.domain.job import Job, JobState
from inlay_fhir.elements import Json, concept, filled, instant
from inlay_fhir.mapping.naming import ACTOR_SYSTEM

_OFFERED: Final = "alternatives"
_OUTPUT: Final[Json] = {"type": concept(text=_OFFERED), "valueReference": {"reference": f"#{_OFFERED}"}}
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


def task(job: Job, *, offers: bool = False) -> Json:
    """A job; `businessStatus` is its exact state, `statusReason` why it stands there.

    With `offers`, and where a gap may hold one of several texts, `output` refers to contained Parameters that have
    them, best first.
    """
    period = filled(
        start=instant(job.started_at) if job.started_at else None,
        end=instant(job.finished_at) if job.finished_at and job.started_at else None,
    )
    offered = offers and bool(job.alternatives)
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
        contained=[_offered(job.alternatives)] if offered else None,
        output=[_OUTPUT] if offered else None,
    )


def _offered(choices: Sequence[Mapping[str, Any]]) -> Json:
    """The texts of every gap as Parameters: `gap` with section, item, and `text` with its value, score, probability."""
    return {
        "resourceType": "Parameters",
        "id": _OFFERED,
        "parameter": [
            {
                "name": "gap",
                "part": [
                    {"name": "section", "valueCode": choice["section"]},
                    {"name": "item", "valueInteger": choice["item"]},
                    *(_text(text) for text in choice["texts"]),
                ],
            }
            for choice in choices
        ],
    }


def _text(text: Mapping[str, Any]) -> Json:
    # FHIR has no empty strings: a gap that may hold nothing has a text without a value.
    value = [{"name": "value", "valueString": text["text"]}] if text["text"] else []
    numbers = [{"name": name, "valueDecimal": text[name]} for name in ("score", "probability") if name in text]
    return {"name": "text", "part": [*value, *numbers]}


def _requester(actor_id: str | None) -> Json | None:
    return {"identifier": {"system": ACTOR_SYSTEM, "value": actor_id}} if actor_id else None
