"""What an administrator looks at: queues, workers, switches and connections, as the stored data tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from inlay_core.application.ports import (
    Delivery,
    DestinationCount,
    OutboxItem,
    QueueCount,
    SenderCount,
    Site,
    Switch,
    UnitOfWork,
    WorkerSeen,
)
from inlay_core.application.switching import allowance
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock
from inlay_core.domain.job import JobKind, JobState
from inlay_core.domain.switch import UNKNOWN, Writer

# Failures and senders that are older are history: the trail and `inlay hl7` have them.
LOOKS_BACK: Final = timedelta(days=30)
# A worker tells of itself every 15 seconds.
SILENT_AFTER: Final = timedelta(seconds=60)
# The last delivery is nearly always among the few that were due last: the others waited behind one of their own report.
NEWEST_DELIVERIES: Final = 100
_MOST_PARKED: Final = 200
_MOST_LOOKED_AT: Final = 100


@dataclass(frozen=True, slots=True)
class Overview:
    """How the installation stands at a moment. Counts, names of systems and codes: nothing of a patient."""

    at: datetime
    # What the settings allow, before switches take away.
    uses: frozenset[JobKind]
    switches: Sequence[Switch]
    queues: Sequence[QueueCount]
    workers: Sequence[WorkerSeen]
    senders: Sequence[SenderCount]
    destinations: Sequence[DestinationCount]
    parked: Sequence[OutboxItem] = field(default_factory=tuple)

    def is_silent(self, worker: WorkerSeen) -> bool:
        """Whether the worker should have told of itself by now."""
        return _is_silent(worker, self.at)


def overview(uow: UnitOfWork, clock: Clock, actor: Actor, site: Site) -> Overview:
    """How everything stands now."""
    require(actor, Permission.ADMINISTER)
    now = clock()
    with uow:
        return Overview(
            now,
            site.generation.kinds(),
            uow.switches.all(),
            uow.jobs.census(now - LOOKS_BACK),
            uow.workers.all(),
            uow.messages.senders(now - LOOKS_BACK),
            uow.outbox.census(NEWEST_DELIVERIES),
            uow.outbox.in_state(Delivery.DEAD, _MOST_PARKED),
        )


@dataclass(frozen=True, slots=True)
class Consumption:
    """Whether jobs are taken: workers that are there, those that fell silent, and jobs that none takes, by id."""

    workers: int
    silent: int
    untaken: frozenset[str]


def consumption(uow: UnitOfWork, clock: Clock, site: Site, patience_seconds: float) -> Consumption:
    """Jobs that may run, were asked for longer ago than that, and wait while no worker holds any job.

    A job whose images have just come is among them for the moment until it is claimed: look twice.
    """
    now = clock()
    with uow:
        workers = uow.workers.all()
        silent = sum(_is_silent(worker, now) for worker in workers)
        running = uow.jobs.in_state(JobState.RUNNING, _MOST_LOOKED_AT)
        if any(job.lease_until is not None and job.lease_until > now for job in running):
            return Consumption(len(workers) - silent, silent, frozenset())
        asked_before = now - timedelta(seconds=patience_seconds)
        writers = {Writer(worker.model, worker.model_digest) for worker in workers} or {UNKNOWN}
        allowances = [allowance(uow, site).for_writer(writer) for writer in writers]
        waiting = [job for each in allowances for job in uow.jobs.unwoken(now, now, each, _MOST_LOOKED_AT)]
        untaken = frozenset(job.id for job in waiting if job.created_at < asked_before)
        return Consumption(len(workers) - silent, silent, untaken)


def workers_there(uow: UnitOfWork, clock: Clock) -> list[WorkerSeen]:
    """Those that told of themselves lately, by host."""
    now = clock()
    with uow:
        there = [worker for worker in uow.workers.all() if not _is_silent(worker, now)]
    return sorted(there, key=lambda worker: (worker.host, worker.id))


def _is_silent(worker: WorkerSeen, now: datetime) -> bool:
    return now - worker.seen_at > SILENT_AFTER


def tell_of_worker(uow: UnitOfWork, worker: WorkerSeen) -> None:
    """A worker is there, and says what it works with. Those that have been silent for a day are dropped."""
    with uow:
        uow.workers.put(worker)
        uow.workers.forget(worker.seen_at - timedelta(days=1))
        uow.commit()


def worker_ended(uow: UnitOfWork, worker_id: str) -> None:
    """A worker has ended in order."""
    with uow:
        uow.workers.remove(worker_id)
        uow.commit()
