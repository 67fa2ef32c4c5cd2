"""A small reader of HL7 v2 messages over bytes: segments, fields, repetitions, components, escapes, character sets.

It accepts what is only untidy, with a notice, and refuses what cannot be read without a guess. Its errors name the
segment, the field and the offset, and never hold a value: values of a message are about patients.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from inlay_hl7.charsets import Charset, charset_of, decode
from inlay_hl7.escapes import BrokenEscape, Delimiters, unescape

NULL = '""'

_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_LF_BEFORE_SEGMENT = rb"\n(?=[A-Z][A-Z0-9]{2}(?:%s|[\r\n]|\Z))"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Condition(IntEnum):
    """Table 0357, message error condition codes."""

    SEQUENCE = 100
    REQUIRED_MISSING = 101
    DATA_TYPE = 102
    TABLE_VALUE = 103
    MESSAGE_TYPE = 200
    EVENT = 201
    PROCESSING_ID = 202
    VERSION = 203
    UNKNOWN_KEY = 204
    DUPLICATE_KEY = 205
    LOCKED = 206
    APPLICATION = 207


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a message: written `PID-5.1`, `ORC[2]-1`. The offset counts bytes of the payload."""

    segment: str
    occurrence: int = 1
    field: int | None = None
    component: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        nth = f"[{self.occurrence}]" if self.occurrence > 1 else ""
        field = f"-{self.field}" if self.field is not None else ""
        component = f".{self.component}" if self.component is not None else ""
        offset = f" (offset {self.offset})" if self.offset is not None else ""
        return f"{self.segment}{nth}{field}{component}{offset}"


class MessageError(Exception):
    """The message cannot be taken as it stands. `text` says why in words that hold no value of the message."""

    def __init__(self, condition: Condition, place: Place, text: str) -> None:
        super().__init__(f"{place}: {text}")
        self.condition = condition
        self.place = place
        self.text = text


class Notice(StrEnum):
    """A deviation from the standard that was tolerated."""

    LF_SEGMENT_END = "lf-segment-end"
    LF_IN_FIELD = "lf-in-field"
    BYTE_ORDER_MARK = "byte-order-mark"
    BLANKS_BEFORE_MSH = "blanks-before-msh"
    CHARSET_NOT_IN_TABLE = "charset-not-in-table"
    CHARSET_FALLBACK = "charset-fallback"


class Segment:
    """One segment. Fields, repetitions and components count from 1, as in the standard; MSH-1 is the separator."""

    __slots__ = ("_codec", "_delimiters", "_fields", "_text", "name", "occurrence", "offset")

    def __init__(self, text: str, occurrence: int, offset: int, delimiters: Delimiters, codec: str) -> None:
        self.name = text[:3]
        self.occurrence = occurrence
        self.offset = offset
        self._text = text
        self._delimiters = delimiters
        self._codec = codec
        self._fields: list[str] | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.name}[{self.occurrence}] at {self.offset}>"

    def raw(self, field: int) -> str:
        """The field as it stands, still escaped; empty when absent."""
        fields = self._split_fields()
        return fields[field] if 0 < field < len(fields) else ""

    @property
    def last(self) -> int:
        """The number of the last field."""
        return len(self._split_fields()) - 1

    def _split_fields(self) -> list[str]:
        if self._fields is None:
            self._fields = self._text.split(self._delimiters.field)
            if self.name == "MSH":
                self._fields.insert(1, self._delimiters.field)
        return self._fields

    def repetitions(self, field: int) -> list[str]:
        """The repetitions of a field, still escaped; an absent field has none."""
        raw = self.raw(field)
        return _split(raw, self._delimiters.repetition) if raw else []

    def text(self, field: int, component: int = 1, subcomponent: int | None = 1, repetition: int = 1) -> str:
        """A value without its escapes; empty when it is absent or deleted (`""`).

        `subcomponent` None is the whole component, for texts in which a person may have typed an `&`.
        """
        part = self._part(field, component, subcomponent, repetition)
        return "" if part == NULL else self._unescaped(part, field, component)

    def free_text(self, field: int) -> str:
        """The whole field as the text somebody typed: an `&` or `^` that was not escaped is not a delimiter here."""
        raw = self.raw(field)
        return "" if raw == NULL else self._unescaped(raw, field, None)

    def free_repetition(self, field: int, repetition: int) -> str:
        """One repetition of a field as the text somebody typed; empty when absent."""
        repetitions = self.repetitions(field)
        raw = repetitions[repetition - 1] if repetition <= len(repetitions) else ""
        return "" if raw == NULL else self._unescaped(raw, field, None)

    def deletes(self, field: int, component: int = 1) -> bool:
        """Whether the value is `""`, which deletes what is known; an empty value leaves it unchanged."""
        return self.raw(field) == NULL or self._part(field, component, 1, 1) == NULL

    def place(self, field: int | None = None, component: int | None = None) -> Place:
        """The place of a field of this segment, for an error about it."""
        return Place(self.name, self.occurrence, field, component, self._offset_of(field))

    def require(self, field: int, component: int = 1) -> str:
        """Like `text`; raises MessageError 101 where the value is absent or deleted."""
        if value := self.text(field, component):
            return value
        raise MessageError(Condition.REQUIRED_MISSING, self.place(field, component), "required value missing")

    def check_escapes(self) -> None:
        """Raise MessageError where hexadecimal data is broken, also in fields that nobody reads."""
        mark = self._delimiters.escape + "X"
        if mark not in self._text:
            return
        for number, field in enumerate(self._split_fields()[1:], start=1):
            if mark in field and not (self.name == "MSH" and number <= 2):
                try:
                    unescape(field, self._delimiters, "latin-1")
                except BrokenEscape:
                    self._unescaped(field, number, None)

    def _part(self, field: int, component: int, subcomponent: int | None, repetition: int) -> str:
        raw = self.raw(field)
        if self.name == "MSH" and field <= 2:
            return raw
        for separator, number in (
            (self._delimiters.repetition, repetition),
            (self._delimiters.component, component),
            (self._delimiters.subcomponent, subcomponent),
        ):
            raw = raw if number is None else _nth(raw, separator, number)
        return raw

    def _unescaped(self, part: str, field: int, component: int | None) -> str:
        if self.name == "MSH" and field <= 2:
            return part
        try:
            value = unescape(part, self._delimiters, self._codec)
        except UnicodeDecodeError:
            raise MessageError(
                Condition.DATA_TYPE, self.place(field, component), "hexadecimal data is no text in the character set"
            ) from None
        except BrokenEscape:
            raise MessageError(
                Condition.DATA_TYPE, self.place(field, component), "hexadecimal escape that is not whole"
            ) from None
        if "\x00" in value or _SURROGATE.search(value):
            raise MessageError(Condition.DATA_TYPE, self.place(field, component), "NUL or lone surrogate in the text")
        return value

    def _offset_of(self, field: int | None) -> int:
        if field is None:
            return self.offset
        before = self._text.split(self._delimiters.field)[: max(field - (self.name == "MSH"), 0)]
        return self.offset + sum(len(part.encode(self._codec, "replace")) + 1 for part in before)


