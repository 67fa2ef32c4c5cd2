"""Patients and persons as orders name them. All of it identifies people: it stays out of logs, prompts and brokers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class PersonName:
    """A person's name in its parts."""

    family: str
    given: str = ""
    middle: str = ""
    prefix: str = ""
    suffix: str = ""

    @property
    def text(self) -> str:
        """The name as one reads it."""
        parts = (self.prefix, self.given, self.middle, self.family, self.suffix)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Provider:
    """Who ordered: the identifier that the hospital uses, and the name."""

    identifier: str | None = None
    name: PersonName | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient, identified by `assigner` and `identifier` (the medical record number).

    `sex` is the administrative gender of FHIR: male, female, other or unknown. `message_time` is the time of the
    newest message applied; older ones change nothing. `merged_into` is the id of the record that took its place.
    """

    id: str
    assigner: str
    identifier: str
    name: PersonName | None = None
    birth_date: date | None = None
    sex: str | None = None
    merged_into: str | None = None
    message_time: datetime | None = None
    version: int = 1
    updated_at: datetime | None = None

    def is_older(self, message_time: datetime | None) -> bool:
        """Whether a message of that time is older than what this record already knows; unknown times are not."""
        return message_time is not None and self.message_time is not None and message_time < self.message_time
