r"""From the names of HL7 table 0211 (MSH-18) to codecs, and strict decoding. Nothing is ever replaced by `\ufffd`.

The names are not IANA names: `8859/1`, `UNICODE UTF-8`, `ISO IR87`. An empty MSH-18 means ASCII by the standard; what
a sender really means by it is a setting per sender (the fallback), never a guess made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Table 0211 (HL7 v2.9, chapter 2C) as far as the codec exists and its bytes below 0x20 are control characters, which
# splitting into segments needs: UTF-16 and UTF-32 are therefore out, and so is CNS 11643, for which there is no codec.
_TABLE_0211 = {
    "ASCII": "ascii",
    "ISO IR6": "ascii",
    "8859/1": "iso8859-1",
    "8859/2": "iso8859-2",
    "8859/3": "iso8859-3",
    "8859/4": "iso8859-4",
    "8859/5": "iso8859-5",
    "8859/6": "iso8859-6",
    "8859/7": "iso8859-7",
    "8859/8": "iso8859-8",
    "8859/9": "iso8859-9",
    "8859/15": "iso8859-15",
    "ISO IR14": "iso2022_jp_3",
    "ISO IR87": "iso2022_jp_3",
    "ISO IR159": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "UNICODE UTF-8": "utf-8",
}

# Names that are no names of the table but come in practice and can mean one thing only.
_SEEN_IN_PRACTICE = {
    "US-ASCII": "ascii",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "UNICODE": "utf-8",  # deprecated in the table; over MLLP it cannot be UTF-16
    "UNICODE UTF8": "utf-8",
    "ISO-8859-1": "iso8859-1",
    "ISO8859-1": "iso8859-1",
    "8859-1": "iso8859-1",
    "LATIN1": "iso8859-1",
    "ISO-8859-15": "iso8859-15",
    "8859-15": "iso8859-15",
    "WINDOWS-1252": "cp1252",
    "CP1252": "cp1252",
    "GB18030": "gb18030",
}


@dataclass(frozen=True, slots=True)
class Charset:
    """What was declared (MSH-18 as it stands, perhaps empty) and the codec that is used for it."""

    declared: str
    codec: str
    in_table: bool = True


def charset_of(declared: Sequence[str], fallback: str | None = None) -> Charset | None:
    """The character set for the repetitions of MSH-18, or None if it is not supported.

    The first repetition is the default set; further ones name sets that the message switches to by ISO 2022 escape
    sequences, which matters for Japanese only (`ASCII~ISO IR87`). `fallback` is a Python codec name and is used only
    when MSH-18 is empty.
    """
    names = [name.strip().upper() for name in declared]
    stated = "~".join(declared)
    filled = [name for name in names if name]
    if not filled:
        return Charset(stated, fallback or "ascii")
    for name in filled[1:] if filled[0] in ("ASCII", "ISO IR6", "ISO IR14") else []:
        if name in ("ISO IR87", "ISO IR159"):
            return Charset(stated, _TABLE_0211[name])
    if filled[0] in _TABLE_0211:
        return Charset(stated, _TABLE_0211[filled[0]])
    if filled[0] in _SEEN_IN_PRACTICE:
        return Charset(stated, _SEEN_IN_PRACTICE[filled[0]], in_table=False)
    return None


def decode(data: bytes, codec: str) -> str:
    """Decode strictly; raises UnicodeDecodeError, whose `start` is the offset in `data`.

    Bytes 0x80 to 0x9F under `8859/1` are invisible controls by the letter; senders that declare 8859/1 mean
    windows-1252 by them, as browsers have read it for decades.
    """
    text = data.decode(codec)
    if codec == "iso8859-1" and any("\x80" <= character <= "\x9f" for character in text):
        return data.decode("cp1252")
    return text
