"""The drill's RIS and modality: numbered orders, sent until they are acknowledged, with their images close behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.client import MllpClient, NoAnswer
from inlay_hl7.orders import OrderFields, build_order
from inlay_testkit.dicom import file_bytes, radiograph

PATIENCE_SECONDS = 400.0
# Images of this width are those that the drill's worker chokes on (drills/worker.py).
POISON_WIDTH = 72


def study_of(number: int) -> str:
    """The study of an order."""
    return f"2.25.{1000 + number}"


def order(number: int, priority: str = "") -> bytes:
    """The message of an order; the same bytes every time. `priority` as in HL7 (S, A, R); by turns without one."""
    of_it = priority or "RSA"[number % 3]
    return build_order(
        Envelope(f"CTRL{number}", datetime(2026, 1, 1, 12, tzinfo=UTC), "RIS", "DRILL", "INLAY", "INLAY"),
        PatientFields(f"MRN{number}", "DRILL", Person("Drill", f"Number{number}")),
        (OrderFields(f"P{number}", f"ACC{number}", study_instance_uid=study_of(number), priority=of_it),),
    )


def send_until_acknowledged(
    port: int, number: int, stopped: threading.Event | None = None, host: str = "127.0.0.1"
) -> None:
    """As a RIS does: the same bytes again until there is a positive answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and not (stopped and stopped.is_set()):
        try:
            with MllpClient(host, port, timeout=3.0) as client:
                if client.send(order(number)).positive:
                    return
        except NoAnswer:
            pass
        time.sleep(0.05)
    raise AssertionError(f"order {number} was never acknowledged")


def image_of(number: int, width: int = 64) -> bytes:
    """A small radiograph, as a file."""
    pixels = np.full((64, width), number % 256, dtype=np.uint8)
    # A picture without contrast is refused; no value is its own opposite.
    pixels[32:] = 255 - pixels[32:]
    return file_bytes(radiograph(pixels, StudyInstanceUID=study_of(number), AccessionNumber=f"ACC{number}"))


def place_study(folder: Path, number: int, width: int = 64) -> None:
    """The radiograph of an order, put into the watched folder in one move."""
    partial = folder.parent / f"{number}.part"
    partial.write_bytes(image_of(number, width))
    partial.replace(folder / f"{number}.dcm")


class Ris:
    """Sends orders 0, 1, ... in the background; `acknowledged` are those that got a positive answer.

    Every seventh is sent again although it was acknowledged. `images` says how the image of an order arrives.
    """

    def __init__(self, host: str, port: int, orders: int, images: Callable[[int], None], pause: float) -> None:
        self.acknowledged: list[int] = []
        self.failure: BaseException | None = None
        self._host = host
        self._port = port
        self.orders = orders
        self._images = images
        self._pause = pause
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._send, name="ris")

    @property
    def is_done(self) -> bool:
        """Whether everything is acknowledged; raises what kept it from being so."""
        if self.failure is not None:
            raise self.failure
        return len(self.acknowledged) == self.orders

    def stop(self) -> None:
        """Send no further orders, and wait for the one that is under way."""
        self._stopped.set()
        if self.thread.is_alive():
            self.thread.join()

    def _send(self) -> None:
        try:
            for number in range(self.orders):
                if self._stopped.wait(self._pause):
                    return
                send_until_acknowledged(self._port, number, self._stopped, self._host)
                self.acknowledged.append(number)
                self._images(number)
                if number % 7 == 0:
                    send_until_acknowledged(self._port, number, self._stopped, self._host)
        except BaseException as failure:  # noqa: BLE001 - the main thread raises it
            self.failure = failure
