"""The day's RIS and modality: orders over several MLLP connections when the plan says so, and their images later."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inlay_core.domain.order import Priority
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_testkit.day.plan import PlannedStudy
from inlay_testkit.drills.ris import order, place_study

_LETTERS = {Priority.STAT: "S", Priority.URGENT: "A", Priority.ROUTINE: "R"}
# Of so many orders one is sent again although it was acknowledged, as interface engines do.
_AGAIN = 7
_PAUSE_SECONDS = 0.2
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sent:
    """An acknowledged order: when its frame was begun, seconds to the answer, and how late it was sent."""

    number: int
    began: datetime
    seconds: float
    late: float


class Ris:
    """Keeps to the plan from `start` on. What is under way when `stop` is called is brought to its end."""

    def __init__(self, port: int, images: Path, studies: Sequence[PlannedStudy], connections: int) -> None:
        self.sent: list[Sent] = []
        self.imaged: dict[int, datetime] = {}
        self.unanswered = 0
        self.failure: BaseException | None = None
        self._port = port
        self._images = images
        self._studies = studies
        self._due: queue.SimpleQueue[tuple[PlannedStudy, float] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._acknowledged: dict[int, threading.Event] = {study.number: threading.Event() for study in studies}
        work = [self._release, self._modality, *[self._send] * connections]
        self._threads = [threading.Thread(target=self._kept, args=(each,), name=each.__name__) for each in work]
        self._connections = connections
        self.began = 0.0

    @property
    def acknowledged(self) -> list[int]:
        """Orders with a positive answer."""
        return [each.number for each in self.sent]

    @property
    def is_done(self) -> bool:
        """Whether every order was acknowledged and every image is there; raises what kept them from it."""
        if self.failure is not None:
            raise self.failure
        return len(self.sent) == len(self._studies) == len(self.imaged)

    def start(self) -> None:
        """The day begins."""
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Nothing more is sent."""
        self._stopped.set()
        for _ in range(self._connections):
            self._due.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _kept(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - the main thread raises it
            self.failure = failure

    def _release(self) -> None:
        for study in self._studies:
            due = self.began + study.ordered
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            self._due.put((study, due))

    def _send(self) -> None:
        with MllpClient("127.0.0.1", self._port, timeout=_ANSWER_SECONDS) as client:
            while (taken := self._due.get()) is not None:
                study, due = taken
                payload = order(study.number, _LETTERS[study.priority])
                late = time.monotonic() - due
                self.sent.append(self._until_acknowledged(client, study.number, payload, late))
                self._acknowledged[study.number].set()
                if study.number % _AGAIN == 0:
                    client.send(payload)

    def _until_acknowledged(self, client: MllpClient, number: int, payload: bytes, late: float) -> Sent:
        while True:
            moment, began = datetime.now(UTC), time.perf_counter()
            try:
                if client.send(payload).positive:
                    return Sent(number, moment, time.perf_counter() - began, late)
            except NoAnswer:
                pass
            self.unanswered += 1
            if self._stopped.wait(_PAUSE_SECONDS):
                raise TimeoutError(f"order {number} was not acknowledged")

    def _modality(self) -> None:
        for study in sorted(self._studies, key=lambda each: each.imaged):
            if self._stopped.wait(max(0.0, self.began + study.imaged - time.monotonic())):
                return
            while not self._acknowledged[study.number].wait(_PAUSE_SECONDS):
                if self._stopped.is_set():
                    return
            moment = datetime.now(UTC)
            place_study(self._images, study.number)
            self.imaged[study.number] = moment
