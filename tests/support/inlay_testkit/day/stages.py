"""What each stage of the day took: from the clients' own clocks, and from the moments that the audit trail holds."""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inlay_core.application.ports import Delivery, Destination, ReportSearch, Sort
from inlay_core.application.queries import search_reports
from inlay_core.bootstrap import Services
from inlay_core.domain.audit import AuditEvent, Kind, Tag
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.domain.order import Priority
from inlay_testkit.capacity import Study, percentile, simulate
from inlay_testkit.core import AUDITOR

SHARES = (0.5, 0.95, 0.99)
# A claim looks at what is committed: whatever was queued so shortly before it may not have been there yet.
MARGIN_SECONDS = 0.25
_QUEUED = frozenset(
    {
        Tag.INTAKE_JOB_QUEUED,
        Tag.CLINICIAN_JOB_QUEUED,
        Tag.SWEEPER_JOB_QUEUED,
        Tag.SWEEPER_JOB_RECLAIMED,
        Tag.WORKER_JOB_RETRIED,
        Tag.WORKER_JOB_RELEASED,
    }
)


class Clocks:
    """Seconds by stage, noted from any thread."""

    def __init__(self) -> None:
        self.by_stage: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def took(self, stage: str, seconds: float) -> None:
        """A stage took so long once more."""
        with self._lock:
            self.by_stage.setdefault(stage, []).append(seconds)


@dataclass(frozen=True, slots=True)
class Service:
    """A job that succeeded: when it was queued last, claimed for good, and done."""

    accession: str
    kind: JobKind
    priority: Priority
    queued: datetime
    claimed: datetime
    done: datetime

    def wait(self, ready: datetime | None = None) -> float:
        """Seconds in the queue, from when there was something to do."""
        return (self.claimed - max(self.queued, ready or self.queued)).total_seconds()

    @property
    def seconds(self) -> float:
        """Seconds from the claim to the result."""
        return (self.done - self.claimed).total_seconds()


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Count, percentiles and maximum, in seconds."""
    shown = {f"p{round(share * 100)}": round(percentile(values, share), 4) for share in SHARES}
    return {"count": len(values), **shown, "max": round(max(values), 4)}


@dataclass(frozen=True, slots=True)
class Turn:
    """One claim of a job by a worker, also one that found no images: what the workers' time went to."""

    priority: Priority
    queued: datetime
    claimed: datetime
    seconds: float


def records_of(services: Services, ends: Mapping[tuple[str, int], datetime]) -> tuple[list[Service], list[Turn]]:
    """Every job that succeeded and every claim, by the moments of the trail; `ends` as `ends_of` gives them."""
    page = search_reports(services.reader(), AUDITOR, ReportSearch(), sort=Sort.NEWEST, limit=1_000_000)
    done: list[Service] = []
    claims: list[Turn] = []
    with services.reader() as uow:
        for row in page.rows:
            events = uow.audit.of_report(row.report.id)
            for job in uow.jobs.of_report(row.report.id):
                own = [event for event in events if event.subject_kind is Kind.JOB and event.subject_id == job.id]
                claims += _turns(job, own, ends)
                if job.state is JobState.SUCCEEDED:
                    done.append(_service(row.order.accession_number or "", job, own))
    return done, claims


def ends_of(logs: Iterable[str]) -> dict[tuple[str, int], datetime]:
    """When its worker was free again after each claim, by job and fence, from the logs of workers."""
    found: dict[tuple[str, int], datetime] = {}
    for log in logs:
        fences: dict[str, int] = {}
        for line in log.splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("event") == "job.claimed":
                fences[said["job_id"]] = said["fence"]
            elif said.get("event") == "job.ended":
                found[said["job_id"], fences.pop(said["job_id"])] = datetime.fromisoformat(said["timestamp"])
    return found


def _turns(job: Job, own: Sequence[AuditEvent], ends: Mapping[tuple[str, int], datetime]) -> list[Turn]:
    found = []
    for event in own:
        fence = event.detail.get("fence")
        if event.tag is Tag.WORKER_JOB_CLAIMED and isinstance(fence, int) and (job.id, fence) in ends:
            seconds = (ends[job.id, fence] - event.at).total_seconds()
            found.append(Turn(job.priority, _queued(own, event.at), event.at, seconds))
    return found


