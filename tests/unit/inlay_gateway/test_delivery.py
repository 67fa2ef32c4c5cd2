from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from inlay_core.application import editing, intake, publishing, signing
from inlay_core.application.ports import (
    Delivery,
    Destination,
    OutboxItem,
    PatientFields,
    PatientUpdate,
    ResultFilter,
    Site,
    Told,
)
from inlay_core.domain.errors import Conflict, Forbidden, Unavailable
from inlay_core.domain.labels import AI_DRAFT
from inlay_core.domain.patient import PersonName
from inlay_core.targets import ResultTarget
from inlay_gateway.delivery import Books, Oru, deliver_result, deliver_wakeups
from inlay_gateway.printing import printed_result
from inlay_hl7.client import MllpClient
from inlay_hl7.header import read_header
from inlay_hl7.message import Condition, read
from inlay_testkit.core import ADMIN, MONDAY, RADIOLOGIST, StillClock, Ward, ack, counting_ids, envelope
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import SECONDS
from inlay_testkit.receiver import negative, positive, receiving

TARGET = ResultTarget(ResultFilter(Destination.ORU), "127.0.0.1", 0, SECONDS)
SITE = Site(destinations=(Destination.ORU,))


class House:
    """A database in memory with one drafted report, and the books of a relay."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.clock = StillClock()
        self.books = Books(self.memory, self.clock, counting_ids("book"), SITE)
        self.ward = Ward(self.memory(), self.clock, SITE)
        self.report = self.ward.drafted()

    def items(self, destination: str) -> list[OutboxItem]:
        """What the outbox holds for a destination."""
        return [item for item in self.memory.world.outbox.values() if item.destination == destination]

    def send(self, port: int, timeout: float = SECONDS, printed: Any = None, **changes: object) -> list[str]:
        """One round of results to a target with these changes; what became of each."""
        with MllpClient("127.0.0.1", port, timeout=timeout) as client:
            target = replace(TARGET, **changes)  # type: ignore[arg-type]
            return [sent.code for sent in deliver_result(self.books, Oru(target, client, "INLAY", "RAD", printed))]


class Broker:
    """A broker that remembers, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.woken: list[str] = []
        self.away = away

    def wake(self, job_ids: Sequence[str]) -> None:
        """Take a wake-up."""
        if self.away:
            raise Unavailable("broker-away", "The broker does not answer.")
        self.woken += job_ids

    def waiting(self) -> int:
        """What was taken is still there."""
        return len(self.woken)


def test_a_draft_is_sent_with_its_banner_and_recorded() -> None:
    """A drafted report goes out once as ORU^R01 with status R and the banner, and the trail says so."""
    house = House()
    with receiving() as receiver:
        assert house.send(receiver.port) == ["delivered"]
        assert house.send(receiver.port) == []
    (payload,) = receiver.payloads
    message = read(payload)
    assert (message.type, message.event) == ("ORU", "R01")
    assert message.require("OBR").text(25) == "R"
    assert message.require("OBX").text(5) == AI_DRAFT
    assert message.header.text(10) == house.items("oru")[0].control_id
    assert "relay:report:sent" in house.ward.tags(house.report.id)


def test_a_target_that_is_away_is_tried_again_with_the_same_bytes() -> None:
    """No answer delivers nothing: the item waits for its pause, and the next attempt sends the same message."""
    house = House()
    with receiving() as receiver:
        receiver.answer = lambda header: b""
        assert house.send(receiver.port, timeout=0.3) == ["timeout"]
        assert house.send(receiver.port) == []
        house.clock.advance(60)
        receiver.answer = positive
        assert house.send(receiver.port) == ["delivered"]
    first, second = receiver.payloads
    assert first == second


@pytest.mark.parametrize(
    ("code", "condition", "state"),
    [
        ("AE", Condition.DATA_TYPE, Delivery.DEAD),
        ("AR", Condition.VERSION, Delivery.DEAD),
        ("AE", Condition.APPLICATION, Delivery.PENDING),
        ("AR", Condition.UNKNOWN_KEY, Delivery.PENDING),
    ],
)
def test_only_a_refusal_of_the_message_itself_is_final(code: str, condition: Condition, state: Delivery) -> None:
    """A condition about the message parks the item, any other refusal is tried again."""
    house = House()
    with receiving() as receiver:
        receiver.answer = negative(code, condition)
        assert house.send(receiver.port) == [f"{code.lower()}-{int(condition)}"]
    assert house.items("oru")[0].state is state


