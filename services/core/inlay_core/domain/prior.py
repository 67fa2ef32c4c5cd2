"""Earlier examinations of a patient, to compare with: what archives hold, what others reported, what was signed here.

Nobody here edits or signs a report of others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, tzinfo
from enum import StrEnum
from typing import Final

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


class Source(StrEnum):
    """Who knows of an earlier examination."""

    ARCHIVE = "archive"
    RIS = "ris"
    INLAY = "inlay"


# LOINC, as OBX-3 names the impression (PS3.20 section 9).
IMPRESSION: Final = "19005-8"
ANSWERED: Final = frozenset({PriorStatus.FINAL, PriorStatus.CORRECTED})
"""States of a report that somebody answers for."""
# Of several reports on one examination that of this house counts first, then the one that says most for certain.
_RANK: Final = (Source.INLAY, Source.RIS, Source.ARCHIVE)


@dataclass(frozen=True, slots=True)
class Examination:
    """One earlier examination, whoever knows of it. Without a report `status` is None and there are no sections.

    `prior_id` names the report of another system, `report_id` the one that was signed here. `sources` are all who know
    of it; the text is that of one.
    """

    sources: tuple[Source, ...]
    study_instance_uid: str = ""
    accession_number: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    performed_at: datetime | None = None
    reported_at: datetime | None = None
    status: PriorStatus | None = None
    sections: tuple[PriorSection, ...] = ()
    prior_id: str | None = None
    report_id: str | None = None

    @property
    def at(self) -> datetime | None:
        """When it was made, or else reported."""
        return self.performed_at or self.reported_at

    @property
    def impression(self) -> str:
        """The impression of a report that somebody answers for; empty where there is none."""
        if self.status not in ANSWERED:
            return ""
        return " ".join(section.text.strip() for section in self.sections if section.code == IMPRESSION)

    def is_same(self, other: Examination) -> bool:
        """Whether both are of one study; where one does not name its study, of one accession number."""
        if self.study_instance_uid and other.study_instance_uid:
            return self.study_instance_uid == other.study_instance_uid
        return bool(self.accession_number) and self.accession_number == other.accession_number


@dataclass(frozen=True, slots=True)
class Comparison:
    """An earlier examination as a draft names it: its day on the spot, what it was, its impression where known."""

    on: date
    what: str
    impression: str = field(default="", repr=False)
    performed_at: datetime | None = None


def comparison_of(examination: Examination, zone: tzinfo) -> Comparison | None:
    """What a draft says of an examination; None where nobody knows when it was."""
    if examination.at is None:
        return None
    what = examination.description or "/".join(examination.modalities) or "Study"
    day = examination.at.astimezone(zone).date()
    return Comparison(day, what, examination.impression, examination.performed_at)


def merged(examinations: Iterable[Examination]) -> list[Examination]:
    """One entry per examination, the newest first; what nobody dates comes last.

    Those that name both study and accession number should come first: they lead others together.
    """
    entries: list[Examination] = []
    for each in examinations:
        place = next((n for n, entry in enumerate(entries) if entry.is_same(each)), None)
        if place is None:
            entries.append(each)
        else:
            entries[place] = _together([entries[place], each])
    entries.sort(key=lambda entry: entry.at.timestamp() if entry.at else float("-inf"), reverse=True)
    return entries


def _together(same: list[Examination]) -> Examination:
    """What several sources say of one examination; the first that says something is heard."""
    same = sorted(same, key=_rank)
    first, by_images = same[0], sorted(same, key=lambda each: Source.ARCHIVE not in each.sources)
    return replace(
        first,
        sources=tuple(source for source in Source if any(source in each.sources for each in same)),
        study_instance_uid=_first(each.study_instance_uid for each in same),
        accession_number=_first(each.accession_number for each in same),
        description=_first(each.description for each in same),
        modalities=next((each.modalities for each in same if each.modalities), ()),
        # The images know best when they were made.
        performed_at=next((each.performed_at for each in by_images if each.performed_at), None),
    )


def _rank(entry: Examination) -> tuple[int, bool, float]:
    newest = -entry.reported_at.timestamp() if entry.reported_at else 0.0
    return min(_RANK.index(source) for source in entry.sources), entry.status not in ANSWERED, newest


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")
