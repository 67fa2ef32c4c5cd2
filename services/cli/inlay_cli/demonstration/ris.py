"""The RIS of the demonstration: sends one order over MLLP and receives results on a port of its own."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from inlay_hl7.ack import Acknowledgement, acknowledge
from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.client import MllpClient
from inlay_hl7.header import read_header
from inlay_hl7.message import read
from inlay_hl7.orders import OrderFields, build_order
from inlay_hl7.server import MllpServer

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class ReceivedResult:
    """What the RIS reads of an ORU^R01: OBR-25, the lines of OBX-5, OBR-18, and when it came (seconds since 1970)."""

    status: str
    lines: tuple[str, ...]
    accession_number: str
    arrived: float


class Results(AbstractContextManager["Results"]):
    """Receives results on a port of its own, and keeps them."""

    def __init__(self) -> None:
        self._results: list[ReceivedResult] = []
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ris", daemon=True)
        self._server = MllpServer(self._receive)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start("127.0.0.1", 0), self._loop).result(ANSWER_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(1.0), self._loop).result(ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where results are received."""
        return self._server.port

    def wait(self, status: str, seconds: float, accession_number: str = "") -> ReceivedResult:
        """The first result with that OBR-25 (and of that order, where it is named); raises TimeoutError."""

        def first() -> ReceivedResult | None:
            fitting = (one for one in self._results if accession_number in {"", one.accession_number})
            return next((one for one in fitting if one.status == status), None)

        with self._arrived:
            found = self._arrived.wait_for(first, seconds)
        if found is None:
            raise TimeoutError(f"no result with status {status} within {seconds:g} s")
        return found

    def statuses(self) -> list[str]:
        """OBR-25 of all results so far, in the order of their arrival."""
        with self._arrived:
            return [result.status for result in self._results]

    async def _receive(self, payload: bytes, _peer: str) -> bytes:
        arrived = time.time()
        message = read(payload)
        order, texts = message.first("OBR"), message.all("OBX")
        result = ReceivedResult(
            order.text(25) if order else "",
            tuple(segment.free_text(5) for segment in texts),
            order.text(18) if order else "",
            arrived,
        )
        with self._arrived:
            self._results.append(result)
            self._arrived.notify_all()
        return acknowledge(read_header(payload), "AA", now=datetime.now(UTC), control_id=uuid.uuid4().hex[:20])


class Ris(AbstractContextManager["Ris"]):
    """Plays the RIS. Everyone in its messages is invented."""

    def __init__(self, study_instance_uid: str) -> None:
        # Where orders go; known once Inlay is up, which needs to know our port first.
        self.listener = ("127.0.0.1", 2575)
        self._study_instance_uid = study_instance_uid
        # A new number per run, so that the demonstration can be repeated on the same data.
        self.accession_number = f"DEMO{uuid.uuid4().hex[:8].upper()}"
        self._answer: Future[Acknowledgement] | None = None
        self._sender = ThreadPoolExecutor(1)
        self._results = Results()

    def __enter__(self) -> Self:
        self._results.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sender.shutdown(wait=False, cancel_futures=True)
        self._results.__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """Where results are received."""
        return self._results.port

    def send_order(self) -> str:
        """Send a new order and return its control id; its acknowledgement is awaited separately."""
        control_id = uuid.uuid4().hex[:20]
        payload = order_message(control_id, self.accession_number, self._study_instance_uid)

        def exchange() -> Acknowledgement:
            with MllpClient(*self.listener, timeout=ANSWER_SECONDS) as client:
                return client.send(payload)

        self._answer = self._sender.submit(exchange)
        return control_id

    def await_acknowledgement(self) -> tuple[str, str]:
        """MSA-1 and MSA-2 of the answer; raises inlay_hl7's NoAnswer when there is none."""
        assert self._answer is not None, "no order was sent"
        answer = self._answer.result()
        return answer.code, answer.control_id

    def await_result(self, status: str, seconds: float) -> ReceivedResult:
        """The first result with that OBR-25; raises TimeoutError."""
        return self._results.wait(status, seconds)

    def result_statuses(self) -> list[str]:
        """OBR-25 of all results so far, in the order of their arrival."""
        return self._results.statuses()


def order_message(control_id: str, accession_number: str, study_instance_uid: str) -> bytes:
    """The ORM^O01 of an urgent radiograph of the one patient there is."""
    envelope = Envelope(control_id, datetime.now(UTC), "DEMORIS", "DEMO", "INLAY", "INLAY")
    patient = PatientFields("PHANTOM-1", "DEMO", Person("Phantom", "Petra"), "19700101", "F")
    order = OrderFields(
        placer_number=f"P{accession_number}",
        accession_number=accession_number,
        priority="S",
        reason="Cough for two weeks.",
        ordering_provider=Person("Referrer", "Rita", identifier="1001"),
        study_instance_uid=study_instance_uid,
    )
    return build_order(envelope, patient, (order,))
