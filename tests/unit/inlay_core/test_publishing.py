from __future__ import annotations

import pytest

from inlay_core.application import publishing
from inlay_core.application.ports import Delivery, Destination, OutboxItem, Site
from inlay_core.domain.errors import Forbidden, NotFound
from inlay_testkit.core import RADIOLOGIST, RELAY, Ward
from inlay_testkit.memory import Memory


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward that gives up after three deliveries."""
    return Ward(memory(), site=Site(destinations=(Destination.ORU,), max_deliveries=3))


def take(ward: Ward, destination: str = Destination.ORU) -> OutboxItem:
    """The only due item."""
    (item,) = publishing.claim_deliveries(ward.uow, ward.clock, destination)
    return item


def test_a_delivery_is_recorded_in_the_reports_trail(ward: Ward) -> None:
    """Sending a report out of the house is an event with destination, control id and version, once."""
    report = ward.drafted()
    item = take(ward)
    publishing.delivered(*ward.trio, RELAY, item.id)
    publishing.delivered(*ward.trio, RELAY, item.id)
    with ward.uow as uow:
        events = [e for e in uow.audit.of_report(report.id) if e.tag == "relay:report:sent"]
    assert [(e.detail["destination"], e.detail["control_id"], e.detail["version"]) for e in events] == [
        ("oru", item.control_id, 3)
    ]
    assert publishing.claim_deliveries(ward.uow, ward.clock, Destination.ORU) == []


def test_a_failed_delivery_is_repeated_with_the_same_control_id(ward: Ward) -> None:
    """Attempts are counted, pauses grow, the control id stays."""
    ward.drafted()
    first = take(ward)
    after = publishing.undelivered(*ward.trio, RELAY, first.id, code="no-answer", site=ward.site)
    assert (after.state, after.last_error, after.lease_until) == (Delivery.PENDING, "no-answer", None)
    assert publishing.claim_deliveries(ward.uow, ward.clock, Destination.ORU) == []
    ward.clock.advance(2)
    second = take(ward)
    assert (second.id, second.control_id, second.attempts) == (first.id, first.control_id, 2)
    assert len(second.control_id) <= 20


@pytest.mark.parametrize("permanent", [True, False])
def test_what_cannot_be_delivered_is_parked_and_recorded(ward: Ward, *, permanent: bool) -> None:
    """A refusal, or too many attempts, parks the item with its code and leaves an event."""
    report = ward.drafted()
    for attempt in range(1 if permanent else 3):
        ward.clock.advance(3600 * attempt)
        item = take(ward)
        item = publishing.undelivered(*ward.trio, RELAY, item.id, code="rejected", permanent=permanent, site=ward.site)
    assert item.state is Delivery.DEAD
    assert ward.tags(report.id)[-1] == "relay:report:undeliverable"


def test_a_wake_up_marks_its_job_as_announced(ward: Ward, memory: Memory) -> None:
    """The wake-up is what the sweeper of forgotten jobs counts from, before it is told; it is no event."""
    report = ward.order()
    ward.clock.advance(10)
    item = take(ward, Destination.CELERY)
    told_at = ward.clock()
    ward.clock.advance(1)
    publishing.delivered(*ward.trio, RELAY, item.id)
    (job,) = memory.world.jobs.values()
    assert job.woken_at == told_at
    assert "relay:report:sent" not in ward.tags(report.id)


def test_without_a_destination_nothing_is_queued_for_one(memory: Memory) -> None:
    """A site that sends no results keeps no results to send."""
    Ward(memory()).drafted()
    assert {item.destination for item in memory.world.outbox.values()} == {Destination.CELERY}


def test_payloads_are_ids_and_numbers(ward: Ward, memory: Memory) -> None:
    """No text of report, patient or order is ever in an outbox item."""
    ward.drafted(reason="Cough")
    shown = str([item.payload for item in memory.world.outbox.values()])
    for secret in ("Testperson", "MRN1", "A1", "Cough", "heart"):
        assert secret not in shown


def test_only_the_relay_delivers(ward: Ward) -> None:
    """Nobody else can mark items, and unknown ones are not found."""
    ward.drafted()
    item = take(ward)
    with pytest.raises(Forbidden):
        publishing.delivered(*ward.trio, RADIOLOGIST, item.id)
    with pytest.raises(Forbidden):
        publishing.undelivered(*ward.trio, RADIOLOGIST, item.id, code="x")
    with pytest.raises(NotFound):
        publishing.delivered(*ward.trio, RELAY, "nothing")


def test_pauses_double_up_to_an_hour() -> None:
    """A peer that is away for long is tried once per hour."""
    assert [publishing.pause(n).total_seconds() for n in (0, 1, 2, 3, 30)] == [2, 2, 4, 8, 3600]
