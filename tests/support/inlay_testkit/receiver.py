"""A system that receives HL7 messages from us: it keeps every payload and answers as a test tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from inlay_hl7.ack import Issue, acknowledge
from inlay_hl7.header import Header, read_header
from inlay_hl7.message import Condition
from inlay_hl7.server import MllpServer
from inlay_testkit.mllp import serving

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
    with serving(MllpServer(receiver)) as receiver.port:
        yield receiver