def _service(accession: str, job: Job, own: Sequence[AuditEvent]) -> Service:
    # A claim names its fence; the same tag without one says that the images are there.
    claimed = max(e.at for e in own if e.tag is Tag.WORKER_JOB_CLAIMED and "fence" in e.detail)
    done = max(e.at for e in own if e.tag is Tag.WORKER_JOB_SUCCEEDED)
    return Service(accession, job.kind, job.priority, _queued(own, claimed), claimed, done)


def _queued(own: Sequence[AuditEvent], before: datetime) -> datetime:
    return max(event.at for event in own if event.tag in _QUEUED and event.at <= before)


def stages_of(
    done: Sequence[Service],
    ordered: Mapping[str, datetime],
    imaged: Mapping[str, datetime],
    results: Sequence[float],
    clocks: Mapping[str, Sequence[float]],
) -> dict[str, dict[str, Any]]:
    """The table of stages; `ordered` and `imaged` are by accession number, `results` seconds from draft to ORU."""
    drafts = [each for each in done if each.kind is JobKind.DRAFT]
    infills = [each for each in done if each.kind is JobKind.INFILL]
    # A job whose images come while it waits is queued before there is anything to do.
    ready = {each.accession: max(ordered[each.accession], imaged[each.accession]) for each in drafts}
    seconds: dict[str, Sequence[float]] = {
        "frame to ACK": clocks.get("frame to ACK", ()),
        "order and images to queued": [
            max(0.0, (each.queued - ready[each.accession]).total_seconds()) for each in drafts
        ],
        **{
            f"queue wait, {priority} draft": [
                each.wait(ready[each.accession]) for each in drafts if each.priority is priority
            ]
            for priority in Priority
        },
        "queue wait, infill": [each.wait() for each in infills],
        "drafting": [each.seconds for each in drafts],
        "infilling": [each.seconds for each in infills],
        "version to ORU received": results,
        **{name: values for name, values in clocks.items() if name != "frame to ACK"},
    }
    return {name: summary(values) for name, values in seconds.items() if values}


def results_of(services: Services, received: Mapping[str, datetime]) -> list[float]:
    """Seconds from each published version to its ORU at the target; `received` are moments by control id."""
    with services.reader() as uow:
        items = uow.outbox.in_state(Delivery.DELIVERED, 1_000_000)
    told = [item for item in items if item.destination == Destination.ORU and item.control_id in received]
    return [(received[item.control_id] - item.created_at).total_seconds() for item in told]


def passed_over(done: Sequence[Service], margin: float = MARGIN_SECONDS) -> int:
    """How often a job was claimed while a more urgent one had been waiting for longer than the margin."""
    by_claim = sorted(done, key=lambda each: each.claimed)
    claims = [each.claimed.timestamp() for each in by_claim]
    broken = 0
    for urgent in done:
        since, until = urgent.queued.timestamp() + margin, urgent.claimed.timestamp() - margin
        meanwhile = by_claim[bisect_left(claims, since) : bisect_left(claims, until)]
        broken += sum(other.priority.rank > urgent.priority.rank for other in meanwhile)
    return broken


def simulated(turns: Sequence[Turn], workers: int) -> list[dict[str, Any]]:
    """Waits of the same work in the simulation, beside the measured ones, by priority.

    Arrivals are when jobs were queued, services what each claim kept its worker busy for.
    """
    origin = min(turn.queued for turn in turns)
    work = [Study((turn.queued - origin).total_seconds(), turn.priority.rank, turn.seconds) for turn in turns]
    waits = simulate(sorted(work, key=lambda study: study.arrival), workers)
    rows = []
    for priority in (None, *Priority):
        measured = [(t.claimed - t.queued).total_seconds() for t in turns if priority in (None, t.priority)]
        theirs = waits.all() if priority is None else waits.by_priority.get(priority.rank, [])
        for share in (*SHARES, None):
            ours, told = (_figure(values, share) for values in (measured, theirs))
            rows.append(
                {
                    "priority": str(priority or "all"),
                    "figure": "mean" if share is None else f"p{round(share * 100)}",
                    "measured": round(ours, 3),
                    "simulated": round(told, 3),
                    "deviation": round(told - ours, 3),
                }
            )
    return rows


def _figure(values: Sequence[float], share: float | None) -> float:
    if not values:
        return 0.0
    return sum(values) / len(values) if share is None else percentile(values, share)
