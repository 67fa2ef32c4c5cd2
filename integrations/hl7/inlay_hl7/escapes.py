"""Escape sequences of HL7 v2 (chapter 2, "Use of escape sequences in text fields"): to text, and from text.

Reading keeps what it does not know as it stands, so that no character of a name or a reason is lost. Hexadecimal data
that is broken is refused: it stood for characters that nobody can tell any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inlay_hl7.charsets import decode

_HEX = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")
# Begins like hexadecimal data, and has no whole bytes or no end.
_UNENDED_HEX = re.compile(r"X[0-9A-Fa-f]+")
_LINES = re.compile(r"\.(?:sp\s*\+?(\d{0,2})|br)", re.IGNORECASE)
# Highlighting, and the formatting commands that move or indent lines: they carry no text.
_WITHOUT_TEXT = re.compile(r"[HN]|\.(?:in|ti|sk|fi|nf|ce)\s*[+-]?\d*", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BrokenEscape(ValueError):
    """Hexadecimal data that is not whole."""


@dataclass(frozen=True, slots=True)
class Delimiters:
    """MSH-1 and MSH-2. A character that the sender did not declare is the empty string and separates nothing."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""  # the fifth encoding character, `#`, from version 2.7 on

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


STANDARD = Delimiters()


def unescape(text: str, delimiters: Delimiters, codec: str = "ascii") -> str:
    r"""The text that an escaped value stands for; hexadecimal data `\X..\` is read in the message's codec.

    >>> unescape(r"Smith \T\ Sons\.br\2 \S\ 3", STANDARD)
    'Smith & Sons\n2 ^ 3'

    Raises BrokenEscape for hexadecimal data that is not whole, UnicodeDecodeError where it is no text in that codec.
    """
    mark = delimiters.escape
    if not mark or mark not in text:
        return text
    parts = text.split(mark)
    out = [parts[0]]
    inside = True  # parts alternate between sequence and plain text
    for number, part in enumerate(parts[1:], start=1):
        closed = number < len(parts) - 1
        if inside and is_broken(part, closed=closed):
            raise BrokenEscape
        replaced = _replacement(part, delimiters, codec) if inside and closed else None
        if replaced is not None:
            out.append(replaced)
            inside = False
        elif inside:
            # An escape character that opens nothing known is text, and the next one may open a sequence.
            out.append(mark + part)
        else:
            out.append(part)
            inside = True
    return "".join(out)


def is_broken(sequence: str, *, closed: bool) -> bool:
    """Whether what follows an escape character is hexadecimal data that is not whole."""
    if closed:
        return sequence.startswith("X") and not _HEX.fullmatch(sequence)
    return _UNENDED_HEX.fullmatch(sequence) is not None


def _replacement(sequence: str, delimiters: Delimiters, codec: str) -> str | None:
    simple = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "P": delimiters.truncation,
    }
    if simple.get(sequence):
        return simple[sequence]
    if lines := _LINES.fullmatch(sequence):
        return "\n" * max(1, int(lines.group(1) or 1))
    if _WITHOUT_TEXT.fullmatch(sequence):
        return ""
    if data := _HEX.fullmatch(sequence):
        return decode(bytes.fromhex(data.group(1)), codec)
    return None


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    r"""A text as a value of a field: delimiters and control characters escaped, every kind of line end as `\.br\`.

    >>> escape("a|b\r\nc")
    'a\\F\\b\\.br\\c'
    """
    mark = delimiters.escape
    table = {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.subcomponent: "T",
        delimiters.repetition: "R",
        delimiters.escape: "E",
        delimiters.truncation: "P",
    }
    table.pop("", None)
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    characters = (f"{mark}{table[c]}{mark}" if c in table else c for c in unified)
    lines = "".join(characters).replace("\n", f"{mark}.br{mark}")
    return _CONTROL.sub(lambda found: f"{mark}X{ord(found.group()):02X}{mark}", lines)
