"""Spans of what comes in and goes out; the whole way through processes is in tests/integration/test_traces.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from inlay_core.application.ports import Destination, ResultFilter, Site
from inlay_core.application.tracing import Tracer, under
from inlay_core.domain.errors import Unavailable
from inlay_core.targets import ResultTarget
from inlay_gateway.delivery import Books, Oru, deliver_result, deliver_wakeups
from inlay_gateway.listen import Desk, listener
from inlay_gateway.reception import Answered, Reception, Taken
from inlay_hl7.ack import Outcome
from inlay_hl7.client import MllpClient
from inlay_hl7.message import Condition
from inlay_hl7.senders import Senders
from inlay_hl7.server import Limits
from inlay_testkit.core import StillClock, Ward, counting_ids
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import SECONDS, Wire, order_message, serving
from inlay_testkit.receiver import negative, positive, receiving
from inlay_testkit.tracing import Recorded, Recorder

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
PLANTED = ("Testperson", "Patricia", "MRN", "127.0.0.1")


def quotes(spans: Sequence[Recorded]) -> list[str]:
    """What of the planted the spans say."""
    said = " ".join(f"{span.name} {span.failure} {span.attributes}" for span in spans)
    return [each for each in PLANTED if each in said]


def test_a_message_begins_a_trace_that_its_job_keeps() -> None:
    """Parsed, mapped, acknowledged and stored are below its reception, which ends with the code of the answer."""
    recorder, memory = Recorder(), Memory()
    tracer = Tracer(recorder)
    reception = Reception(memory, StillClock(), counting_ids(), Senders(), tracer=tracer)
    with (
        ThreadPoolExecutor(1) as pool,
        serving(listener(reception, pool, Limits(), tracer=tracer)) as port,
        Wire(port) as wire,
    ):
        assert b"MSA|AA|" in wire.ask(order_message("1"))
        assert b"MSA|AR|" in wire.ask(order_message("2").replace(b"ORM^O01", b"ORX^O01"))
    good, bad = recorder.named("hl7 receive")
    below = [span for span in recorder.spans if span.parent == good.traceparent]
    assert [span.name for span in below] == ["hl7 parse", "hl7 map", "hl7 acknowledge", "hl7 store"]
    assert all(good.began <= span.began <= span.ended <= good.ended for span in below)
    assert (good.kind, good.attributes["inlay.ack"], good.failure) == ("server", "AA", None)
    assert (bad.attributes["inlay.ack"], bad.failure) == ("AR", bad.attributes["inlay.code"])
    (job,) = memory.world.jobs.values()
    assert job.traceparent == good.traceparent
    assert quotes(recorder.spans) == []


def test_messages_that_are_stored_together_are_each_in_their_own_trace() -> None:
    """One transaction is told in each trace, with how many messages shared it."""
    recorder, memory = Recorder(), Memory()
    reception = Reception(memory, StillClock(), counting_ids(), Senders(), tracer=Tracer(recorder))
    other = PARENT.replace("a", "c")
    reception.take_all([Taken(order_message("1"), "peer", PARENT), Taken(order_message("2"), "peer", other)])
    stores = recorder.named("hl7 store")
    assert [(span.parent, span.attributes["inlay.messages"]) for span in stores] == [(PARENT, 2), (other, 2)]
    assert sorted(str(job.traceparent) for job in memory.world.jobs.values()) == sorted([PARENT, other])


def test_a_reception_without_a_tracer_is_given_none() -> None:
    """What the desk hands on has no trace, and nothing is kept."""
    seen: list[str | None] = []

    class Heard:
        def take_all(self, messages: Sequence[Taken]) -> list[Answered]:
            seen.extend(message.traceparent for message in messages)
            return [Answered(b"", Outcome.ACCEPTED, "accepted") for _ in messages]

    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            await Desk(Heard(), pool).take(b"MSH", "peer")

    asyncio.run(ask())
    assert seen == [None]


@pytest.fixture
def recorder() -> Recorder:
    """Keeps spans."""
    return Recorder()


class House:
    """A drafted report whose draft belongs to a trace, and a relay."""

    def __init__(self, recorder: Recorder) -> None:
        self.memory, self.clock = Memory(), StillClock()
        self.site = Site(destinations=(Destination.ORU,))
        self.books = Books(self.memory, self.clock, counting_ids("book"), self.site, tracer=Tracer(recorder))
        self.ward = Ward(self.memory(), self.clock, self.site)
        with under(PARENT):
            self.ward.drafted()

    def send(self, port: int) -> list[str]:
        """One round of results."""
        target = ResultTarget(ResultFilter(Destination.ORU), "127.0.0.1", port, SECONDS)
        with MllpClient("127.0.0.1", port, timeout=SECONDS) as client:
            return [sent.code for sent in deliver_result(self.books, Oru(target, client, "INLAY", "RAD"))]


def test_every_attempt_of_a_delivery_is_a_span_of_the_trace(recorder: Recorder) -> None:
    """The wait before the first, each attempt with its number and answer, the message built once, the exchange."""
    house = House(recorder)
    with receiving() as ris:
        ris.answer = negative("AE", Condition.APPLICATION)
        house.clock.advance(3)
        house.send(ris.port)
        ris.answer = positive
        house.clock.advance(3)
        house.send(ris.port)
    (wait,) = recorder.named("outbox wait")
    assert (wait.parent, wait.ended - wait.began) == (PARENT, 3_000_000_000)
    first, second = recorder.named("outbox send")
    assert [(span.parent, span.attributes["inlay.attempts"]) for span in (first, second)] == [(PARENT, 1), (PARENT, 2)]
    assert (first.failure, second.failure) == ("ae-207", None)
    assert first.attributes["inlay.destination"] == "oru"
    (built,) = recorder.named("hl7 build")
    assert built.parent == first.traceparent
    exchanges = recorder.named("hl7 exchange")
    assert [(span.parent, span.attributes["inlay.ack"]) for span in exchanges] == [
        (first.traceparent, "ae-207"),
        (second.traceparent, "AA"),
    ]
    assert quotes(recorder.spans) == []


def test_an_exchange_that_nobody_answers_fails_by_its_code(recorder: Recorder) -> None:
    """A receiver that is away is told as the log tells it."""
    house = House(recorder)
    (code,) = house.send(1)
    (sent,), (exchange,) = recorder.named("outbox send"), recorder.named("hl7 exchange")
    assert (sent.failure, exchange.failure, exchange.kind) == (code, code, "client")


@pytest.mark.parametrize("away", [False, True])
def test_wake_ups_belong_to_their_jobs(recorder: Recorder, *, away: bool) -> None:
    """Each is told in the trace of its job, also where the broker is away."""

    class Broker:
        def wake(self, job_ids: Sequence[str]) -> None:
            if away:
                raise Unavailable("broker-away", f"{len(job_ids)} are not told")

        def waiting(self) -> int:
            return 0

    house = House(recorder)
    house.ward.order("2")
    sent = deliver_wakeups(house.books, Broker())
    assert [(one.ok, one.code) for one in sent] == [(not away, "broker-away" if away else "delivered")] * 2
    spans = recorder.named("outbox send")
    assert [(span.parent, span.failure) for span in spans] == [
        (PARENT, "broker-away" if away else None),
        (None, "broker-away" if away else None),
    ]
