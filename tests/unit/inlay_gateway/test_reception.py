from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.application.ports import NewUnitOfWork, Site, UnitOfWork
from inlay_core.domain.errors import Fault, Unavailable
from inlay_core.domain.order import OrderStatus
from inlay_gateway.reception import Answered, Reception
from inlay_hl7.ack import Acceptance, Outcome, read_acknowledgement
from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.framing import encode
from inlay_hl7.message import read
from inlay_hl7.orders import OrderFields, build_order
from inlay_hl7.senders import Sender, Senders
from inlay_testkit.core import StillClock, counting_ids
from inlay_testkit.memory import Memory

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
PATIENT = PatientFields("4711", "HIS", Person("Doe", "Jane"), "19700102", "F")
ORDER = OrderFields("P1", "A1", reason="cough", study_instance_uid="1.2.3")


def order(control_id: str = "C1", *orders: OrderFields, **changes: str) -> bytes:
    """An ORM^O01 from the RIS."""
    envelope = replace(Envelope(control_id, NOW, "RIS", "HOSP", version="2.3.1"), **changes)  # type: ignore[arg-type]
    return build_order(envelope, PATIENT, orders or (ORDER,))


class Desk:
    """A reception on a database in memory."""

    def __init__(self, senders: Senders | None = None, site: Site | None = None) -> None:
        self.memory = Memory()
        self.reception = Reception(self.memory, StillClock(), counting_ids(), senders or Senders(), site or Site())

    def take(self, payload: bytes) -> Answered:
        """The answer to a message of the RIS."""
        return self.reception.take(payload, "127.0.0.1")


def code(answered: Answered) -> tuple[str, str, int | None]:
    """MSA-1, MSA-2 and the condition of the answer."""
    read_back = read_acknowledgement(answered.payload)
    assert read_back is not None
    return read_back.code, read_back.control_id, read_back.condition


def test_an_order_is_stored_and_acknowledged() -> None:
    """A new order is AA, and then order, report, job, message and wake-up are on disk, with the free text decoded."""
    desk = Desk()
    assert code(desk.take(order())) == ("AA", "C1", None)
    world = desk.memory.world
    (stored,) = world.orders.values()
    assert (stored.placer_number, stored.accession_number, stored.reason) == ("P1", "A1", "cough")
    assert len(world.reports) == len(world.jobs) == len(world.outbox) == 1
    (message,) = world.messages.values()
    assert message.envelope.raw == order()
    assert (message.envelope.sending_application, message.envelope.sending_facility) == ("RIS", "HOSP")
    assert (message.envelope.declared_charset, message.envelope.used_charset) == ("UNICODE UTF-8", "utf-8")
    assert message.envelope.message_time == NOW


def test_the_same_message_gets_the_stored_answer_again() -> None:
    """The same bytes from the same sender are answered with the same bytes, and leave one order."""
    desk = Desk()
    first, again = desk.take(order()), desk.take(order())
    assert first.payload == again.payload
    assert (first.repeated, again.repeated) == (False, True)
    assert len(desk.memory.world.orders) == len(desk.memory.world.messages) == 1


def test_the_same_control_id_with_other_bytes_is_another_message() -> None:
    """MSH-10 is not unique in the field: other bytes are processed, and the reuse is flagged."""
    desk = Desk()
    desk.take(order("C1", ORDER))
    assert code(desk.take(order("C1", replace(ORDER, placer_number="P2", accession_number="A2"))))[0] == "AA"
    assert len(desk.memory.world.orders) == 2
    assert [m.flags for m in desk.memory.world.messages.values()] == [(), ("control-id-reused",)]


def test_a_cancel_cancels() -> None:
    """CA after NW closes the order, and the job is cancelled with it."""
    desk = Desk()
    desk.take(order())
    assert code(desk.take(order("C2", replace(ORDER, control="CA"))))[0] == "AA"
    (stored,) = desk.memory.world.orders.values()
    assert stored.status is OrderStatus.CANCELLED
    assert [str(job.state) for job in desk.memory.world.jobs.values()] == ["cancelled"]


def test_several_orders_in_one_message_are_one_transaction() -> None:
    """Two ORC groups are two orders; if one of them cannot be, there is none."""
    desk = Desk()
    second = replace(ORDER, placer_number="P2", accession_number="A2")
    assert code(desk.take(order("C1", ORDER, second)))[0] == "AA"
    assert len(desk.memory.world.orders) == 2
    third = replace(ORDER, placer_number="P3", accession_number="A3")
    unknown = replace(ORDER, control="CA", placer_number="P9", accession_number="A9")
    assert code(desk.take(order("C2", third, unknown))) == ("AE", "C2", 204)
    assert len(desk.memory.world.orders) == 2


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (order().replace(b"ORM^O01^ORM_O01", b"MDM^T02^MDM_T02"), ("AR", "C1", 200)),
        (order().replace(b"ORM^O01^ORM_O01", b"ORM^O02"), ("AR", "C1", 201)),
        (order(processing_id="T"), ("AR", "C1", 202)),
        (order(version="9.9"), ("AR", "C1", 203)),
        (order(""), ("AE", "", 101)),
        (order().replace(b"4711^^^HIS^MR", b""), ("AE", "C1", 101)),
        (order().replace(b"Doe", b"M\xfcller"), ("AE", "C1", 102)),
        (order().replace(b"|NW|", b"|QQ|"), ("AE", "C1", 103)),
        (order("C1", replace(ORDER, control="CA")), ("AE", "C1", 204)),
        (b"hello", ("AE", "", 100)),
        (b"\x00\xff", ("AE", "", 100)),
    ],
)
def test_what_cannot_be_taken_is_answered_and_kept(payload: bytes, answer: tuple[str, str, int]) -> None:
    """Every refusal has its code and condition, and the raw bytes are kept with it; no order comes of it."""
    desk = Desk()
    assert code(desk.take(payload)) == answer
    assert not desk.memory.world.orders
    (message,) = desk.memory.world.messages.values()
    assert message.envelope.raw == payload
    assert message.outcome == "refused"


