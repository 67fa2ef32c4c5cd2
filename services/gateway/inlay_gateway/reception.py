"""One HL7 message in, its answer out. The answer is positive only after the commit; everything else is negative.

What cannot be read is kept raw with its refusal. What cannot be stored is answered with "send it again", never with AA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from inlay_core.application.intake import receive_messages
from inlay_core.application.ports import (
    ACK_PREFIX,
    DEFAULT_SITE,
    Arrival,
    Command,
    Envelope,
    Interpret,
    Later,
    NewUnitOfWork,
    Received,
    Site,
    Verdict,
)
from inlay_core.application.tracing import NO_TRACER, Tracer
from inlay_core.domain.errors import DomainError, Fault
from inlay_core.domain.ids import Clock, NewId
from inlay_hl7.ack import Mode, Outcome, acknowledge, answer_codes, later_code
from inlay_hl7.framing import BETWEEN
from inlay_hl7.header import Header, read_header
from inlay_hl7.mapping.opening import interpreted, opened
from inlay_hl7.mapping.reading import message_time
from inlay_hl7.mapping.refusals import answer_of
from inlay_hl7.message import Message, MessageError
from inlay_hl7.senders import Sender, Senders

# MSH-3, MSH-4 and MSH-10 of any length may come in; what is stored of them is a key, and the raw bytes are kept anyway.
# Three of them and a digest fit into one key of PostgreSQL (2,700 bytes), also in four bytes per character.
_LONGEST_NAME = 199


class Taken(NamedTuple):
    """A message that came in, the address of its peer, and the trace that it began."""

    payload: bytes
    peer: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer's payload (empty where nothing may be said), and what to log of it: codes only."""

    payload: bytes
    outcome: Outcome
    code: str
    message_id: str | None = None
    repeated: bool = False
    orders: int = 0
    place: str | None = None
    # What was tolerated in the message: worth a warning, because the sender should mend it.
    notices: tuple[str, ...] = ()


@dataclass(slots=True)
class _Incoming:
    """A message as far as it could be read. `error` is why it was refused, known when its answer is built."""

    arrival: Arrival
    header: Header
    message: Message | None
    error: DomainError | None = None