@pytest.mark.parametrize("number", [b"20714", b"9" * 5_000])
def test_a_number_of_the_receivers_own_is_no_condition(number: bytes) -> None:
    """What is longer than a code of table 0357 is not repeated: codes are few, in the outbox as in the metrics."""
    house = House()
    refuse = negative("AE", Condition.APPLICATION)
    with receiving() as receiver:
        receiver.answer = lambda header: refuse(header).replace(b"207^", number + b"^")
        assert house.send(receiver.port) == ["ae"]
    assert house.items("oru")[0].state is Delivery.PENDING


def test_an_answer_to_something_else_delivers_nothing() -> None:
    """An acknowledgement whose MSA-2 is not our MSH-10 does not count, however positive it is."""
    house = House()
    with receiving() as receiver:
        receiver.answer = lambda header: positive(header).replace(header.control_id.encode(), b"OTHER")
        assert house.send(receiver.port, timeout=0.3) == ["timeout"]
    assert house.items("oru")[0].state is Delivery.PENDING


def test_versions_of_one_report_are_sent_in_order() -> None:
    """While an earlier version waits for its repetition, the later one is not sent; other reports go on."""
    house = House()
    with receiving() as receiver:
        receiver.answer = lambda header: b""
        house.send(receiver.port, timeout=0.3)
        other = house.ward.drafted("2")
        receiver.answer = positive
        assert house.send(receiver.port) == ["delivered"]
        assert house.send(receiver.port) == []
    assert [item.state for item in house.items("oru") if item.key == other.id] == [Delivery.DELIVERED]
    assert [item.state for item in house.items("oru") if item.key == house.report.id] == [Delivery.PENDING]


def test_jobs_are_announced_to_the_broker() -> None:
    """Every queued job is announced once."""
    house = House()
    broker = Broker()
    assert [sent.code for sent in deliver_wakeups(house.books, broker)] == ["delivered"]
    assert broker.woken == list(house.memory.world.jobs)
    assert not deliver_wakeups(house.books, broker)


def test_a_broker_that_is_away_loses_nothing() -> None:
    """Wake-ups wait while the broker is away, and are told when it is back, within seconds."""
    house = House()
    assert [sent.code for sent in deliver_wakeups(house.books, Broker(away=True))] == ["broker-away"]
    house.clock.advance(15)
    broker = Broker()
    assert [sent.ok for sent in deliver_wakeups(house.books, broker)] == [True]
    assert broker.woken


def parked(house: House) -> OutboxItem:
    """A delivery that was parked because the receiver refused the message for good."""
    with receiving() as receiver:
        receiver.answer = negative("AE", Condition.DATA_TYPE)
        house.send(receiver.port)
    (item,) = house.items("oru")
    assert item.state is Delivery.DEAD
    return item


def test_a_repetition_is_the_same_bytes_although_the_patient_has_changed() -> None:
    """What the first attempt sent is kept: a new name does not travel under a control id that was used before."""
    house = House()
    with receiving() as receiver:
        receiver.answer = lambda header: b""
        house.send(receiver.port, timeout=0.3)
        update = PatientUpdate(PatientFields("HOSP", "MRN1", PersonName("Newname")), MONDAY + timedelta(hours=1))
        intake.receive_message(*house.ward.trio, envelope("ADT1"), lambda: [update], acknowledge=ack)
        house.clock.advance(60)
        receiver.answer = positive
        assert house.send(receiver.port) == ["delivered"]
    first, second = receiver.payloads
    assert first == second
    assert b"Newname" not in second
    assert house.items("oru")[0].message is None


def test_a_parked_result_is_listed_and_sent_again_under_its_control_id() -> None:
    """An administrator sees what was refused, sends it again when the cause is mended, and the trail says who did."""
    house = House()
    item = parked(house)
    assert [each.id for each in publishing.parked_deliveries(house.memory(), ADMIN)] == [item.id]
    publishing.resend(house.memory(), house.clock, counting_ids("re"), ADMIN, item.id)
    with receiving() as receiver:
        assert house.send(receiver.port, receiving_application="RIS") == ["delivered"]
    header = read_header(receiver.payloads[0])
    assert (header.control_id, header.receiving_application) == (item.control_id, "RIS")
    assert "admin:report:resent" in house.ward.tags(house.report.id)
    assert not publishing.parked_deliveries(house.memory(), ADMIN)


