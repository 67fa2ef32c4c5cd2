"""Prior reports: what other systems reported of a patient earlier, to compare with. Nobody here edits or signs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from inlay_core.domain.patient import Patient


class PriorStatus(StrEnum):
    """How far the sender vouches for the text."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class PriorSection:
    """A part of the text: the code and title under which the sender put it."""

    code: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class PriorReport:
    """A report of another system, identified by `assigner` and `number`. Its text identifies a person.

    `message_time` is the time of the newest message applied; older ones change nothing.
    """

    id: str
    patient: Patient
    assigner: str
    number: str
    status: PriorStatus
    sections: tuple[PriorSection, ...] = ()
    accession_number: str | None = None
    procedure_code: str | None = None
    procedure_system: str | None = None
    procedure_text: str | None = None
    modality: str | None = None
    performed_at: datetime | None = None
    reported_at: datetime | None = None
    message_time: datetime | None = None
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def is_older(self, message_time: datetime | None) -> bool:
        """Whether a message of that time is older than what this record already knows; unknown times are not."""
        return message_time is not None and self.message_time is not None and message_time < self.message_time
