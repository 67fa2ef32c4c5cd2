"""What is configured per sending application: character set, accepted headers, answers, and where values stand.

Read from TOML and checked as a whole when a process starts; an unknown key or location is an error, never ignored:

    [default]
    charset = "windows-1252"

    [sender."RIS|HOSPITAL"]        # MSH-3 and MSH-4, or MSH-3 alone
    zone = "Europe/Berlin"
    accession_number = ["OBR-20"]  # in every type of message of this sender

    [sender."RIS|HOSPITAL".OMI]    # in OMI^O23 only
    accession_number = ["IPC-1", "OBR-18"]
"""

from __future__ import annotations

import codecs
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from inlay_hl7.ack import MESSAGES, VERSIONS, Acceptance, Mode
from inlay_hl7.header import Header
from inlay_hl7.mapping.places import DEFAULTS, LOCATIONS, At, Mapping, Mappings


class ConfigurationError(ValueError):
    """A mistake in the file: `key` is where, `remedy` what to do about it."""

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{key}: {problem}; {remedy}")
        self.key = key
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Sender:
    """How the messages of one sender are read and answered. `charset` is the codec for an empty MSH-18; None is ASCII.

    `name` is the table that it was configured in. `answer_to` names the target that gets application acknowledgements,
    where they go out on a connection of their own.
    """

    charset: str | None = None
    acceptance: Acceptance = field(default_factory=Acceptance)
    mappings: Mappings = field(default_factory=Mappings)
    mode: Mode = Mode.HEADER
    answer_to: str = ""
    name: str = "default"

    def mapping(self, message_type: str = "ORM", version: str = "") -> Mapping:
        """Where values stand in messages of this type."""
        return self.mappings.of(message_type, version)


@dataclass(frozen=True, slots=True)
class Senders:
    """The senders that are configured by name, and what holds for all others."""

    default: Sender = field(default_factory=Sender)
    named: Table[str, Sender] = field(default_factory=dict)

    def of(self, header: Header) -> Sender:
        """What holds for this message."""
        application, facility = header.namespaces
        return self.named.get(f"{application}|{facility}") or self.named.get(application) or self.default

    @property
    def answered_apart(self) -> dict[str, str]:
        """Targets that get application acknowledgements, and the table that names each."""
        return {one.answer_to: one.name for one in (self.default, *self.named.values()) if one.mode is Mode.SEPARATE}


