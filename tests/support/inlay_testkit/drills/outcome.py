"""What a drill leaves behind, read from the database and from the messages that other systems received."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from inlay_core.application.ports import Delivery, Destination, ReportSearch, Sort
from inlay_core.application.queries import search_reports
from inlay_core.application.trail import seal_trail, verify_trail
from inlay_core.bootstrap import Services
from inlay_core.domain.audit import Verification
from inlay_core.domain.job import Job, JobKind, JobState
from inlay_core.domain.lifecycle import SIGNED_STATUSES, Event
from inlay_core.domain.report import Report
from inlay_hl7.header import read_header
from inlay_testkit.core import AUDITOR

COUNTED = ("lost", "doubled", "overwritten", "unsigned_finals", "untold", "unsealed")
"""The counts of an outcome that have to be 0."""

_OPEN = (JobState.WAITING_IMAGES, JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counts that have to be 0, and what else there is to tell.

    `lost`: acknowledged orders without a draft and without a kept reason. `doubled`: orders with two reports, or
    reports drafted twice. `overwritten`: stored edits whose sentence is no longer there, byte for byte.
    `unsigned_finals`: final reports that nobody signed. `untold`: results that wait, were given up, were never received
    although their delivery is recorded, or were received in two versions under one control id. `unsealed`: events of
    the trail that could not be chained.
    """

    acknowledged: int
    lost: int
    doubled: int
    overwritten: int
    unsigned_finals: int
    untold: int
    unsealed: int
    chain_verifies: bool
    edits: int
    signed: int
    parked: int
    most_attempts: int

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong."""
        return self.chain_verifies and not any(getattr(self, name) for name in COUNTED)


@dataclass(frozen=True, slots=True)
class Story:
    """A report with its versions and jobs."""

    accession: str | None
    report: Report
    versions: Sequence[Report]
    jobs: Sequence[Job]

    @property
    def drafts(self) -> int:
        """How often the model's draft was applied."""
        return sum(version.event is Event.DRAFT for version in self.versions)

    @property
    def is_parked(self) -> bool:
        """Whether its draft was given up, with a reason."""
        return any(job.kind is JobKind.DRAFT and job.state is JobState.FAILED and job.reason for job in self.jobs)


def unfinished(services: Services) -> dict[str, int]:
    """How many jobs there are that have not come to an end, by state."""
    with services.reader() as uow:
        counted = uow.jobs.count(list(JobState))
    return {str(state): sum(n for (s, _), n in counted.items() if s is state) for state in _OPEN}


def untold(services: Services) -> int:
    """How many results wait for their target."""
    with services.reader() as uow:
        counted = uow.outbox.count()
    return sum(n for (to, state), n in counted.items() if to == Destination.ORU and state is Delivery.PENDING)


def sealed(services: Services, patience: float = 10.0) -> Verification:
    """Chain all that was recorded, and walk the chain; a relay that is sealing at the same moment is waited for."""
    deadline = time.monotonic() + patience
    while True:
        while seal_trail(services.uow()):
            pass
        found = verify_trail(services.reader())
        if not (found.holds and found.unsealed) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def stories(services: Services) -> list[Story]:
    """All reports, the newest first."""
    page = search_reports(services.reader(), AUDITOR, ReportSearch(), sort=Sort.NEWEST, limit=100_000)
    with services.reader() as uow:
        return [
            Story(
                row.order.accession_number,
                row.report,
                uow.reports.versions(row.report.id),
                uow.jobs.of_report(row.report.id),
            )
            for row in page.rows
        ]


def examine(
    services: Services,
    acknowledged: Collection[int],
    *,
    edits: Mapping[str, str],
    signing: Collection[str],
    received: Sequence[bytes],
) -> Outcome:
    """Hold what was acknowledged, edited, signed and received against the database."""
    told = stories(services)
    per_order = Counter(story.accession for story in told)
    ended = {story.accession for story in told if story.drafts or story.is_parked}
    trail = sealed(services)
    finals = [story.report for story in told if story.report.status in SIGNED_STATUSES]
    return Outcome(
        acknowledged=len(acknowledged),
        lost=sum(f"ACC{number}" not in ended for number in acknowledged),
        doubled=sum(n > 1 for n in per_order.values()) + sum(story.drafts > 1 for story in told),
        overwritten=_overwritten(told, edits),
        unsigned_finals=sum(report.signature is None or report.id not in signing for report in finals),
        untold=_untold(services, received),
        unsealed=trail.unsealed,
        chain_verifies=trail.holds,
        edits=len(edits),
        signed=len(finals),
        parked=sum(story.is_parked for story in told),
        most_attempts=max((job.attempts for story in told for job in story.jobs), default=0),
    )


def _overwritten(told: Sequence[Story], edits: Mapping[str, str]) -> int:
    reports = {story.report.id: story.report for story in told}
    return sum(
        sentence not in [fragment.text for section in reports[report_id].sections for fragment in section.fragments]
        for report_id, sentence in edits.items()
    )


def _untold(services: Services, received: Sequence[bytes]) -> int:
    by_id: dict[str, set[bytes]] = {}
    for payload in received:
        by_id.setdefault(read_header(payload).control_id, set()).add(payload)
    with services.reader() as uow:
        states = {state: uow.outbox.in_state(state, 100_000) for state in Delivery}
    results = {
        state: [item for item in items if item.destination == Destination.ORU] for state, items in states.items()
    }
    missing = sum(item.control_id not in by_id for item in results[Delivery.DELIVERED])
    changed = sum(len(contents) > 1 for contents in by_id.values())
    return len(results[Delivery.PENDING]) + len(results[Delivery.DEAD]) + missing + changed
