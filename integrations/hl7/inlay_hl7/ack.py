"""Acknowledgements of HL7 v2 (chapter 2, "Message processing rules"): which code, in which mode, written as bytes.

One rule stands above the table: an answer that is positive is written only by a caller that has committed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from inlay_hl7.escapes import escape
from inlay_hl7.header import Header, read_header
from inlay_hl7.message import Condition, MessageError, Place
from inlay_hl7.times import format_time

# Digits of a code in table 0357.
_LONGEST_CONDITION = 3
_CONDITION_TEXT = {
    Condition.SEQUENCE: "Segment sequence error",
    Condition.REQUIRED_MISSING: "Required field missing",
    Condition.DATA_TYPE: "Data type error",
    Condition.TABLE_VALUE: "Table value not found",
    Condition.MESSAGE_TYPE: "Unsupported message type",
    Condition.EVENT: "Unsupported event code",
    Condition.PROCESSING_ID: "Unsupported processing id",
    Condition.VERSION: "Unsupported version id",
    Condition.UNKNOWN_KEY: "Unknown key identifier",
    Condition.DUPLICATE_KEY: "Duplicate key identifier",
    Condition.LOCKED: "Application record locked",
    Condition.APPLICATION: "Application internal error",
}

VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9")


class Outcome(Enum):
    """What became of a message, before it is put into the code of a mode."""

    ACCEPTED = ("AA", "CA")
    CONTENT_ERROR = ("AE", "CE")
    HEADER_REFUSED = ("AR", "CR")  # MSH-9, MSH-11 or MSH-12 is not acceptable
    UNAVAILABLE = ("AR", "CE")  # reasons that have nothing to do with the content: may be sent again

    @property
    def original(self) -> str:
        """The code of MSA-1 in original mode, and of the application acknowledgement."""
        return self.value[0]

    @property
    def commit(self) -> str:
        """The code of MSA-1 of the commit acknowledgement in enhanced mode."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Issue:
    """One ERR segment. `text` holds no value of the message."""

    condition: Condition
    place: Place | None = None
    text: str = ""


def issue_of(error: MessageError) -> Issue:
    """The ERR for an error of reading or mapping."""
    return Issue(error.condition, error.place, error.text)


MESSAGES = frozenset(
    {
        ("ORM", "O01"),
        ("OMI", "O23"),
        ("OMG", "O19"),
        ("ADT", "A08"),
        ("ADT", "A31"),
        ("ADT", "A40"),
        ("ORU", "R01"),
    }
)
"""Every message that can be taken: MSH-9.1 and MSH-9.2."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What this listener takes: MSH-9 (type and event), MSH-11 and MSH-12."""

    messages: frozenset[tuple[str, str]] = MESSAGES
    processing_ids: frozenset[str] = frozenset({"P"})
    versions: frozenset[str] = frozenset(VERSIONS)


def check_header(header: Header, acceptance: Acceptance) -> tuple[Outcome, Issue] | None:
    """Why a message is refused by its header alone, or None. Each refusal names the field of MSH."""
    refused, content = Outcome.HEADER_REFUSED, Outcome.CONTENT_ERROR
    known = {kind for kind, _ in acceptance.messages}
    checks = (
        (content, not header.found, Condition.SEQUENCE, None, "the message does not begin with MSH"),
        (content, not header.control_id, Condition.REQUIRED_MISSING, 10, "message control id missing"),
        (refused, not header.message_type, Condition.REQUIRED_MISSING, 9, "message type missing"),
        (refused, header.message_type not in known, Condition.MESSAGE_TYPE, 9, "message type not supported"),
        (refused, not _event_fits(header, acceptance), Condition.EVENT, 9, "trigger event not supported"),
        (refused, not header.processing_id, Condition.REQUIRED_MISSING, 11, "processing id missing"),
        (refused, header.processing_id not in acceptance.processing_ids, Condition.PROCESSING_ID, 11, "not taken"),
        (refused, not header.version, Condition.REQUIRED_MISSING, 12, "version id missing"),
        (refused, header.version not in acceptance.versions, Condition.VERSION, 12, "version not supported"),
    )
    for outcome, failed, condition, field, text in checks:
        if failed:
            return outcome, Issue(condition, Place("MSH", 1, field), text)
    return None


