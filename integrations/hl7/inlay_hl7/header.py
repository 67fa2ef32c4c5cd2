"""What can be told of a message from its first segment alone, without decoding: enough to answer anything.

It never fails. Its strings are the bytes of the message as Latin-1 characters, still escaped, so that writing them
back as Latin-1 gives the sender its own bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inlay_hl7.escapes import STANDARD, Delimiters

_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True, slots=True)
class Header:
    """MSH as it stands. A payload without a readable MSH gives empty strings and `found` is false."""

    found: bool = False
    delimiters: Delimiters = STANDARD
    sending_application: str = ""
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    time: str = ""
    message_type: str = ""
    event: str = ""
    control_id: str = ""
    processing_id: str = ""
    version: str = ""
    accept_acknowledgment: str = ""
    application_acknowledgment: str = ""
    charset: str = ""
    is_reply: bool = False

    @property
    def enhanced(self) -> bool:
        """Original mode holds only if MSH-15 and MSH-16 are both empty (HL7 v2, chapter 2, "Message processing")."""
        return bool(self.accept_acknowledgment or self.application_acknowledgment)

    @property
    def namespaces(self) -> tuple[str, str]:
        """The names in MSH-3 and MSH-4, without the universal ids that may stand behind them."""
        fields = (self.sending_application, self.sending_facility)
        application, facility = (_components(field, self.delimiters)[0] for field in fields)
        return application, facility


def read_header(raw: bytes) -> Header:
    """The header of a payload; whatever is not there is empty."""
    start = raw.find(b"MSH")
    if start < 0 or raw[:start].strip(b"\xef\xbb\xbf\r\n\t \x00"):
        return Header()
    # VT and FS could not be framed in an answer; a message that holds them is refused anyway.
    line = _LINE_END.split(raw[start:], maxsplit=1)[0].translate(None, b"\x0b\x1c").decode("latin-1")
    separator = line[3:4]
    if not separator or separator.isalnum():
        return Header()
    fields = ["MSH", separator, *line[4:].split(separator), *[""] * 20]
    encoding = fields[2]
    delimiters = Delimiters(separator, *(encoding[n : n + 1] for n in range(5)))
    code, event = (*_components(fields[9], delimiters), "")[:2]
    return Header(
        found=True,
        delimiters=delimiters,
        sending_application=fields[3],
        sending_facility=fields[4],
        receiving_application=fields[5],
        receiving_facility=fields[6],
        time=fields[7],
        message_type=code,
        event=event,
        control_id=fields[10],
        processing_id=_components(fields[11], delimiters)[0],
        version=_components(fields[12], delimiters)[0],
        accept_acknowledgment=fields[15].upper(),
        application_acknowledgment=fields[16].upper(),
        charset=fields[18],
        # ORR, ORU's ACK and the like carry MSA whatever their type is called.
        is_reply=code in ("ACK", "MCF")
        or re.search(rb"[\r\n]MSA" + re.escape(separator.encode("latin-1")), raw) is not None,
    )


def _components(field: str, delimiters: Delimiters) -> list[str]:
    return field.split(delimiters.component) if delimiters.component else [field]
