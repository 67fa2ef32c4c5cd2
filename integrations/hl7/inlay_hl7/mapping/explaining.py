"""How a message is read, field by field: what stands there, what it is taken for, and what comes of it.

It uses the very functions that take messages in, so it cannot tell a different story. It quotes values: it is for a
person at a terminal, never for a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from enum import Enum

from inlay_core.application.ports import DELETE, Command
from inlay_hl7.ack import answer_codes
from inlay_hl7.header import Header, read_header
from inlay_hl7.mapping.opening import interpreted, opened
from inlay_hl7.mapping.reading import Use
from inlay_hl7.mapping.refusals import Malformed, answer_of
from inlay_hl7.message import Message
from inlay_hl7.senders import Sender, Senders


@dataclass(frozen=True, slots=True)
class Row:
    """One filled field: `uses` is what it is taken for, empty where Inlay does not read it."""

    place: str
    value: str
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Facts about the message as a whole, its fields, what it asks for, and the answer that it would get.

    `asks` has a title and (name, value) pairs per command.
    """

    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    asks: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    answer: tuple[tuple[str, str], ...]
    accepted: bool


def explain(payload: bytes, senders: Senders) -> Explanation:
    """How the message would be read. Whether its orders are known here is not looked up."""
    header = read_header(payload)
    sender = senders.of(header)
    message, refusal = opened(payload, header, sender)
    uses: list[Use] = []
    commands: Sequence[Command] = ()
    try:
        commands = interpreted(message, refusal, sender, uses)
    except Malformed as error:
        refusal = error
    return Explanation(
        facts=tuple(_facts(header, sender, message)),
        rows=tuple(_rows(message, uses)) if message else (),
        asks=tuple((f"{_words(type(command).__name__)} ({command.place})", _pairs(command)) for command in commands),
        answer=tuple(_answer(header, refusal, sender)),
        accepted=refusal is None,
    )


def _facts(header: Header, sender: Sender, message: Message | None) -> list[tuple[str, str]]:
    application, facility = header.namespaces
    facts = [
        ("sender", f"{application}|{facility}"),
        ("read by", f"{sender.name}, mapping of {header.message_type or 'no type'}"),
        ("message", f"{header.message_type}^{header.event}, version {header.version or 'missing'}"),
        ("control id", header.control_id or "missing"),
        ("answered in", "enhanced mode" if header.enhanced else "original mode"),
    ]
    if message is not None:
        declared = message.charset.declared or "none declared"
        facts.append(("character set", f"{declared}, read as {message.charset.codec}"))
        if message.notices:
            facts.append(("tolerated", ", ".join(message.notices)))
    return facts


def _rows(message: Message, uses: Sequence[Use]) -> list[Row]:
    named: dict[tuple[str, int, int], list[str]] = {}
    for use in uses:
        words = named.setdefault((use.segment.name, use.segment.occurrence, use.field), [])
        word = f"{use.name} (component {use.component})" if use.component > 1 else use.name
        if word not in words:
            words.append(word)
    rows = []
    for segment in message.segments:
        for number in range(1, segment.last + 1):
            if value := segment.raw(number):
                found = tuple(named.get((segment.name, segment.occurrence, number), ()))
                if segment.name == "MSH" and number in _HEADER:
                    found = (*found, _HEADER[number])
                place = segment.place(number)
                nth = f"[{place.occurrence}]" if place.occurrence > 1 else ""
                rows.append(Row(f"{segment.name}{nth}-{number}", value, found))
    return rows


_HEADER = {
    1: "field separator",
    2: "encoding characters",
    3: "chooses the mapping",
    4: "chooses the mapping",
    9: "message type",
    10: "control id",
    11: "processing id",
    12: "version",
    15: "accept acknowledgement",
    16: "application acknowledgement",
    18: "character set",
}


def _pairs(part: object, prefix: str = "") -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    if is_dataclass(part) and not isinstance(part, type):
        for each in fields(part):
            value = getattr(part, each.name)
            name = f"{prefix}{_words(each.name)}"
            if is_dataclass(value):
                pairs += _pairs(value, f"{name}: ")
            elif isinstance(value, tuple) and value and is_dataclass(value[0]):
                for number, item in enumerate(value, start=1):
                    pairs += _pairs(item, f"{name} {number}: ")
            elif value not in (None, "", ()) and each.name != "place":
                pairs.append((name, _shown(value)))
    return tuple(pairs)


def _shown(value: object) -> str:
    if value is DELETE:
        return "(deleted)"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (date, Enum)):
        return str(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _words(name: str) -> str:
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name)
    return spaced.strip().replace("_", " ")


def _answer(header: Header, refusal: Malformed | None, sender: Sender) -> list[tuple[str, str]]:
    outcome, issues = answer_of(refusal)
    codes = answer_codes(header, outcome, sender.mode)
    said = [("answer", ", ".join(codes) or "none")]
    said += [("because", f"condition {int(each.condition)} at {each.place or 'MSH'}: {each.text}") for each in issues]
    if refusal is None:
        said.append(("provided", "that orders which it changes are known here"))
    return said