@dataclass(frozen=True, slots=True)
class Message:
    """A message that could be read: at least an MSH with its delimiters, and every byte decoded."""

    segments: tuple[Segment, ...]
    delimiters: Delimiters
    charset: Charset
    notices: tuple[Notice, ...]

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    @property
    def type(self) -> str:
        """MSH-9.1, for example `ORM`."""
        return self.header.text(9, 1)

    @property
    def event(self) -> str:
        """MSH-9.2, for example `O01`."""
        return self.header.text(9, 2)

    def all(self, name: str) -> Iterator[Segment]:
        """The segments of this name, in order."""
        return (segment for segment in self.segments if segment.name == name)

    def first(self, name: str) -> Segment | None:
        """The first segment of this name."""
        return next(self.all(name), None)

    def require(self, name: str) -> Segment:
        """The first segment of this name; raises MessageError 100 where there is none."""
        if segment := self.first(name):
            return segment
        raise MessageError(Condition.SEQUENCE, Place(name), "required segment missing")

    def groups(self, start: str) -> list[tuple[Segment, ...]]:
        """Segments cut into groups that each begin with a segment of this name; what precedes the first is left out."""
        groups: list[list[Segment]] = []
        for segment in self.segments:
            if segment.name == start:
                groups.append([])
            if groups:
                groups[-1].append(segment)
        return [tuple(group) for group in groups]


def read(raw: bytes, fallback: str | None = None) -> Message:
    """Read the payload of a frame.

    `fallback` is the codec for a message with an empty MSH-18 (default: ASCII, by the standard). Raises MessageError.
    """
    notices: list[Notice] = []
    start = _start(raw, notices)
    for byte, name in ((b"\x00", "NUL"), (b"\x1c", "FS")):
        if (found := raw.find(byte)) >= 0:
            raise MessageError(Condition.DATA_TYPE, _place_of(raw, found), f"{name} in the message")
    delimiters = _delimiters(raw, start)
    pieces = _cut(raw, start, delimiters, notices)
    charset = _charset(pieces[0][1], delimiters, fallback, notices)
    if not charset.declared and not raw.isascii():
        _check_fallback(raw, charset.codec)
        notices.append(Notice.CHARSET_FALLBACK)
    segments = tuple(_segments(pieces, delimiters, charset.codec))
    if delimiters.escape and (delimiters.escape + "X").encode("ascii") in raw:
        for segment in segments:
            segment.check_escapes()
    return Message(segments, delimiters, charset, tuple(notices))