def _event_fits(header: Header, acceptance: Acceptance) -> bool:
    # Before 2.3 many senders leave the event out; the type alone says it then, unless it has several.
    events = {event for kind, event in acceptance.messages if kind == header.message_type}
    return header.event in events or (not header.event and len(events) == 1 and _older_than(header, (2, 3)))


class Mode(Enum):
    """How a sender wants to be answered: a setting per sender, because not every peer follows MSH-15 and MSH-16."""

    HEADER = "header"
    """One answer per message, of the kind that MSH-15 and MSH-16 ask for."""
    APPLICATION = "application"
    """Always the application acknowledgement (AA, AE, AR) at once: for peers that cannot do two phases."""
    BOTH = "both"
    """In enhanced mode the commit acknowledgement and then the application acknowledgement, on this connection."""
    SEPARATE = "separate"
    """In enhanced mode the commit acknowledgement here, the application acknowledgement on a connection of ours."""


def answer_codes(header: Header, outcome: Outcome, mode: Mode = Mode.HEADER) -> tuple[str, ...]:
    """The codes to answer with on this connection, in order; none where nothing is to be said.

    Original mode answers always. In enhanced mode MSH-15 says whether a commit acknowledgement is wanted. A sender
    that wants none of it and fills MSH-16 gets the application acknowledgement at once on the same connection.
    An acknowledgement is never acknowledged.
    """
    if header.is_reply:
        return ()
    if not header.enhanced or mode is Mode.APPLICATION:
        return (outcome.original,)
    if mode is Mode.BOTH:
        return (*_commit(header, outcome), *_application(header, outcome))
    if mode is Mode.SEPARATE:
        return _commit(header, outcome)
    if _wanted(header.accept_acknowledgment, outcome):
        return (outcome.commit,)
    if header.accept_acknowledgment in ("", "NE") and _wanted(header.application_acknowledgment, outcome):
        return (outcome.original,)
    return ()


def later_code(header: Header, outcome: Outcome, mode: Mode) -> str | None:
    """The code of the application acknowledgement that goes out on another connection; None where none does."""
    if mode is not Mode.SEPARATE or header.is_reply or not header.enhanced:
        return None
    return next(iter(_application(header, outcome)), None)


# Of two phases the first says whether the message is kept, the second what became of it.
_NOT_COMMITTED = (Outcome.HEADER_REFUSED, Outcome.UNAVAILABLE)


def _commit(header: Header, outcome: Outcome) -> tuple[str, ...]:
    committed = outcome if outcome in _NOT_COMMITTED else Outcome.ACCEPTED
    return (committed.commit,) if _wanted(header.accept_acknowledgment, committed) else ()


def _application(header: Header, outcome: Outcome) -> tuple[str, ...]:
    said = outcome not in _NOT_COMMITTED and _wanted(header.application_acknowledgment, outcome)
    return (outcome.original,) if said else ()


def _wanted(condition: str, outcome: Outcome) -> bool:
    """Table 0155. A code outside of the table counts as AL: an answer too many does less harm than one too few."""
    positive = outcome is Outcome.ACCEPTED
    return {"": False, "NE": False, "SU": positive, "ER": not positive}.get(condition, True)


