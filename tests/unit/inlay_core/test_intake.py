from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from inlay_core.application import drafting, editing, intake, signing
from inlay_core.application.ports import (
    DELETE,
    NO_DATABASE,
    Action,
    Arrival,
    Command,
    Destination,
    Generated,
    MessageOutcome,
    OrderCommand,
    PatientFields,
    Received,
    Site,
    Verdict,
)
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import DomainError, Fault, Forbidden, Invalid, Unavailable
from inlay_core.domain.identity import Role
from inlay_core.domain.job import JobState
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, OrderStatus, Priority
from inlay_core.domain.patient import PersonName
from inlay_core.domain.report import Report
from inlay_testkit.core import EHR, MONDAY, RADIOLOGIST, RIS, WORKER, Ward, ack, envelope, order_command
from inlay_testkit.memory import Memory, MemoryUnitOfWork

LATER = MONDAY + timedelta(minutes=5)
EARLIER = MONDAY - timedelta(minutes=5)


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward whose drafts are published."""
    return Ward(memory(), site=Site(destinations=(Destination.ORU,)))


def order_of(ward: Ward, number: str = "1") -> Order:
    """The stored order."""
    with ward.uow as uow:
        order = uow.orders.by_placer("RIS", f"P{number}")
    assert order is not None
    return order


def jobs_of(ward: Ward, report: Report) -> list[str]:
    """The states of the report's jobs."""
    with ward.uow as uow:
        return [str(job.state) for job in uow.jobs.of_report(report.id)]


def change(action: Action = Action.CHANGE, **changes: Any) -> OrderCommand:
    """A later message about order 1 that says only what is named."""
    return replace(OrderCommand(action, "RIS", placer_number="P1", message_time=LATER), **changes)


# ---------------------------------------------------------------------------------------------- messages


def test_a_new_order_is_stored_with_everything_that_follows_from_it(ward: Ward, memory: Memory) -> None:
    """One message makes order, patient, report, job, wake-up and audit events in one transaction."""
    received = ward.receive(order_command(), message=envelope("M1"))
    order = order_of(ward)
    assert (received.accepted, received.repeated, received.order_ids) == (True, False, (order.id,))
    assert received.ack == f"AA|{received.message_id}|".encode()
    assert order.patient.name == PersonName("Testperson", "Tina")
    with ward.uow as uow:
        report = uow.reports.by_order(order.id)
        assert report is not None
        (job,) = uow.jobs.of_report(report.id)
        message = uow.messages.get(received.message_id)
    assert (report.status, report.version, job.state, job.base_version) == (Status.REGISTERED, 1, JobState.QUEUED, 1)
    assert message is not None
    assert (message.envelope.raw, message.outcome, message.ack) == (b"MSH|M1", MessageOutcome.ACCEPTED, received.ack)
    (item,) = memory.world.outbox.values()
    assert (item.destination, item.payload) == (Destination.CELERY, {"job_id": job.id})
    assert ward.tags(report.id) == ["intake:order:created", "intake:report:registered", "intake:job:queued"]


def test_the_same_bytes_again_get_the_stored_answer_again(ward: Ward, memory: Memory) -> None:
    """A repeated message changes nothing and gets the very same acknowledgement."""
    first = ward.receive(order_command(), message=envelope("M1"))
    before = memory.world
    again = ward.receive(order_command(), message=envelope("M1"))
    assert (again.ack, again.repeated, again.accepted, again.order_ids) == (first.ack, True, True, first.order_ids)
    assert memory.world is before


@pytest.mark.parametrize("other", [{"raw": b"other bytes"}, {"sending_facility": "B"}, {"sending_application": "B"}])
def test_another_sender_or_other_bytes_are_another_message(ward: Ward, other: dict[str, Any]) -> None:
    """The key is application, facility, control id and bytes; the same id with other bytes is processed and flagged."""
    ward.receive(order_command("1"), message=envelope("M1"))
    second = ward.receive(order_command("2"), message=envelope("M1", **other))
    assert (second.accepted, second.repeated) == (True, False)
    assert second.ack.endswith(b"control-id-reused") is ("raw" in other)