def test_names_that_cannot_be_stored_are_stored_without_what_is_unprintable() -> None:
    """A NUL in MSH-3 or MSH-10 reaches no text column, and the message is kept all the same."""
    desk = Desk()
    assert code(desk.take(order().replace(b"|RIS|", b"|R\x00IS|")))[0] == "AE"
    (message,) = desk.memory.world.messages.values()
    assert message.envelope.sending_application == "RIS"


def test_the_rules_of_the_sender_apply() -> None:
    """A named sender may use a processing id and a character set that others may not."""
    rules = Sender(charset="cp1252", acceptance=Acceptance(processing_ids=frozenset({"T"})))
    desk = Desk(Senders(Sender(), {"RIS|HOSP": rules}))
    payload = order(processing_id="T").replace(b"UNICODE UTF-8", b"").replace(b"Doe", b"M\xfcller")
    assert code(desk.take(payload))[0] == "AA"
    (stored,) = desk.memory.world.orders.values()
    assert stored.patient.name is not None
    assert stored.patient.name.family == "Müller"


def test_a_full_queue_is_no_refusal_of_the_order() -> None:
    """When too many drafts wait, the sender is told to send again, nothing is stored, and later it is taken."""
    desk = Desk(site=Site(max_open_jobs=1))
    desk.take(order())
    second = order("C2", replace(ORDER, placer_number="P2", accession_number="A2"))
    assert code(desk.take(second)) == ("AR", "C2", 207)
    assert len(desk.memory.world.messages) == 1
    desk.take(order("C3", replace(ORDER, control="CA")))
    assert code(desk.take(second))[0] == "AA"


def broken(error: Exception) -> NewUnitOfWork:
    """A database that fails at the first touch."""

    def refuse() -> UnitOfWork:
        raise error

    return refuse


@pytest.mark.parametrize("error", [Unavailable("database-unavailable", "x"), Fault("bad", "x"), ValueError("Doe")])
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_failure_of_storage_is_never_positive(error: Exception, enhanced: bool) -> None:
    """Whatever goes wrong with the database, the answer is negative, says 207 and quotes nothing."""
    reception = Reception(broken(error), StillClock(), counting_ids(), Senders())
    payload = order().replace(b"||||UNICODE", b"|AL|NE||UNICODE") if enhanced else order()
    answered = reception.take(payload, "127.0.0.1")
    assert code(answered)[0] == ("CE" if enhanced else "AR")
    assert code(answered)[2] == 207
    assert answered.outcome is Outcome.UNAVAILABLE
    assert b"Doe" not in answered.payload


@given(
    st.lists(
        st.tuples(
            st.integers(0, 400), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from([b"|", b"^", b"\r"])
        ),
        max_size=8,
    )
)
def test_a_mangled_order_is_always_answered(changes: list[tuple[int, int, bytes]]) -> None:
    """An order with arbitrary bytes cut out and put in is taken or refused, never a defect, and always kept."""
    payload = order()
    for place, length, replacement in changes:
        payload = payload[:place] + replacement + payload[place + length :]
    desk = Desk()
    answered = desk.take(payload)
    assert answered.outcome is not Outcome.UNAVAILABLE
    assert len(desk.memory.world.messages) == 1
    assert bool(desk.memory.world.orders) <= (answered.outcome is Outcome.ACCEPTED)
    if answered.payload:
        assert encode(answered.payload)


def test_an_acknowledgement_gets_no_answer_and_is_kept() -> None:
    """An ACK that reaches the listener is stored and answered with nothing."""
    desk = Desk()
    answered = desk.take(b"MSH|^~\\&|RIS|HOSP|INLAY|RAD|2026||ACK^O01^ACK|X|P|2.3.1\rMSA|AA|1\r")
    assert answered.payload == b""
    assert len(desk.memory.world.messages) == 1


def test_no_value_of_a_message_reaches_answers_or_logs() -> None:
    """A refusal names places and conditions; neither the answer nor what is logged of it holds patient data."""
    desk = Desk()
    payload = order("C1", replace(ORDER, reason="SECRETREASON")).replace(b"19700102", b"SECRETDATE")
    answered = desk.take(payload)
    assert code(answered)[0] == "AE"
    told = repr(replace(answered, payload=b"")) + answered.payload.decode()
    assert "SECRET" not in told
    assert "Doe" not in told
    assert "PID-7" in (answered.place or "")


def test_the_answer_says_where() -> None:
    """An error of content names segment and field in ERR, in the form of the message's version."""
    answered = Desk().take(order().replace(b"19700102", b"tomorrow"))
    assert read(answered.payload).require("ERR").text(1) == "PID"
    assert read(answered.payload).require("ERR").text(1, 3) == "7"
