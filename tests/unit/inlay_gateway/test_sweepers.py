from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inlay_core.application.drafting import claim_next, images_missing
from inlay_core.application.ports import ImageRef
from inlay_core.application.trail import verify_trail
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.job import JobState
from inlay_gateway.delivery import Books, deliver_wakeups
from inlay_gateway.sweepers import ENOUGH_WAKEUPS, queue_arrived, reclaim, seal, wake
from inlay_testkit.core import WORKER, StillClock, Ward, counting_ids
from inlay_testkit.memory import Memory


class Shelf:
    """An image source that has the studies it is told to have."""

    def __init__(self, *studies: str) -> None:
        self.studies = studies

    def find(self, study_instance_uid: str | None, _accession_number: str | None = None) -> list[ImageRef]:
        """One image of a study that is there."""
        there = study_instance_uid in self.studies
        return [ImageRef("shelf", "1", study_instance_uid or "", "1")] if there else []

    def load(self, _ref: ImageRef) -> bytes:
        """No sweep loads an image."""
        raise AssertionError


class Broker:
    """A broker from which no worker takes anything, and which may be away."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.away = False

    def wake(self, job_ids: Sequence[str]) -> None:
        """Take a wake-up."""
        self.woken += job_ids

    def waiting(self) -> int:
        """All of them are still there."""
        if self.away:
            raise Unavailable("broker-away", "The broker does not answer.")
        return len(self.woken)


class House:
    """A database in memory and the books of a relay."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.clock = StillClock()
        self.books = Books(self.memory, self.clock, counting_ids("book"))
        self.ward = Ward(self.memory(), self.clock)

    def states(self) -> list[JobState]:
        """The states of all jobs, the oldest first."""
        return [job.state for job in self.memory.world.jobs.values()]

    def wait_for_images(self) -> None:
        """Have a worker put its next job aside."""
        claimed = claim_next(*self.ward.trio, WORKER)
        assert claimed is not None
        images_missing(*self.ward.trio, WORKER, claimed.job.id, fence=claimed.job.fence)


def test_jobs_are_queued_when_their_images_arrive() -> None:
    """Of the waiting jobs exactly those whose study is there go on, with a wake-up for a worker."""
    house = House()
    for number in ("1", "2"):
        house.ward.order(number)
    for _ in range(2):
        house.wait_for_images()
    waiting = len(house.memory.world.outbox)
    assert queue_arrived(house.books, Shelf("1.2.826.0.1.2")) == 1
    assert house.states() == [JobState.WAITING_IMAGES, JobState.QUEUED]
    assert len(house.memory.world.outbox) == waiting + 1
    assert queue_arrived(house.books, Shelf()) == 0


def test_a_silent_worker_loses_its_job() -> None:
    """A job whose lease is over goes back to the queue, and only then."""
    house = House()
    house.ward.order()
    claim_next(*house.ward.trio, WORKER)
    assert reclaim(house.books) == 0
    house.clock.advance(house.books.site.lease_seconds + 1)
    assert reclaim(house.books) == 1
    assert house.states() == [JobState.QUEUED]


def test_a_job_that_nobody_took_is_announced_again() -> None:
    """The broker may lose everything: after a while a queued job gets another wake-up, but not in every round."""
    house, broker = House(), Broker()
    house.ward.order()
    house.memory.world.outbox.clear()
    assert wake(house.books, 30, broker) == 0
    house.clock.advance(31)
    assert wake(house.books, 30, broker) == 1
    assert wake(house.books, 30, broker) == 0
    assert [item.payload for item in house.memory.world.outbox.values()] == [
        {"job_id": job_id} for job_id in house.memory.world.jobs
    ]


def test_wake_ups_do_not_pile_up_while_workers_are_away() -> None:
    """Over a weekend without workers the broker fills to a bound and no further; emptied, it is told again.

    Whether anything is told does not depend on how many jobs wait, and a broker that is away is told nothing.
    """
    house, broker = House(), Broker()
    for number in range(40):
        house.ward.order(str(number))
    deliver_wakeups(house.books, broker)
    rounds = 2 * 24 * 120
    for _ in range(rounds):
        house.clock.advance(30)
        if wake(house.books, 29, broker):
            deliver_wakeups(house.books, broker)
    assert ENOUGH_WAKEUPS <= len(broker.woken) < ENOUGH_WAKEUPS + 40
    assert len(house.memory.world.outbox) == len(broker.woken)
    broker.woken.clear()
    assert wake(house.books, 29, broker) == 40
    deliver_wakeups(house.books, broker)
    house.clock.advance(30)
    broker.away = True
    assert wake(house.books, 29, broker) == 0
    broker.away = False
    assert wake(house.books, 29, broker) == 40


def test_the_trail_is_chained() -> None:
    """Everything that was recorded is sealed, and the chain verifies."""
    house = House()
    house.ward.order()
    recorded = len(house.memory.world.events)
    assert seal(house.books) == recorded
    assert seal(house.books) == 0
    verification = verify_trail(house.memory())
    assert (verification.sealed, verification.unsealed, verification.holds) == (recorded, 0, True)
    house.memory.world.events = {key: text + " " for key, text in house.memory.world.events.items()}
    assert not verify_trail(house.memory()).holds


def test_a_source_that_is_asked_for_nothing_is_not_asked() -> None:
    """Without waiting jobs no image source is touched."""
    house = House()
    shelf = Shelf()
    shelf.find = lambda *_: (_ for _ in ()).throw(AssertionError)  # type: ignore[method-assign]
    assert queue_arrived(replace(house.books), shelf) == 0