def test_a_malformed_message_is_kept_with_its_refusal(ward: Ward, memory: Memory) -> None:
    """What cannot be parsed is stored with raw bytes, code and place, and refused the same way for ever."""

    def malformed() -> Sequence[OrderCommand]:
        raise Invalid("required-missing", "A required field is missing.", "PID-3")

    answers = [
        intake.receive_message(*ward.trio, envelope("BAD"), malformed, acknowledge=ack, site=ward.site)
        for _ in range(2)
    ]
    assert [(a.accepted, a.repeated) for a in answers] == [(False, False), (False, True)]
    assert answers[0].ack == answers[1].ack == f"AE|{answers[0].message_id}|".encode()
    (message,) = memory.world.messages.values()
    assert (message.outcome, message.error_code, message.error_place) == (
        MessageOutcome.REFUSED,
        "required-missing",
        "PID-3",
    )
    assert not memory.world.orders


def test_the_answer_exists_only_after_the_commit(memory: Memory) -> None:
    """When the commit fails, the caller gets no acknowledgement and nothing is stored."""

    class Failing(MemoryUnitOfWork):
        def commit(self) -> None:
            raise Fault("disk-full", "The disk is full.")

    ward = Ward(Failing(memory))
    with pytest.raises(Fault):
        ward.receive(order_command())
    assert not memory.world.messages
    assert not memory.world.orders


@pytest.mark.parametrize("error", [Unavailable("away", "The database is away."), Fault("bug", "A defect.")])
def test_a_failure_of_ours_is_no_refusal(ward: Ward, memory: Memory, error: DomainError) -> None:
    """When we could not store, nothing is kept that would answer the next attempt."""

    def failing() -> Sequence[OrderCommand]:
        raise error

    with pytest.raises(type(error)):
        intake.receive_message(*ward.trio, envelope("M1"), failing, acknowledge=ack)
    assert not memory.world.messages
    assert ward.receive(order_command(), message=envelope("M1")).accepted


def test_one_bad_order_of_a_message_refuses_all_of_them(ward: Ward, memory: Memory) -> None:
    """A message is one transaction: of two orders neither is kept when the second is refused."""
    received = ward.receive(order_command("1"), change(placer_number="P9", place="ORC[2]"))
    assert not received.accepted
    assert not memory.world.orders
    (message,) = memory.world.messages.values()
    assert (message.error_code, message.error_place) == ("unknown-order", "ORC[2]")


def test_several_orders_of_a_message_are_several_orders(ward: Ward) -> None:
    """Each order group of a message becomes an order with a report of its own."""
    received = ward.receive(order_command("1"), order_command("2"))
    assert len(received.order_ids) == 2
    assert order_of(ward, "2").accession_number == "A2"


def test_a_cancel_that_overtakes_its_order_may_be_sent_again(ward: Ward) -> None:
    """A refusal that depends on what was on disk does not stand: the same bytes work once the order is here."""
    early = ward.receive(change(Action.CANCEL), message=envelope("CA"))
    assert not early.accepted
    ward.receive(order_command("1"))
    late = ward.receive(change(Action.CANCEL), message=envelope("CA"))
    assert (late.accepted, late.message_id) == (True, early.message_id)
    assert order_of(ward).status is OrderStatus.CANCELLED


def test_the_sender_is_the_actor_of_the_trail(ward: Ward) -> None:
    """Events of a message name the sending application and facility."""
    report = ward.order()
    with ward.uow as uow:
        event = uow.audit.of_report(report.id)[0]
    assert (event.actor_id, event.roles) == ("hl7:RIS|HOSP", (Role.RIS,))


def test_only_a_ris_places_orders(ward: Ward, memory: Memory) -> None:
    """An identity without the role is refused, and nothing is stored."""
    with pytest.raises(Forbidden):
        intake.place_orders(*ward.trio, EHR, [order_command()])
    assert not memory.world.orders
    assert len(intake.place_orders(*ward.trio, RIS, [order_command()])) == 1


def test_a_full_queue_refuses_orders_of_that_priority(memory: Memory) -> None:
    """Back-pressure is per priority: routine orders are refused while STAT ones still come in."""
    ward = Ward(memory(), site=Site(max_open_jobs=1))
    ward.order("1")
    with pytest.raises(Unavailable):
        ward.receive(order_command("2"))
    assert ward.receive(order_command("3", priority=Priority.STAT)).accepted


# ---------------------------------------------------------------------------------------------- changes


