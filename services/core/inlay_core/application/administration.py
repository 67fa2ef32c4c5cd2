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
from inlay_core.domain.identity import Actor, Permission, require
from inlay_core.domain.ids import Clock
from inlay_core.domain.job import JobKind

# Failures and senders that are older are history: the trail and `inlay hl7` have them.
LOOKS_BACK: Final = timedelta(days=30)
# A worker tells of itself every 15 seconds.
SILENT_AFTER: Final = timedelta(seconds=60)
_MOST_PARKED: Final = 200


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
        return self.at - worker.seen_at > SILENT_AFTER


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
            uow.outbox.census(),
            uow.outbox.in_state(Delivery.DEAD, _MOST_PARKED),
        )


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
