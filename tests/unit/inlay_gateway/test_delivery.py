from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from inlay_core.application.ports import Delivery, Destination, OutboxItem, Site
from inlay_core.domain.errors import Unavailable
from inlay_core.domain.labels import AI_DRAFT
from inlay_gateway.delivery import Books, Oru, deliver_result, deliver_wakeups
from inlay_hl7.ack import Issue, acknowledge
from inlay_hl7.client import MllpClient
from inlay_hl7.header import Header, read_header
from inlay_hl7.message import Condition, read
from inlay_hl7.server import MllpServer
from inlay_testkit.core import StillClock, Ward, counting_ids
from inlay_testkit.memory import Memory

SITE = Site(destinations=(Destination.ORU,))
Answer = Callable[[Header], bytes]


def positive(header: Header) -> bytes:
    """AA."""
    return acknowledge(header, "AA", now=datetime.now(UTC), control_id="X")


def negative(code: str, condition: Condition) -> Answer:
    """An answer with that code and condition."""
    return lambda header: acknowledge(header, code, now=datetime.now(UTC), control_id="X", issues=[Issue(condition)])


class Receiver:
    """A RIS that receives results: it keeps every payload and answers as told."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.answer: Answer = positive
        self.port = 0

    async def __call__(self, payload: bytes, _peer: str) -> bytes:
        """Take a payload."""
        self.payloads.append(payload)
        return self.answer(read_header(payload))


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = MllpServer(receiver)
    asyncio.run_coroutine_threadsafe(server.start("127.0.0.1", 0), loop).result(5)
    receiver.port = server.port
    try:
        yield receiver
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(1), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


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

    def send(self, port: int, timeout: float = 2.0) -> list[str]:
        """One round of results; what became of each."""
        with MllpClient("127.0.0.1", port, timeout=timeout) as client:
            return [sent.code for sent in deliver_result(self.books, Oru(client, "INLAY", "RAD", timeout))]


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