def test_none_leaves_and_delete_deletes(ward: Ward) -> None:
    """On a change an empty field leaves the value, `""` deletes it, anything else replaces it."""
    ward.order(reason="Cough", priority=Priority.STAT)
    patient = PatientFields("HOSP", "MRN1", birth_date=DELETE, sex=None)
    ward.receive(
        change(reason=DELETE, modality=None, procedure_text="Chest, two views", priority=DELETE, patient=patient)
    )
    order = order_of(ward)
    assert (order.reason, order.modality, order.procedure.text) == (None, "DX", "Chest, two views")
    assert (order.priority, order.version, order.message_time) == (Priority.ROUTINE, 2, LATER)
    assert (order.patient.birth_date, order.patient.sex, order.patient.version) == (None, "female", 2)


def test_older_messages_never_overwrite_newer_ones(ward: Ward) -> None:
    """A message from before the newest one changes neither order nor patient; it is accepted and flagged."""
    ward.order()
    before = order_of(ward)
    patient = PatientFields("HOSP", "MRN1", name=PersonName("Oldname"))
    late = ward.receive(change(message_time=EARLIER, modality="CT", patient=patient))
    assert late.accepted
    assert late.ack.endswith(b"outdated")
    assert order_of(ward) == before
    older_cancel = ward.receive(change(Action.CANCEL, message_time=EARLIER))
    assert older_cancel.ack.endswith(b"outdated")
    assert order_of(ward).status is OrderStatus.SCHEDULED


def test_an_older_message_about_another_order_leaves_the_patient(ward: Ward) -> None:
    """The patient's record has a time of its own: an older new order of the same patient does not rename her."""
    ward.order("1")
    ward.order("2", message_time=EARLIER, patient=PatientFields("HOSP", "MRN1", name=PersonName("Oldname")))
    assert order_of(ward, "2").patient.name == PersonName("Testperson", "Tina")


def test_the_same_new_order_in_another_message_is_the_same_order(ward: Ward) -> None:
    """A RIS that sends NW twice with different control ids changes the order, and makes no second draft."""
    report = ward.order()
    again = ward.receive(order_command(modality="CR", message_time=LATER))
    assert again.order_ids == (report.order_id,)
    assert order_of(ward).modality == "CR"
    assert jobs_of(ward, report) == ["queued"]


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (OrderStatus.SCHEDULED, OrderStatus.SCHEDULED),
        (OrderStatus.IN_PROGRESS, OrderStatus.IN_PROGRESS),
        (OrderStatus.COMPLETED, OrderStatus.COMPLETED),
        (None, OrderStatus.SCHEDULED),
    ],
)
@pytest.mark.parametrize("action", [Action.CHANGE, Action.STATUS])
def test_status_changes_of_the_order(ward: Ward, action: Action, told: OrderStatus | None, status: OrderStatus) -> None:
    """XO and SC set the order's status and leave its report alone."""
    report = ward.order()
    ward.receive(change(action, order_status=told))
    assert order_of(ward).status is status
    assert ward.report(report.id) == report


def test_a_new_priority_reaches_the_waiting_job(ward: Ward) -> None:
    """An order that becomes STAT overtakes in the queue."""
    ward.order("1")
    ward.order("2")
    ward.receive(change(placer_number="P2", priority=Priority.STAT))
    claimed = drafting.claim_next(*ward.trio, WORKER)
    assert claimed is not None
    assert claimed.images.accession_number == "A2"


def test_an_order_is_found_by_accession_or_filler_number(ward: Ward) -> None:
    """A message without placer number means the order with that accession, else with that filler number."""
    ward.order(filler_number="F1")
    by_accession = change(placer_number=None, accession_number="A1", accession_assigner="RIS", modality="CR")
    ward.receive(by_accession)
    assert order_of(ward).modality == "CR"
    ward.receive(change(placer_number=None, filler_number="F1", modality="CT", message_time=LATER))
    assert order_of(ward).modality == "CT"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (order_command("2", accession_number="A1"), "accession-taken"),
        (order_command("2", placer_number=None, accession_number=None), "order-number-missing"),
        (order_command("2", patient=None), "patient-missing"),
        (order_command("2", order_status=OrderStatus.CANCELLED), "closed-new-order"),
        (order_command("2", reason="a\x00b"), "nul-character"),
        (change(placer_number="P9"), "unknown-order"),
        (change(Action.STATUS, placer_number="P9"), "unknown-order"),
        (change(Action.CANCEL, placer_number="P9"), "unknown-order"),
    ],
)
def test_orders_that_cannot_be_placed_are_refused(ward: Ward, memory: Memory, command: OrderCommand, code: str) -> None:
    """Missing or foreign numbers, a missing patient and unstorable text are refused with a code."""
    ward.order()
    received = ward.receive(command)
    assert not received.accepted
    assert memory.world.messages[received.message_id].error_code == code
    assert len(memory.world.orders) == 1


