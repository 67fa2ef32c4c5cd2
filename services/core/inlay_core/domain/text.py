"""Text: what can be stored or parsed at all, digests, and the cut into sentences that loses no byte."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from inlay_core.domain.errors import Invalid

# A sentence ends at . ! or ? (with closing quotes or brackets) before a blank, or at a line break; the blanks that
# follow belong to it. "1.5 cm" has no blank after the point and stays whole.
_END: Final = re.compile(r"[.!?]+[\"'\u2019\u201d)\]]*\s+|[^\S\r\n]*[\r\n]\s*")
_CLOSED: Final = re.compile(r"[.!?][\"')\]»”’]*$")
# Points that end no sentence in radiology reports: "approx. 3 cm", "vs. the prior", "Dr. ...", "No. 2", "e.g. ...".
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(\[])(?:approx|vs|dr|prof|mr|mrs|ms|no|fig|e\.g|i\.e|cf|ca|resp|st)\.\s+$", re.IGNORECASE
)


def refuse_unstorable(text: str, place: str) -> str:
    """Return `text`; raise Invalid with its offset where NUL (PostgreSQL) or a lone surrogate (UTF-8) stands."""
    for offset, character in enumerate(text):
        if character == "\x00":
            raise Invalid("nul-character", f"Text must not contain NUL (offset {offset}).", place)
        if "\ud800" <= character <= "\udfff":
            raise Invalid("lone-surrogate", f"Text must not contain a lone surrogate (offset {offset}).", place)
    return text


def is_nested_deeper(text: str, most: int) -> bool:
    """Whether brackets outside of strings nest deeper than `most`, asked before a JSON parser that recurses."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > most:
                return True
        elif character in "]}":
            depth -= 1
    return False


def sha256_of(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of `text`, as the response carries it per locked span."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def ends_sentence(text: str) -> bool:
    """Whether a text without blanks at its end stops with a sentence."""
    return _CLOSED.search(text) is not None


def split_sentences(text: str) -> list[str]:
    """Cut `text` into sentences, each with the blank that follows it; "".join of the result is `text` exactly."""
    pieces: list[str] = []
    start = 0
    for end in _END.finditer(text):
        piece = text[start : end.end()]
        breaks_line = "\n" in end.group() or "\r" in end.group()
        if not piece.strip() or (not breaks_line and _ABBREVIATION.search(piece)):
            continue
        pieces.append(piece)
        start = end.end()
    if start < len(text):
        pieces.append(text[start:])
    return pieces