@dataclass(frozen=True, slots=True)
class Reception:
    """Takes messages, those that came together in one transaction; may be called from several threads."""

    new_uow: NewUnitOfWork
    clock: Clock
    new_id: NewId
    senders: Senders
    site: Site = DEFAULT_SITE
    # Runs between the commit and the answer: the place where a test kills the process.
    committed: Callable[[], None] = lambda: None
    tracer: Tracer = NO_TRACER

    def take(self, payload: bytes, peer: str) -> Answered:
        """The answer to a message. Never raises: what goes wrong here is answered as unavailable."""
        return self.take_all([Taken(payload, peer)])[0]

    def take_all(self, messages: Sequence[Taken]) -> list[Answered]:
        """The answers to messages that are stored together, in their order."""
        incoming = [self._parsed(message) for message in messages]
        arrivals = [each.arrival for each in incoming if isinstance(each, _Incoming)]
        # One transaction for all of them is told in the trace of each.
        stores = [self.tracer.begin("hl7 store", parent=each.traceparent, messages=len(arrivals)) for each in arrivals]
        received = iter(self._received(arrivals))
        for store in stores:
            store.end()
        return [each if isinstance(each, Answered) else self._answered(each, next(received)) for each in incoming]

    def interpret(self, envelope: Envelope) -> Sequence[Command]:
        """What a stored message asks for by the rules of today. Raises Malformed."""
        header = read_header(envelope.raw)
        sender = self.senders.of(header)
        return interpreted(*opened(envelope.raw, header, sender), sender)

    def acknowledgement(self, envelope: Envelope, verdict: Verdict) -> bytes:
        """The answer to a stored message by the rules of today."""
        header = read_header(envelope.raw)
        return self._answer(header, verdict.error, verdict.message_id, self.senders.of(header).mode)

    def _parsed(self, taken: Taken) -> _Incoming | Answered:
        with self.tracer.span("hl7 parse", parent=taken.traceparent, bytes=len(taken.payload)):
            return self._opened(taken)

    def _opened(self, taken: Taken) -> _Incoming | Answered:
        payload = taken.payload
        header = read_header(payload)
        try:
            sender = self.senders.of(header)
            message, refusal = opened(payload, header, sender)
            arrival = Arrival(
                _envelope(payload, header, message, sender, taken.peer),
                partial(self._interpreted, taken.traceparent, partial(interpreted, message, refusal, sender)),
                lambda verdict: self._verdict(incoming, sender, verdict),
                Later(ACK_PREFIX + sender.answer_to, partial(self._later, header)) if sender.answer_to else None,
                taken.traceparent,
            )
            incoming = _Incoming(arrival, header, message)
        except Exception as error:  # noqa: BLE001 (a defect of ours must not look like a fault of the sender)
            return self._unstored(header, Fault("defect", type(error).__name__))
        return incoming

    def _interpreted(self, traceparent: str | None, interpret: Interpret) -> Sequence[Command]:
        with self.tracer.span("hl7 map", parent=traceparent):
            return interpret()

    def _received(self, arrivals: Sequence[Arrival]) -> Sequence[Received | DomainError]:
        try:
            received = receive_messages(self.new_uow(), self.clock, self.new_id, arrivals, site=self.site)
            self.committed()
        except DomainError as error:
            return [error] * len(arrivals)
        except Exception as error:  # noqa: BLE001 (as in `_opened`)
            return [Fault("defect", type(error).__name__)] * len(arrivals)
        return received

    def _verdict(self, incoming: _Incoming, sender: Sender, verdict: Verdict) -> bytes:
        incoming.error = verdict.error
        with self.tracer.span("hl7 acknowledge", parent=incoming.arrival.traceparent):
            return self._answer(incoming.header, verdict.error, verdict.message_id, sender.mode)

    def _answered(self, incoming: _Incoming, received: Received | DomainError) -> Answered:
        if isinstance(received, DomainError):
            return self._unstored(incoming.header, received)
        error = None if received.repeated else incoming.error
        outcome = Outcome.ACCEPTED if received.accepted else answer_of(error)[0] if error else Outcome.CONTENT_ERROR
        return Answered(
            received.ack,
            outcome,
            error.code if error else "accepted" if received.accepted else "refused-before",
            received.message_id,
            received.repeated,
            len(received.order_ids),
            error.place if error else None,
            tuple(map(str, incoming.message.notices)) if incoming.message else (),
        )

    def _answer(self, header: Header, error: DomainError | None, message_id: str, mode: Mode = Mode.HEADER) -> bytes:
        outcome, issues = answer_of(error)
        # MSH-10 has at most 20 characters in 2.3.1; the second of two answers has an id of its own.
        plain = message_id.replace("-", "")
        answers = []
        for number, code in enumerate(answer_codes(header, outcome, mode)):
            told = () if code == "CA" else issues
            control_id = plain[number * 12 : number * 12 + 20]
            answers.append(acknowledge(header, code, now=self.clock(), control_id=control_id, issues=told))
        return BETWEEN.join(answers)

    def _later(self, header: Header, verdict: Verdict, control_id: str) -> bytes | None:
        """The application acknowledgement for a connection of its own, where the message asks for one."""
        outcome, issues = answer_of(verdict.error)
        code = later_code(header, outcome, self.senders.of(header).mode)
        if code is None:
            return None
        return acknowledge(header, code, now=self.clock(), control_id=control_id, issues=issues, committed=True)

    def _unstored(self, header: Header, error: DomainError) -> Answered:
        outcome, _ = answer_of(error)
        if outcome is not Outcome.UNAVAILABLE:
            error = Fault(error.code, "not stored")
        return Answered(self._answer(header, error, self.new_id()), Outcome.UNAVAILABLE, error.code, place=error.place)


def _envelope(payload: bytes, header: Header, message: Message | None, sender: Sender, peer: str) -> Envelope:
    application, facility = header.namespaces
    return Envelope(
        raw=payload,
        sending_application=_key(application, message, 3),
        sending_facility=_key(facility, message, 4),
        control_id=_key(header.control_id, message, 10),
        message_type=_printable("^".join(part for part in (header.message_type, header.event) if part)),
        declared_charset=_printable(header.charset),
        used_charset=message.charset.codec if message else "",
        message_time=_time_of(message, sender),
        peer=peer,
    )


def _key(undecoded: str, message: Message | None, field: int) -> str:
    """A field of MSH as text; where it cannot be decoded, its bytes as Latin-1 keep it distinct."""
    try:
        return _printable(message.header.text(field)) if message else _printable(undecoded)
    except MessageError:
        return _printable(undecoded)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_LONGEST_NAME]


def _time_of(message: Message | None, sender: Sender) -> datetime | None:
    try:
        return message_time(message, sender.mapping().zone) if message else None
    except MessageError:
        return None