# ---------------------------------------------------------------------------------------------- cancels

CLOSING = [
    (change(Action.CANCEL), OrderStatus.CANCELLED, "intake:order:cancelled"),
    (change(Action.DISCONTINUE), OrderStatus.DISCONTINUED, "intake:order:discontinued"),
    (change(Action.STATUS, order_status=OrderStatus.CANCELLED), OrderStatus.CANCELLED, "intake:order:cancelled"),
    (change(Action.CHANGE, order_status=OrderStatus.REPLACED), OrderStatus.REPLACED, "intake:order:replaced"),
    (change(Action.REPLACE), OrderStatus.REPLACED, "intake:order:replaced"),
]


@pytest.mark.parametrize(("command", "status", "tag"), CLOSING)
def test_a_cancel_closes_order_job_and_report(ward: Ward, command: OrderCommand, status: OrderStatus, tag: str) -> None:
    """CA, DC and closing statuses end the order, its waiting job at once and its unsigned report."""
    report = ward.order()
    assert ward.receive(command).accepted
    assert order_of(ward).status is status
    assert jobs_of(ward, report) == ["cancelled"]
    assert ward.report(report.id).status is Status.CANCELLED
    assert ward.tags(report.id)[-3:] == [tag, "intake:job:cancelled", "intake:report:cancelled"]
    assert drafting.claim_next(*ward.trio, WORKER) is None


def test_a_cancel_stops_a_running_job_and_leaves_no_draft(ward: Ward) -> None:
    """A running job hears of the cancel at its heartbeat; even a finished result is not taken in."""
    report = ward.order()
    claimed = drafting.claim_next(*ward.trio, WORKER)
    assert claimed is not None
    job = claimed.job
    drafting.start_generation(*ward.trio, WORKER, job.id, fence=1)
    ward.receive(change(Action.CANCEL))
    assert jobs_of(ward, report) == ["running"]
    assert drafting.heartbeat(ward.uow, ward.clock, job.id, fence=1).reason == "cancelled"
    result = Generated({}, (("findings", "Late."),))
    applied = drafting.apply_result(*ward.trio, WORKER, job.id, fence=1, generated=result)
    assert (applied.job.state, applied.report) == (JobState.CANCELLED, None)
    assert ward.report(report.id).sections == ()


def test_a_cancel_is_published_for_what_others_may_have_seen(ward: Ward, memory: Memory) -> None:
    """A cancelled draft is told to the RIS."""
    ward.drafted()
    ward.receive(change(Action.CANCEL))
    statuses = [i.payload["status"] for i in memory.world.outbox.values() if i.destination == Destination.ORU]
    assert statuses == ["drafted", "cancelled"]


def test_a_cancel_after_the_signature_leaves_the_report(ward: Ward) -> None:
    """What a clinician signed is not cancelled by a message; the order is, and the trail says so."""
    report = ward.drafted()
    signed = signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    ward.receive(change(Action.CANCEL))
    assert ward.report(report.id) == signed
    with ward.uow as uow:
        event = uow.audit.of_report(report.id)[-1]
    assert (event.tag, event.detail["report_signed"]) == ("intake:order:cancelled", True)


def test_a_second_cancel_is_accepted_and_changes_nothing(ward: Ward) -> None:
    """Cancelling what is cancelled is no error."""
    ward.order()
    ward.receive(change(Action.CANCEL))
    before = order_of(ward)
    assert ward.receive(change(Action.CANCEL, message_time=LATER + timedelta(seconds=1))).accepted
    assert order_of(ward) == before


def test_a_closed_order_takes_no_other_message(ward: Ward, memory: Memory) -> None:
    """Nothing revives a cancelled order."""
    ward.order()
    ward.receive(change(Action.CANCEL))
    received = ward.receive(order_command(message_time=LATER))
    assert not received.accepted
    assert memory.world.messages[received.message_id].error_code == "order-closed"