def test_only_administrators_send_again() -> None:
    """Sending reports out is not everybody's decision."""
    house = House()
    item = parked(house)
    with pytest.raises(Forbidden):
        publishing.resend(house.memory(), house.clock, counting_ids("re"), RADIOLOGIST, item.id)


def test_a_parked_version_never_overwrites_a_later_one_at_the_receiver() -> None:
    """Once a later version has been delivered, the older one cannot be sent again."""
    house = House()
    item = parked(house)
    opened = editing.open_report(*house.ward.trio, RADIOLOGIST, house.report.id, expected_version=house.report.version)
    signing.sign(*house.ward.trio, RADIOLOGIST, opened.id, expected_version=opened.version, site=SITE)
    with receiving() as receiver:
        assert house.send(receiver.port) == ["delivered"]
    with pytest.raises(Conflict) as refused:
        publishing.resend(house.memory(), house.clock, counting_ids("re"), ADMIN, item.id)
    assert refused.value.code == "superseded"


def test_what_is_not_parked_is_not_sent_again() -> None:
    """A delivery that still waits keeps its place and its pause."""
    house = House()
    (item,) = house.items("oru")
    with pytest.raises(Conflict) as refused:
        publishing.resend(house.memory(), house.clock, counting_ids("re"), ADMIN, item.id)
    assert refused.value.code == "not-parked"


@pytest.mark.parametrize(
    ("narrow", "sent"),
    [
        ({}, 1),
        ({"statuses": frozenset({Told.DRAFT})}, 1),
        ({"statuses": frozenset({Told.SIGNED, Told.CORRECTED})}, 0),
        ({"sites": frozenset({"RIS"})}, 1),
        ({"sites": frozenset({"ELSEWHERE"})}, 0),
        ({"modalities": frozenset({"DX"})}, 1),
        ({"modalities": frozenset({"CT"}), "sites": frozenset({"RIS"})}, 0),
    ],
)
def test_a_target_gets_what_its_filters_let_through(narrow: dict[str, Any], sent: int) -> None:
    """Status, site and modality decide, when the version is made, whether a target is told of it."""
    memory = Memory()
    ward = Ward(memory(), site=Site(results=(ResultFilter("oru:ehr", **narrow), ResultFilter("oru:other"))))
    ward.drafted()
    destinations = [item.destination for item in memory.world.outbox.values()]
    assert destinations.count("oru:ehr") == sent
    assert destinations.count("oru:other") == 1


def test_the_envelope_is_addressed_to_the_target() -> None:
    """MSH-5, MSH-6, MSH-11 and MSH-12 are those that the target is configured with."""
    house = House()
    changes: dict[str, Any] = {
        "receiving_application": "EHR",
        "receiving_facility": "WEST",
        "processing_id": "T",
        "version": "2.3.1",
    }
    with receiving() as receiver:
        house.send(receiver.port, **changes)
    header = read_header(receiver.payloads[0])
    assert (header.receiving_application, header.receiving_facility) == ("EHR", "WEST")
    assert (header.processing_id, header.version) == ("T", "2.3.1")


def test_a_pdf_travels_as_base64_beside_the_text() -> None:
    """A target that wants it gets the whole report as ED; the bytes come back as they were."""
    house = House()
    with receiving() as receiver:
        house.send(receiver.port, printed=printed_result)
    message = read(receiver.payloads[0])
    last = list(message.all("OBX"))[-1]
    assert [last.text(2), last.text(5, 2), last.text(5, 3), last.text(5, 4)] == ["ED", "application", "pdf", "Base64"]
    page = base64.b64decode(last.text(5, 5))
    assert page.startswith(b"%PDF-")
    assert page.rstrip().endswith(b"%%EOF")
    assert [obx.text(2) for obx in message.all("OBX")][:-1].count("ED") == 0


def test_words_without_a_glyph_go_without_a_pdf() -> None:
    """The text of the message is complete without the page, so a result never waits for a font."""
    house = House()
    with receiving() as receiver:
        assert house.send(receiver.port, printed=lambda *_: None) == ["delivered"]
    assert b"|ED|" not in receiver.payloads[0]
