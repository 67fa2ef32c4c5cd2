"""What the messages that we send have in common: fields escaped, segments ended by CR, UTF-8 declared in MSH-18."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from inlay_hl7.escapes import STANDARD, escape
from inlay_hl7.times import format_time


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded value (CE, CWE): code, text, name of the coding system."""

    code: str = ""
    text: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """A person's name and, for staff, the identifier (XPN, XCN, CNN)."""

    family: str = ""
    given: str = ""
    middle: str = ""
    suffix: str = ""
    prefix: str = ""
    identifier: str = ""


NOBODY = Person()


@dataclass(frozen=True, slots=True)
class PatientFields:
    """PID-3, PID-5, PID-7 and PID-8; `birth_date` as YYYYMMDD."""

    identifier: str
    assigner: str = ""
    name: Person = NOBODY
    birth_date: str = ""
    sex: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """MSH: who sends to whom, when, and under which control id. A re-send keeps all of it."""

    control_id: str
    time: datetime
    sending_application: str = "INLAY"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    processing_id: str = "P"
    version: str = "2.5.1"


def components(*values: str, separator: str = "^") -> str:
    """Components of a field, each escaped, without empty ones at the end."""
    return separator.join(escape(value) for value in values).rstrip(separator)


def coded(value: Coded) -> str:
    """CE or CWE."""
    return components(value.code, value.text, value.system)


def segment(name: str, fields: dict[int, str]) -> str:
    """A segment from its numbered fields, which are escaped already."""
    last = max((number for number, value in fields.items() if value), default=0)
    return "|".join([name, *(fields.get(number, "") for number in range(1, last + 1))])


def msh(envelope: Envelope, kind: tuple[str, str, str]) -> str:
    """The header. The third component of MSH-9 exists from 2.3.1 on."""
    return segment(
        "MSH",
        {
            # MSH-1 is the separator itself, so each field stands one place to the left.
            1: STANDARD.encoding_characters,
            2: escape(envelope.sending_application),
            3: escape(envelope.sending_facility),
            4: escape(envelope.receiving_application),
            5: escape(envelope.receiving_facility),
            6: format_time(envelope.time),
            8: "^".join(kind[:2] if envelope.version in ("2.1", "2.2", "2.3") else kind),
            9: escape(envelope.control_id),
            10: envelope.processing_id,
            11: envelope.version,
            17: "UNICODE UTF-8",
        },
    )


def pid(patient: PatientFields) -> str:
    """The patient, with the identifier typed as medical record number."""
    name = patient.name
    return segment(
        "PID",
        {
            1: "1",
            3: components(patient.identifier, "", "", patient.assigner, "MR"),
            5: components(name.family, name.given, name.middle, name.suffix, name.prefix),
            7: patient.birth_date,
            8: patient.sex,
        },
    )


def message(segments: Sequence[str]) -> bytes:
    """The payload: every segment ends in CR, the last one too. Raises UnicodeEncodeError for lone surrogates."""
    return "".join(f"{each}\r" for each in segments).encode("utf-8")