def _start(raw: bytes, notices: list[Notice]) -> int:
    """The offset of MSH."""
    start = 0
    if raw.startswith(b"\xef\xbb\xbf"):
        notices.append(Notice.BYTE_ORDER_MARK)
        start = 3
    stripped = raw[start:].lstrip(b"\r\n\t ")
    if len(stripped) < len(raw) - start:
        notices.append(Notice.BLANKS_BEFORE_MSH)
    start = len(raw) - len(stripped)
    if raw[start : start + 3] != b"MSH":
        raise MessageError(Condition.SEQUENCE, Place("MSH", offset=start), "the message does not begin with MSH")
    return start


def _delimiters(raw: bytes, start: int) -> Delimiters:
    # Latin-1 keeps each byte one character, so that a delimiter outside of ASCII is seen and refused.
    line = re.split(r"[\r\n]", raw[start + 3 : start + 10].decode("latin-1"), maxsplit=1)[0]
    given = line[:1] + line[1:].partition(line[:1] or " ")[0]
    if not 2 <= len(given) <= 6 or len(set(given)) < len(given) or not _usable(given):
        raise MessageError(Condition.DATA_TYPE, Place("MSH", field=2, offset=start + 4), "unusable delimiters")
    return Delimiters(given[0], *(given[n : n + 1] for n in range(1, 6)))


def _usable(delimiters: str) -> bool:
    return all("!" <= character <= "~" and not character.isalnum() for character in delimiters)


def _cut(raw: bytes, start: int, delimiters: Delimiters, notices: list[Notice]) -> list[tuple[int, bytes]]:
    """The segments with their offsets: CR ends one; LF does where a segment follows or nothing; else it is text."""
    separator = re.escape(delimiters.field.encode("ascii"))
    ends = re.compile(rb"\r\n?|" + _LF_BEFORE_SEGMENT % separator + rb"|\n+\Z")
    pieces: list[tuple[int, bytes]] = []
    at = start
    for found in ends.finditer(raw, start):
        if found.group() != b"\r" and Notice.LF_SEGMENT_END not in notices:
            notices.append(Notice.LF_SEGMENT_END)
        pieces.append((at, raw[at : found.start()]))
        at = found.end()
    pieces.append((at, raw[at:]))
    filled = [(offset, piece) for offset, piece in pieces if piece.strip(b" \t\n")]
    if any(b"\n" in piece for _, piece in filled):
        notices.append(Notice.LF_IN_FIELD)
    return filled


def _charset(msh: bytes, delimiters: Delimiters, fallback: str | None, notices: list[Notice]) -> Charset:
    fields = msh.decode("latin-1").split(delimiters.field)
    declared = fields[17] if len(fields) > 17 else ""
    charset = charset_of(_split(declared, delimiters.repetition) if declared else (), fallback)
    if charset is None:
        raise MessageError(Condition.TABLE_VALUE, Place("MSH", field=18), "character set not supported")
    if not charset.in_table:
        notices.append(Notice.CHARSET_NOT_IN_TABLE)
    return charset


def _check_fallback(raw: bytes, codec: str) -> None:
    """Refuse UTF-8 that nobody declared: a fallback of one byte per letter would read it, and get every name wrong."""
    if codecs.lookup(codec).name in ("utf-8", "ascii"):
        return
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return
    raise MessageError(
        Condition.DATA_TYPE, Place("MSH", field=18), "UTF-8, but neither MSH-18 nor the setting for this sender says so"
    )


def _segments(pieces: Sequence[tuple[int, bytes]], delimiters: Delimiters, codec: str) -> Iterator[Segment]:
    seen: dict[str, int] = {}
    for offset, piece in pieces:
        name = piece[:3].decode("latin-1")
        if not _NAME.fullmatch(name) or piece[3:4] not in (b"", delimiters.field.encode("ascii")):
            raise MessageError(
                Condition.SEQUENCE, Place("segment", sum(seen.values()) + 1, offset=offset), "not a segment"
            )
        seen[name] = seen.get(name, 0) + 1
        try:
            text = decode(piece, codec)
        except UnicodeDecodeError as error:
            field = piece[: error.start].count(delimiters.field.encode("ascii")) + (name == "MSH")
            place = Place(name, seen[name], field, offset=offset + error.start)
            raise MessageError(Condition.DATA_TYPE, place, "bytes that are not in the character set") from None
        yield Segment(text, seen[name], offset, delimiters, codec)


def _place_of(raw: bytes, offset: int) -> Place:
    """The place of a byte, told without decoding: the name is that of the line which holds it, if it has one."""
    line = max(raw.rfind(b"\r", 0, offset), raw.rfind(b"\n", 0, offset)) + 1
    name = raw[line : line + 3].decode("latin-1")
    return Place(name if _NAME.fullmatch(name) else "segment", offset=offset)


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else [text]


def _nth(text: str, separator: str, number: int) -> str:
    if not separator or separator not in text:
        return text if number == 1 else ""
    parts = text.split(separator, number)
    return parts[number - 1] if number <= len(parts) else ""
