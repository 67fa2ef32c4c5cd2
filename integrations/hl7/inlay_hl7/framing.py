"""MLLP framing: bytes in, frames out, and no I/O. No byte of a payload is changed, guessed or decoded here.

A frame is `<VT 0x0B> payload <FS 0x1C><CR 0x0D>` (HL7 v2 Transport Specification: MLLP, release 1). TCP is a stream,
so one read may hold a part of a frame or several frames; the result never depends on how the bytes were cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

VT = b"\x0b"
FS = b"\x1c"
CR = b"\r"
LF = b"\n"

# A report with an embedded PDF stays below this; an order has a few kilobytes.
MAX_PAYLOAD = 4 * 1024 * 1024
# A peer that sends more than this outside of frames does not speak MLLP (a browser, a port scanner).
MAX_NOISE = 1024

_START_OR_END = re.compile(rb"[\x0b\x1c]")
_NOT_BLANK = re.compile(rb"[^\x00\t\n\r ]")


class Notice(StrEnum):
    """A deviation that was tolerated; it is worth a line in the log, never the loss of the message."""

    BLANKS_BEFORE_START = "blanks-before-start"
    NOISE_BEFORE_START = "noise-before-start"
    LF_FOR_CR = "lf-for-cr"
    MISSING_CR = "missing-cr"
    FS_IN_PAYLOAD = "fs-in-payload"
    EMPTY_PAYLOAD = "empty-payload"


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame. An empty payload is a keep-alive and wants no answer."""

    payload: bytes
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The payload of a frame that was begun and not ended: another VT came, or the connection ended."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The stream cannot be followed any further; the connection is to be closed. Always the last event."""

    reason: str


Event: TypeAlias = Frame | Abandoned | Refused


def encode(payload: bytes) -> bytes:
    """The frame around a payload, to be sent in one write. Raises ValueError for a payload with VT or FS in it."""
    if found := _START_OR_END.search(payload):
        raise ValueError(f"a payload must not contain VT or FS (offset {found.start()})")
    return VT + payload + FS + CR


# Between two payloads that are answers to one message (a commit and an application acknowledgement).
BETWEEN = FS + CR + VT


def encode_all(payloads: bytes) -> bytes:
    """The frames of one payload, or of several with `BETWEEN` between them, for one write. Raises like `encode`."""
    return b"".join(encode(payload) for payload in payloads.split(BETWEEN))


class FrameDecoder:
    r"""Cuts a stream of bytes into frames, with bounded memory.

    >>> FrameDecoder().feed(b"\x0bMSH|one\r\x1c\r\x0bMSH|two\r\x1c\r")
    [Frame(payload=b'MSH|one\r', notices=()), Frame(payload=b'MSH|two\r', notices=())]
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD, max_noise: int = MAX_NOISE) -> None:
        self._max_payload = max_payload
        self._max_noise = max_noise
        self._payload: bytearray | None = None  # None: no frame has begun
        self._after_end = False  # FS was the last byte of the payload so far
        self._noise = 0
        self._notices: list[Notice] = []
        self._refused = False

    @property
    def begun(self) -> bool:
        """Whether a frame has begun and is not complete, so that a stall is to be timed."""
        return self._payload is not None

    @property
    def ended_but_for_cr(self) -> bool:
        """Whether FS has come and the CR after it has not: some clients never send it and wait for the answer."""
        return self._after_end

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order. After `Refused` nothing is read any more."""
        events: list[Event] = []
        at = 0
        while at < len(data) and not self._refused:
            at = self._take_payload(data, at, events) if self.begun else self._take_noise(data, at, events)
        return events

    def end(self) -> list[Event]:
        """The stream has ended or stalls: a frame that lacks only its CR is whole, anything else is abandoned."""
        events: list[Event] = []
        if self._after_end:
            self._finish(events, Notice.MISSING_CR)
        elif self._payload is not None:
            events.append(Abandoned(bytes(self._payload)))
            self._reset()
        return events

    def _take_noise(self, data: bytes, at: int, events: list[Event]) -> int:
        start = data.find(VT, at)
        stop = len(data) if start < 0 else start
        if stop > at:
            self._count_noise(data[at:stop], events)
        if start >= 0 and not self._refused:
            self._payload = bytearray()
        return stop + 1

    def _count_noise(self, noise: bytes, events: list[Event]) -> None:
        if _NOT_BLANK.search(noise) or Notice.NOISE_BEFORE_START in self._notices:
            self._notices = [Notice.NOISE_BEFORE_START]
        else:
            self._notices = [Notice.BLANKS_BEFORE_START]
        self._noise += len(noise)
        if self._noise > self._max_noise:
            self._refuse(f"more than {self._max_noise} bytes outside of a frame", events)

    def _take_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        if self._after_end:
            return self._take_after_end(data, at, events)
        assert self._payload is not None
        found = _START_OR_END.search(data, at)
        stop = len(data) if found is None else found.start()
        if len(self._payload) + stop - at > self._max_payload:
            self._refuse(f"a frame of more than {self._max_payload} bytes", events)
            return len(data)
        self._payload += data[at:stop]
        if found is None:
            return stop
        if found.group() == FS:
            self._after_end = True
        else:
            # The sender has begun anew: what came before is no whole message and must not be taken for one.
            events.append(Abandoned(bytes(self._payload)))
            self._reset()
            self._payload = bytearray()
        return stop + 1

    def _take_after_end(self, data: bytes, at: int, events: list[Event]) -> int:
        following = data[at : at + 1]
        if following == CR:
            self._finish(events)
        elif following == LF:
            self._finish(events, Notice.LF_FOR_CR)
        elif following == VT:
            self._finish(events, Notice.MISSING_CR)
            self._payload = bytearray()
        else:
            # FS belongs to the payload. To end the frame here would make a truncated message look whole.
            assert self._payload is not None
            self._payload += FS
            self._after_end = False
            self._note(Notice.FS_IN_PAYLOAD)
            return at
        return at + 1

    def _finish(self, events: list[Event], notice: Notice | None = None) -> None:
        if notice is not None:
            self._note(notice)
        if not self._payload:
            self._note(Notice.EMPTY_PAYLOAD)
        events.append(Frame(bytes(self._payload or b""), tuple(self._notices)))
        self._reset()

    def _refuse(self, reason: str, events: list[Event]) -> None:
        self._reset()
        self._refused = True
        events.append(Refused(reason))

    def _note(self, notice: Notice) -> None:
        if notice not in self._notices:
            self._notices.append(notice)

    def _reset(self) -> None:
        self._payload = None
        self._after_end = False
        self._noise = 0
        self._notices = []
