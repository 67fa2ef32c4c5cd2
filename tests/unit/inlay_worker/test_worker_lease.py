"""How a worker keeps its lease, and how it hears that it should stop."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inlay_core.application import drafting, switching
from inlay_core.application.ports import Site
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.job import Job
from inlay_core.domain.switch import Scope, Writer
from inlay_testkit.core import ADMIN, RADIOLOGIST, WORKER, Ward
from inlay_testkit.memory import Memory
from inlay_worker.lease import Lease

SITE = Site(lease_seconds=60)


@pytest.fixture
def memory() -> Memory:
    """An empty database."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward on it."""
    return Ward(memory(), site=SITE)


@pytest.fixture
def job(ward: Ward) -> Job:
    """A job that a worker has just claimed."""
    ward.order()
    claimed = drafting.claim_next(*ward.trio, WORKER, site=SITE)
    assert claimed is not None
    return claimed.job


def lease_on(memory: Memory, ward: Ward, job: Job, **options: Any) -> Lease:
    """A lease whose thread is not started: the test renews by hand."""
    usual: dict[str, Any] = {"uow": memory, "reader": memory, "clock": ward.clock, "site": SITE}
    return Lease(job, **(usual | options))


def away() -> Any:
    """A database that does not answer."""
    raise Unavailable("database-away", "No answer.")


def test_renewal_extends_the_lease(memory: Memory, ward: Ward, job: Job) -> None:
    """A renewed job is not taken back when its first lease would have been over."""
    ward.clock.advance(50)
    lease_on(memory, ward, job).renew()
    ward.clock.advance(50)
    assert drafting.reclaim_expired(*ward.trio, WORKER, site=SITE) == []
    ward.clock.advance(50)
    assert [taken.id for taken in drafting.reclaim_expired(*ward.trio, WORKER, site=SITE)] == [job.id]


def test_thread_renews_by_itself(memory: Memory, ward: Ward, job: Job) -> None:
    """While the lease is held, renewals happen without the worker's doing, and end with it."""
    short = Site(lease_seconds=0.06)
    renewed: list[float] = []

    def counted() -> Any:
        renewed.append(1)
        return memory()

    lease = Lease(job, uow=counted, reader=memory, clock=ward.clock, site=short)
    with lease:
        assert lease._thread.is_alive()
        while len(renewed) < 3:
            pass
    assert not lease._thread.is_alive()


def test_cancellation_is_seen_at_the_next_look(memory: Memory, ward: Ward, job: Job) -> None:
    """The row is looked at between two steps: no renewal is needed to hear of a cancellation."""
    lease = lease_on(memory, ward, job, timer=ticking())
    assert not lease.should_stop()
    drafting.cancel_job(*ward.trio, RADIOLOGIST, job.id)
    assert lease.should_stop()
    assert (lease.stop_reason, lease.lost) == ("cancelled", False)


def test_looks_are_rationed(memory: Memory, ward: Ward, job: Job) -> None:
    """Steps that follow each other within milliseconds do not each ask the database."""
    looks: list[int] = []

    def counted() -> Any:
        looks.append(1)
        return memory()

    lease = lease_on(memory, ward, job, reader=counted, timer=lambda: 7.0)
    for _ in range(100):
        assert not lease.should_stop()
    assert len(looks) == 1


def test_ending_process_stops_the_job(memory: Memory, ward: Ward, job: Job) -> None:
    """A process that is told to end stops its job, which is not lost."""
    lease = lease_on(memory, ward, job, stopping=lambda: True)
    assert lease.should_stop()
    assert (lease.stop_reason, lease.lost) == ("shutting-down", False)


def test_taken_job_is_lost(memory: Memory, ward: Ward, job: Job) -> None:
    """When another worker has the job, looking and renewing both say that it is lost."""
    ward.clock.advance(61)
    drafting.reclaim_expired(*ward.trio, WORKER, site=SITE)
    looking, renewing = (lease_on(memory, ward, job, timer=ticking()) for _ in range(2))
    assert looking.should_stop()
    assert looking.lost
    renewing.renew()
    assert renewing.lost
    assert renewing.should_stop()


@pytest.mark.parametrize("scope", [Scope(), Scope(site="RIS"), Scope(model="tiny")], ids=lambda scope: scope.name)
def test_a_switch_is_heard_at_the_next_look(memory: Memory, ward: Ward, job: Job, scope: Scope) -> None:
    """Between two steps the switches are looked at: stopping does not wait for the renewal."""
    lease = lease_on(memory, ward, job, timer=ticking(), writer=Writer("tiny", "d1"))
    assert not lease.should_stop()
    switching.stop_generation(*ward.trio, ADMIN, scope)
    assert lease.should_stop()
    assert (lease.stop_reason, lease.lost) == ("generation-off", False)


def test_a_switch_of_a_newer_version_stops_the_job(memory: Memory, ward: Ward, job: Job) -> None:
    """While nobody here knows what a switch stops, a running job stops too, at the next look and at the renewal."""
    lease, renewing = lease_on(memory, ward, job, timer=ticking()), lease_on(memory, ward, job)
    switching.stop_generation(*ward.trio, ADMIN)
    (known,) = memory.world.switches.values()
    memory.world.switches = {"generation?new=x": replace(known, name="generation?new=x")}
    assert lease.should_stop()
    renewing.renew()
    assert (lease.stop_reason, renewing.stop_reason) == ("generation-off", "generation-off")


def test_kill_switch_is_heard_with_the_renewal(memory: Memory, ward: Ward, job: Job) -> None:
    """Stopping all generation stops running jobs."""
    switching.stop_generation(*ward.trio, ADMIN)
    lease = lease_on(memory, ward, job)
    lease.renew()
    assert lease.should_stop()
    assert lease.stop_reason == "generation-off"


def test_database_that_is_away_costs_the_job_only_after_the_lease(memory: Memory, ward: Ward, job: Job) -> None:
    """A renewal that fails is forgiven while the lease lasts; after it another worker may have the job."""
    now = [0.0]
    lease = lease_on(memory, ward, job, uow=away, reader=away, timer=lambda: now[0])
    now[0] = 59.0
    lease.renew()
    assert not lease.should_stop()
    now[0] = 61.0
    lease.renew()
    assert lease.should_stop()
    assert lease.lost


def ticking() -> Callable[[], float]:
    """A timer on which every look is due."""
    now = [0.0]

    def read() -> float:
        now[0] += 1.0
        return now[0]

    return read