def acknowledge(
    header: Header, code: str, *, now: datetime, control_id: str, issues: Sequence[Issue] = (), committed: bool = False
) -> bytes:
    """The payload of an acknowledgement: a new MSH, sender and receiver swapped, MSA, and ERR by version.

    MSH-3 to 6, MSH-11, MSH-12 and MSA-2 are the bytes of the message that is answered, and so are the delimiters.
    `committed` asks for a commit acknowledgement of this one (MSH-15 AL, MSH-16 NE): it opens an exchange of its own.
    """
    kind, event = "ACK", header.event
    component = header.delimiters.component or "^"
    if event and not _older_than(header, (2, 3)):
        kind += f"{component}{event}"
        if not _older_than(header, (2, 3, 1)):
            kind += f"{component}ACK"
    msh = [
        "MSH",
        _encoding(header),
        header.receiving_application,
        header.receiving_facility,
        header.sending_application,
        header.sending_facility,
        format_time(now),
        "",
        kind,
        control_id,
        header.processing_id or "P",
        header.version or "2.5.1",
        *(["", "", "AL", "NE"] if committed else ["", "", "", ""] if header.charset else []),
        *(["", header.charset] if header.charset else []),
    ]
    text = "" if _has_err_location(header) or not issues else _plain(header, issues[0].text)
    segments = [msh, ["MSA", code, header.control_id, *([text] if text else [])]]
    segments += [_err(header, issue) for issue in issues]
    separator = header.delimiters.field
    return "".join(separator.join(segment) + "\r" for segment in segments).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An acknowledgement that we received: MSA-1, MSA-2 and the first condition of table 0357 in it, if any."""

    code: str
    control_id: str
    condition: int | None = None

    @property
    def positive(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.code in ("AA", "CA")

    @property
    def lasting(self) -> bool:
        """Whether the receiver says that the same message can only fail again (content, or MSH-9, 11, 12).

        Peers disagree about what AE and AR mean; only the condition in ERR is taken as the answer to that.
        """
        return not self.positive and self.condition is not None and self.condition < Condition.UNKNOWN_KEY


def read_acknowledgement(payload: bytes) -> Acknowledgement | None:
    """What an acknowledgement says, or None for a payload that is none."""
    header = read_header(payload)
    if not header.found:
        return None
    separator = header.delimiters.field
    rows = [line.split(separator) for line in re.split(r"[\r\n]+", payload.decode("latin-1"))]
    msa = next((row for row in rows if row[0] == "MSA"), None)
    if msa is None or len(msa) < 3:
        return None
    err = next((row for row in rows if row[0] == "ERR"), [])
    return Acknowledgement(msa[1].strip().upper(), msa[2], _condition_in(err, header))


def _condition_in(err: Sequence[str], header: Header) -> int | None:
    """ERR-3.1, or before version 2.5 the first subcomponent of ERR-1.4."""
    component, subcomponent = header.delimiters.component or "^", header.delimiters.subcomponent or "&"
    new = err[3].split(component)[0] if len(err) > 3 else ""
    old = [*(err[1] if len(err) > 1 else "").split(component), "", "", "", ""][3].split(subcomponent)[0]
    code = new or old
    # A longer number is none of the table's: it may count the receiver's own errors, and codes are labels of metrics.
    return int(code) if code.isascii() and code.isdecimal() and len(code) <= _LONGEST_CONDITION else None


def _err(header: Header, issue: Issue) -> list[str]:
    component, subcomponent = header.delimiters.component or "^", header.delimiters.subcomponent or "&"
    place = issue.place
    location = [place.segment, str(place.occurrence)] if place else []
    if place and place.field is not None:
        location.append(str(place.field))
    error = [str(int(issue.condition)), _CONDITION_TEXT[issue.condition], "HL70357"]
    if not _has_err_location(header):
        location += [""] * (3 - len(location))
        return ["ERR", component.join([*location, subcomponent.join(error)])]
    if place and place.component is not None:
        location += ["1"] * (4 - len(location)) + [str(place.component)]
    said = _plain(header, issue.text if place is None or place.offset is None else f"{issue.text}, {place}")
    return ["ERR", "", component.join(location), component.join(error), "E", "", "", "", said]


def _plain(header: Header, text: str) -> str:
    return escape(text, header.delimiters) if header.delimiters.escape else text


def _encoding(header: Header) -> str:
    return header.delimiters.encoding_characters or "^~\\&"


def _has_err_location(header: Header) -> bool:
    """ERR-2, ERR-3 and ERR-4 exist from version 2.5 on; a version that is not known counts as new."""
    return not _older_than(header, (2, 5))


def _older_than(header: Header, version: tuple[int, ...]) -> bool:
    if header.version not in VERSIONS:
        return False
    return tuple(int(part) for part in header.version.split(".")) < version