def test_a_cancel_reaches_a_report_in_review(ward: Ward) -> None:
    """Until the signature a cancel wins over a clinician's edits, and they stay readable."""
    report = ward.drafted()
    edits = [SectionEdit("technique", (FragmentEdit(text="PA."),))]
    edited = editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=3, edits=edits)
    ward.receive(change(Action.CANCEL))
    cancelled = ward.report(report.id)
    assert (cancelled.status, cancelled.sections) == (Status.CANCELLED, edited.sections)


def test_the_verdict_reaches_the_builder_of_the_answer(ward: Ward) -> None:
    """The acknowledgement is built from code and place of the error."""
    seen: list[Verdict] = []

    def build(verdict: Verdict) -> bytes:
        seen.append(verdict)
        return b""

    intake.receive_message(*ward.trio, envelope(), lambda: [change()], acknowledge=build)
    assert seen[0].error is not None
    assert (seen[0].error.code, seen[0].error.place, seen[0].accepted) == ("unknown-order", "ORC", False)


# ---------------------------------------------------------------------------------------------- several messages


def arrival(control_id: str, *commands: Command, error: Exception | None = None) -> Arrival:
    """A message with these orders, or one that cannot be read."""

    def interpret() -> Sequence[Command]:
        if error is not None:
            raise error
        return commands

    return Arrival(envelope(control_id), interpret, ack)


def receive_all(ward: Ward, *arrivals: Arrival) -> list[Received | DomainError]:
    """Have several messages come in together."""
    return intake.receive_messages(*ward.trio, arrivals, site=ward.site)


class Counting(MemoryUnitOfWork):
    """Counts its commits."""

    commits = 0

    def commit(self) -> None:
        """One more."""
        self.commits += 1
        super().commit()


def test_messages_that_come_together_are_one_transaction(memory: Memory) -> None:
    """Good ones, one that cannot be read and a repeated one are stored with one commit, each with its own answer."""
    uow = Counting(memory)
    unreadable = arrival("M2", error=Invalid("required-missing", "A required field is missing.", "PID-3"))
    first = arrival("M1", order_command("1"))
    received = receive_all(Ward(uow), first, unreadable, first, arrival("M3", order_command("3")))
    answers = [each for each in received if isinstance(each, Received)]
    assert [(each.accepted, each.repeated) for each in answers] == [
        (True, False),
        (False, False),
        (True, True),
        (True, False),
    ]
    assert answers[2].ack == answers[0].ack
    assert uow.commits == 1
    assert sorted(order.placer_number or "" for order in memory.world.orders.values()) == ["P1", "P3"]
    assert len(memory.world.messages) == 3


@pytest.mark.parametrize(
    ("bad", "outcome"),
    [
        (arrival("BAD", change(placer_number="P9")), "unknown-order"),
        (arrival("BAD", error=Unavailable("queue-full", "Later.")), "queue-full"),
        (arrival("BAD", error=RuntimeError("a defect")), "defect"),
    ],
)
def test_a_bad_message_is_no_trouble_of_those_beside_it(ward: Ward, memory: Memory, bad: Arrival, outcome: str) -> None:
    """Refused, not storable or met by a defect: the messages before and behind it are accepted all the same."""
    before, found, behind = receive_all(ward, arrival("M1", order_command("1")), bad, arrival("M2", order_command("2")))
    for good in (before, behind):
        assert isinstance(good, Received)
        assert good.accepted
    assert len(memory.world.orders) == 2
    kept = [message.error_code for message in memory.world.messages.values() if message.envelope.control_id == "BAD"]
    if isinstance(found, Received):
        assert (found.accepted, kept) == (False, [outcome])
    else:
        assert (found.code, kept) == (outcome, [])


def test_without_a_database_nobody_is_tried_alone(memory: Memory) -> None:
    """A database that does not answer is waited for once per group, not once per message."""

    class Away(Counting):
        def commit(self) -> None:
            super().commit()
            raise Unavailable(NO_DATABASE, "The database does not answer.")

    uow = Away(memory)
    received = receive_all(Ward(uow), arrival("M1", order_command("1")), arrival("M2", order_command("2")))
    assert [isinstance(each, Unavailable) and each.code for each in received] == [NO_DATABASE] * 2
    assert uow.commits == 1


def test_an_order_and_its_change_may_come_together(ward: Ward, memory: Memory) -> None:
    """A later message sees what an earlier one of its group did."""
    receive_all(ward, arrival("M1", order_command("1")), arrival("M2", change(reason="cough")))
    (order,) = memory.world.orders.values()
    assert order.reason == "cough"
