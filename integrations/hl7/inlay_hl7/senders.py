"""What is configured per sending application: character set, accepted headers, and where an order's values stand.

Read from TOML and checked as a whole when a process starts; an unknown key or location is an error, never ignored:

    [default]
    charset = "windows-1252"

    [sender."RIS|HOSPITAL"]        # MSH-3 and MSH-4, or MSH-3 alone
    zone = "Europe/Berlin"
    accession_number = ["OBR-20"]
"""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from inlay_hl7.ack import VERSIONS, Acceptance
from inlay_hl7.header import Header
from inlay_hl7.mapping import RAD_4, At, Mapping

_LOCATIONS = frozenset(each.name for each in fields(Mapping)) - {"zone"}


@dataclass(frozen=True, slots=True)
class Sender:
    """How the messages of one sender are read. `charset` is the codec for an empty MSH-18; None is ASCII."""

    charset: str | None = None
    acceptance: Acceptance = field(default_factory=Acceptance)
    mapping: Mapping = RAD_4


@dataclass(frozen=True, slots=True)
class Senders:
    """The senders that are configured by name, and what holds for all others."""

    default: Sender = field(default_factory=Sender)
    named: Table[str, Sender] = field(default_factory=dict)

    def of(self, header: Header) -> Sender:
        """What holds for this message."""
        application, facility = header.namespaces
        return self.named.get(f"{application}|{facility}") or self.named.get(application) or self.default


def read_senders(text: str, default: Sender) -> Senders:
    """The configuration that the TOML text holds, on top of `default`. Raises ValueError naming the key."""
    tables = tomllib.loads(text)
    if unknown := set(tables) - {"default", "sender"}:
        raise ValueError(f"unknown table: {', '.join(sorted(unknown))}")
    base = _sender(tables.get("default", {}), default, "default")
    named = {name: _sender(table, base, f"sender.{name}") for name, table in tables.get("sender", {}).items()}
    return Senders(base, MappingProxyType(named))


def codec_of(name: str, place: str = "charset") -> str | None:
    """The codec of that name, None for the empty one. Raises ValueError for a name that is unknown."""
    try:
        return codecs.lookup(name).name if name else None
    except LookupError:
        raise ValueError(f"{place}: unknown character set") from None


def _sender(table: Table[str, Any], base: Sender, place: str) -> Sender:
    sender = base
    for key, value in table.items():
        where = f"{place}.{key}"
        if key == "charset":
            sender = replace(sender, charset=codec_of(_text(value, where), where))
        elif key == "zone":
            sender = replace(sender, mapping=replace(sender.mapping, zone=_zone(_text(value, where), where)))
        elif key in ("processing_ids", "versions"):
            accepted = frozenset(_texts(value, where))
            if key == "versions" and not accepted <= set(VERSIONS):
                raise ValueError(f"{where}: unknown version")
            changes: dict[str, Any] = {key: accepted}
            sender = replace(sender, acceptance=replace(sender.acceptance, **changes))
        elif key in _LOCATIONS:
            changes = {key: _locations(value, where)}
            sender = replace(sender, mapping=replace(sender.mapping, **changes))
        else:
            raise ValueError(f"{where}: unknown key")
    return sender


def _locations(value: object, place: str) -> tuple[At, ...]:
    try:
        return tuple(At.parse(text) for text in _texts(value, place))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _zone(name: str, place: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{place}: unknown time zone") from None


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected text")  # noqa: TRY004 (a configuration has one kind of error)
    return value


def _texts(value: object, place: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list of texts")  # noqa: TRY004 (as above)
    return [_text(each, place) for each in value]