def read_senders(text: str, default: Sender) -> Senders:
    """The configuration that the TOML text holds, on top of `default`. Raises ConfigurationError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("file", f"no TOML ({error})", "mend the line that is named") from None
    for key in tables:
        if key not in ("default", "sender"):
            raise _unknown(key, key, ("default", "sender"))
    base = _sender(_table(tables.get("default", {}), "default"), default, "default")
    named = {
        name: _sender(_table(table, _key(name)), base, _key(name))
        for name, table in _table(tables.get("sender", {}), "sender").items()
    }
    return Senders(base, MappingProxyType(named))


def codec_of(name: str, place: str = "charset") -> str | None:
    """The codec of that name, None for the empty one. Raises ConfigurationError for a name that is unknown."""
    try:
        return codecs.lookup(name).name if name else None
    except LookupError:
        remedy = 'use a name such as "windows-1252", "iso8859-15" or "utf-8", or "" for ASCII'
        raise ConfigurationError(place, "unknown character set", remedy) from None


def _sender(table: Table[str, Any], base: Sender, place: str) -> Sender:
    sender = replace(base, name=place)
    # Keys of a sender hold for all of its messages, so the tables of single types come after them.
    for key, value in sorted(table.items(), key=lambda item: isinstance(item[1], dict)):
        where = f"{place}.{key}"
        if key in DEFAULTS:
            of_type = _typed(_table(value, where), sender.mappings.by_type[key], where)
            sender = replace(sender, mappings=sender.mappings.with_type(key, of_type))
        elif key in _MAPPED:
            sender = replace(sender, mappings=sender.mappings.changed(**{key: _MAPPED[key](value, where)}))
        elif key == "charset":
            sender = replace(sender, charset=codec_of(_text(value, where), where))
        elif key == "answer":
            sender = replace(sender, mode=_mode(value, where))
        elif key == "answer_to":
            sender = replace(sender, answer_to=_text(value, where))
        elif key in _ACCEPTED:
            changes: dict[str, Any] = {key: _ACCEPTED[key](value, where)}
            sender = replace(sender, acceptance=replace(sender.acceptance, **changes))
        else:
            raise _unknown(where, key, (*DEFAULTS, *_MAPPED, *_ACCEPTED, "charset", "answer", "answer_to"))
    if sender.mode is Mode.SEPARATE and not sender.answer_to:
        raise ConfigurationError(f"{place}.answer_to", "missing", "name a target of INLAY_HL7_TARGETS")
    return sender


def _typed(table: Table[str, Any], mapping: Mapping, place: str) -> Mapping:
    for key, value in table.items():
        where = f"{place}.{key}"
        if key not in _MAPPED:
            raise _unknown(where, key, _MAPPED)
        changes: dict[str, Any] = {key: _MAPPED[key](value, where)}
        mapping = replace(mapping, **changes)
    return mapping


def _locations(value: object, place: str) -> tuple[At, ...]:
    try:
        return tuple(At.parse(text) for text in _texts(value, place))
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(place, str(error), 'write for instance ["OBR-18", "ORC-3.1"]') from None


def _zone(value: object, place: str) -> ZoneInfo:
    try:
        return ZoneInfo(_text(value, place))
    except ConfigurationError:
        raise
    except (ZoneInfoNotFoundError, ValueError, OSError):
        remedy = 'use a name of the IANA database such as "Europe/Berlin"'
        raise ConfigurationError(place, "unknown time zone", remedy) from None


def _mode(value: object, place: str) -> Mode:
    try:
        return Mode(_text(value, place))
    except ConfigurationError:
        raise
    except ValueError:
        raise ConfigurationError(place, "unknown", _one_of(each.value for each in Mode)) from None


def _versions(value: object, place: str) -> frozenset[str]:
    given = frozenset(_texts(value, place))
    if not given <= set(VERSIONS):
        raise ConfigurationError(place, "unknown version", _one_of(VERSIONS))
    return given


def _messages(value: object, place: str) -> frozenset[tuple[str, str]]:
    known = {f"{kind}^{event}": (kind, event) for kind, event in MESSAGES}
    given = _texts(value, place)
    if not set(given) <= set(known):
        raise ConfigurationError(place, "a message that cannot be taken", _one_of(sorted(known)))
    return frozenset(known[each] for each in given)


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(place, "expected text", "put it in quotation marks")
    return value


def _texts(value: object, place: str) -> list[str]:
    if not isinstance(value, list):
        raise ConfigurationError(place, "expected a list of texts", "put it in square brackets")
    return [_text(each, place) for each in value]


def _table(value: object, place: str) -> Table[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(place, "expected a table", f"write [{place}] and its keys below")
    return value


def _key(name: str) -> str:
    """The name of a sender's table as one writes it."""
    return f"sender.{name}" if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'sender."{name}"'


def _unknown(place: str, key: str, known: Iterable[str]) -> ConfigurationError:
    names = list(known)
    near = difflib.get_close_matches(key, names, 1)
    return ConfigurationError(place, "unknown key", f"did you mean {near[0]}?" if near else _one_of(names))


def _one_of(names: Iterable[str]) -> str:
    return f"use one of {', '.join(names)}"


_Read = Callable[[object, str], Any]

_MAPPED: Final[dict[str, _Read]] = {
    **dict.fromkeys(LOCATIONS, _locations),
    "zone": _zone,
    "patient_identifier_types": lambda value, place: tuple(_texts(value, place)),
}
_ACCEPTED: Final[dict[str, _Read]] = {
    "messages": _messages,
    "versions": _versions,
    "processing_ids": lambda value, place: frozenset(_texts(value, place)),
}
