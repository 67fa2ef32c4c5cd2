"""Who gets results over HL7: the targets of INLAY_HL7_TARGETS, each with its address, filters and files for TLS.

The file is read as a whole when a process starts; a mistake in it stops the process and is named, never ignored:

    [target.ris]
    address = "ris.example:2576"
    statuses = ["signed", "corrected", "withdrawn"]
    modalities = ["DX", "CR"]
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from inlay_core.application.ports import ORU_PREFIX, Destination, ResultFilter, Told
from inlay_core.domain.errors import Invalid
from inlay_core.settings import Settings

SETTING: Final = "INLAY_HL7_TARGETS"
# The name is part of a destination, which has 32 characters.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,26}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files for TLS: who is trusted (`ca`), and as whom we come (`certificate`, `key`: mutual authentication)."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class ResultTarget:
    """One receiver of ORU^R01. `filter` says which versions it gets; the rest says how."""

    filter: ResultFilter
    host: str
    port: int
    timeout_seconds: float
    receiving_application: str = ""
    receiving_facility: str = ""
    processing_id: str = "P"
    version: str = "2.5.1"
    pdf: bool = False
    tls: TlsFiles | None = None

    @property
    def destination(self) -> str:
        """Its name in the outbox."""
        return self.filter.destination


def result_targets(settings: Settings) -> tuple[ResultTarget, ...]:
    """The targets of these settings, that of INLAY_ORU_TARGET first. Raises Invalid, naming file, key and remedy."""
    targets: list[ResultTarget] = []
    if settings.oru_address is not None:
        host, port = settings.oru_address
        targets.append(ResultTarget(ResultFilter(Destination.ORU), host, port, settings.oru_timeout_seconds))
    if settings.hl7_targets:
        targets += _read_file(Path(settings.hl7_targets), settings.oru_timeout_seconds)
    return tuple(targets)


def _read_file(path: Path, timeout: float) -> list[ResultTarget]:
    try:
        return read_targets(path.read_text(encoding="utf-8"), timeout)
    except OSError as error:
        raise Invalid("bad-setting", f"{path}: the file cannot be read ({error.strerror}).", SETTING) from None
    except ValueError as error:
        raise Invalid("bad-setting", f"{path}: {error}", SETTING) from None


def read_targets(text: str, timeout_seconds: float = 10.0) -> list[ResultTarget]:
    """The targets that the TOML text names. Raises ValueError with key, problem and remedy."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"no TOML ({error}); mend the line that is named") from None
    if unknown := next((key for key in tables if key != "target"), None):
        raise ValueError(f"{unknown}: unknown table; write [target.NAME]")
    return [_target(name, table, timeout_seconds) for name, table in _table(tables.get("target", {}), "target").items()]


def _target(name: str, table: object, timeout_seconds: float) -> ResultTarget:
    place = f"target.{name}"
    if not _NAME.fullmatch(name):
        raise ValueError(f"{place}: a name has at most 27 lower-case letters, digits and hyphens; choose another one")
    found = ResultTarget(ResultFilter(ORU_PREFIX + name), "", 0, timeout_seconds)
    for key, value in _table(table, place).items():
        where = f"{place}.{key}"
        if key in _FILTERS:
            changes: dict[str, Any] = {key: _FILTERS[key](value, where)}
            found = replace(found, filter=replace(found.filter, **changes))
        elif key == "address":
            host, port = _address(value, where)
            found = replace(found, host=host, port=port)
        elif key == "tls":
            found = replace(found, tls=_tls(_table(value, where), where))
        elif key in _PLAIN:
            changes = {key: _PLAIN[key](value, where)}
            found = replace(found, **changes)
        else:
            raise _unknown(where, key, ("address", "tls", *_FILTERS, *_PLAIN))
    if not found.host:
        raise ValueError(f'{place}.address: missing; write for instance address = "ris.example:2576"')
    return found


def _tls(table: Mapping[str, Any], place: str) -> TlsFiles:
    for key in table:
        if key not in ("ca", "certificate", "key", "server_name"):
            raise _unknown(f"{place}.{key}", key, ("ca", "certificate", "key", "server_name"))
    files = {key: Path(_text(table[key], f"{place}.{key}")) for key in ("ca", "certificate", "key") if key in table}
    if "ca" not in files:
        raise ValueError(f"{place}.ca: missing; name the file of the authority that signs the receiver's certificate")
    if ("certificate" in files) != ("key" in files):
        raise ValueError(f"{place}: certificate and key belong together; name both or none")
    for key, path in files.items():
        if not path.is_file():
            raise ValueError(f"{place}.{key}: no such file; give the path of a PEM file")
    name = _text(table.get("server_name", ""), f"{place}.server_name")
    return TlsFiles(files["ca"], files.get("certificate"), files.get("key"), name)


def _address(value: object, place: str) -> tuple[str, int]:
    host, _, port = _text(value, place).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{place}: no address; write host:port")
    return host.strip("[]"), int(port)


def _statuses(value: object, place: str) -> frozenset[Told]:
    given = _texts(value, place)
    if wrong := next((word for word in given if word not in list(Told)), None):
        raise _unknown(place, wrong, [str(each) for each in Told])
    return frozenset(Told(word) for word in given)


def _texts(value: object, place: str) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: expected a list of texts; put it in square brackets")  # noqa: TRY004
    return frozenset(_text(each, place) for each in value)


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected text; put it in quotation marks")  # noqa: TRY004 (one kind of error)
    return value


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{place}: expected true or false; write it without quotation marks")  # noqa: TRY004
    return value


def _seconds(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{place}: expected seconds; write a number above 0")
    return float(value)


def _table(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a table; write [{place}] and its keys below")  # noqa: TRY004
    return value


def _version(value: object, place: str) -> str:
    version = _text(value, place)
    if version not in ("2.3.1", "2.4", "2.5", "2.5.1", "2.6"):
        raise ValueError(f"{place}: no version that results are written in; use 2.3.1, 2.4, 2.5, 2.5.1 or 2.6")
    return version


def _unknown(place: str, word: str, known: Iterable[str]) -> ValueError:
    names = list(known)
    near = difflib.get_close_matches(word, names, 1)
    return ValueError(
        f"{place}: unknown; " + (f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}")
    )


_Read = Callable[[object, str], Any]
_FILTERS: Final[Mapping[str, _Read]] = {"statuses": _statuses, "sites": _texts, "modalities": _texts}
_PLAIN: Final[Mapping[str, _Read]] = {
    "timeout_seconds": _seconds,
    "receiving_application": _text,
    "receiving_facility": _text,
    "processing_id": _text,
    "version": _version,
    "pdf": _flag,
}
