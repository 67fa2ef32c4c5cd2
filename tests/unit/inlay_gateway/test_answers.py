"""Application acknowledgements on a connection of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from inlay_core.application import publishing
from inlay_core.application.ports import Delivery, OutboxItem, ResultFilter
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings
from inlay_core.targets import ResultTarget
from inlay_gateway.answers import answer_targets, deliver_answer, senders_of
from inlay_gateway.delivery import Books
from inlay_gateway.reception import Answered, Reception
from inlay_hl7.ack import Mode, acknowledge, read_acknowledgement
from inlay_hl7.client import MllpClient
from inlay_hl7.header import Header, read_header
from inlay_hl7.senders import Sender, Senders
from inlay_testkit.core import ADMIN, StillClock, counting_ids
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import SECONDS, order_message
from inlay_testkit.receiver import receiving

TARGET = ResultTarget(ResultFilter("oru:ris"), "127.0.0.1", 0, SECONDS)


def enhanced(number: str = "1", wanted: str = "AL|AL", **changes: str) -> bytes:
    """An order whose MSH-15 and MSH-16 ask for two answers."""
    plain = order_message(number, **changes)
    return plain.replace(b"|P|2.3.1", f"|P|2.3.1|||{wanted}".encode(), 1)


def committed(header: Header) -> bytes:
    """CA."""
    return acknowledge(header, "CA", now=datetime.now(UTC), control_id="X")


class Desk:
    """A reception whose sender is answered apart, and the relay's books."""

    def __init__(self) -> None:
        self.memory, self.clock = Memory(), StillClock()
        senders = Senders(Sender(mode=Mode.SEPARATE, answer_to="ris"))
        self.reception = Reception(self.memory, self.clock, counting_ids(), senders)
        self.books = Books(self.memory, self.clock, counting_ids("book"))

    def take(self, payload: bytes) -> Answered:
        """The answer on the sender's connection."""
        return self.reception.take(payload, "127.0.0.1")

    def send(self, port: int, timeout: float = SECONDS) -> list[str]:
        """One round of the relay; what became of each acknowledgement."""
        with MllpClient("127.0.0.1", port, timeout=timeout) as client:
            return [sent.code for sent in deliver_answer(self.books, TARGET, client)]

    def items(self) -> list[OutboxItem]:
        """The acknowledgements in the outbox."""
        return [item for item in self.memory.world.outbox.values() if item.destination == "ack:ris"]


def said(payload: bytes) -> tuple[str, str]:
    """MSA-1 and MSA-2."""
    answer = read_acknowledgement(payload)
    assert answer is not None
    return answer.code, answer.control_id


def test_commit_here_and_application_there() -> None:
    """The sender's connection gets CA; AA goes out apart, with MSH-10 of its own and the order's in MSA-2."""
    desk = Desk()
    assert said(desk.take(enhanced()).payload) == ("CA", "C1")
    with receiving() as ris:
        ris.answer = committed
        assert desk.send(ris.port) == ["delivered"]
        assert desk.send(ris.port) == []
    (payload,) = ris.payloads
    assert said(payload) == ("AA", "C1")
    header = read_header(payload)
    assert header.control_id == desk.items()[0].control_id
    assert (header.accept_acknowledgment, header.application_acknowledgment) == ("AL", "NE")
    assert (header.message_type, header.event) == ("ACK", "O01")
    assert desk.items()[0].state is Delivery.DELIVERED


def test_refusal_is_told_apart() -> None:
    """A message that is kept and refused is CA here, and AE with its error there."""
    desk = Desk()
    assert said(desk.take(enhanced().replace(b"19700102", b"tomorrow")).payload) == ("CA", "C1")
    with receiving() as ris:
        ris.answer = committed
        desk.send(ris.port)
    assert said(ris.payloads[0]) == ("AE", "C1")
    assert b"\rERR|" in ris.payloads[0]


def test_lost_answer_is_sent_again_as_it_was() -> None:
    """Without the peer's commit the same bytes go out again; a repeated order causes no second acknowledgement."""
    desk = Desk()
    desk.take(enhanced())
    assert said(desk.take(enhanced()).payload) == ("CA", "C1")
    with receiving() as ris:
        ris.answer = lambda _: b""
        assert desk.send(ris.port, timeout=0.3) == ["timeout"]
        ris.answer = committed
        desk.clock.advance(60)
        assert desk.send(ris.port) == ["delivered"]
    first, second = ris.payloads
    assert first == second


def test_parked_answer_is_sent_again_as_it_was() -> None:
    """What the peer refuses for good is parked; when somebody sends it again it is the same acknowledgement."""
    desk = Desk()
    desk.take(enhanced())
    kept = desk.items()[0].message
    with receiving() as ris:
        ris.answer = lambda header: acknowledge(header, "CR", now=datetime.now(UTC), control_id="X").replace(
            b"\rMSA", b"\rERR|||200\rMSA"
        )
        assert desk.send(ris.port) == ["cr-200"]
        (item,) = desk.items()
        assert item.state is Delivery.DEAD
        publishing.resend(desk.memory(), desk.clock, counting_ids("again"), ADMIN, item.id)
        ris.answer = committed
        assert desk.send(ris.port) == ["delivered"]
    assert ris.payloads == [kept, kept]


@pytest.mark.parametrize(
    ("wanted", "here", "there"),
    [("AL|AL", "CA", 1), ("AL|NE", "CA", 0), ("NE|AL", None, 1), ("AL|ER", "CA", 0), ("|", "AA", 0)],
)
def test_header_says_which_answers_are_wanted(wanted: str, here: str | None, there: int) -> None:
    """MSH-15 and MSH-16 decide on either answer; original mode is answered at once, here."""
    desk = Desk()
    payload = desk.take(enhanced(wanted=wanted)).payload
    assert (said(payload)[0] if payload else None) == here
    assert len(desk.items()) == there


def test_what_is_not_kept_is_not_answered_apart() -> None:
    """A header that is refused is CR here, and nothing there."""
    desk = Desk()
    assert said(desk.take(enhanced().replace(b"ORM^O01", b"ZZZ^Z01")).payload) == ("CR", "C1")
    assert desk.items() == []


def test_configuration_names_a_target(tmp_path: Path) -> None:
    """`answer_to` is needed, and has to be a target of INLAY_HL7_TARGETS."""
    mapping, targets = tmp_path / "hl7.toml", tmp_path / "targets.toml"
    mapping.write_text('[sender.RIS]\nanswer = "separate"\n')
    settings = Settings(hl7_mapping=str(mapping), hl7_targets=str(targets))
    with pytest.raises(Invalid, match="answer_to"):
        senders_of(settings)
    mapping.write_text('[sender.RIS]\nanswer = "separate"\nanswer_to = "ris"\n')
    targets.write_text('[target.other]\naddress = "127.0.0.1:1"\n')
    with pytest.raises(Invalid, match=r"sender\.RIS\.answer_to"):
        answer_targets(settings, senders_of(settings))
    targets.write_text('[target.ris]\naddress = "127.0.0.1:1"\nstatuses = []\n')
    assert [target.port for target in answer_targets(settings, senders_of(settings))] == [1]
