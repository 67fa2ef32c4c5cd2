"""Reading values out of a group of segments: which location counts, how long a value may be, and what was used.

Every value that is taken is noted (`Use`), so that a person can be shown how a message was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from datetime import UTC, datetime, timezone, tzinfo
from types import MappingProxyType
from typing import Final

from inlay_core.application.ports import DELETE, Deleted
from inlay_core.domain.patient import PersonName, Provider
from inlay_hl7.mapping.places import At, Mapping
from inlay_hl7.message import Condition, Message, MessageError, Segment
from inlay_hl7.times import parse_time

Text = str | Deleted | None
Coded = tuple[Text, Text, Text]

# Identifiers are keys of the database and of other systems: EI.1 and CX.1 end at 199 characters (HL7 v2.7), DICOM's
# UIDs and accession numbers much earlier. Texts that people type are bounded by the frame alone.
_LONGEST: Final[Table[str, int]] = MappingProxyType(
    {
        "accession_number": 64,
        "requested_procedure_id": 64,
        "step_id": 64,
        "modality": 64,
        "study_instance_uid": 64,
        "procedure": 999,
        "reason": 65536,
    }
)
LONGEST_KEY: Final = 199
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Use:
    """A value that was taken: what it is, and where it stands."""

    name: str
    segment: Segment
    field: int
    component: int


@dataclass(frozen=True, slots=True)
class Context:
    """What holds for a whole message: its mapping, who sends, when, in which zone; and the uses noted so far."""

    mapping: Mapping
    facility: str
    time: datetime | None
    zone: tzinfo
    uses: list[Use] = field(default_factory=list)

    @classmethod
    def of(cls, message: Message, mapping: Mapping, uses: list[Use] | None = None) -> Context:
        """The context of a message; the places that are read are added to `uses`. Raises MessageError."""
        header = message.header
        zone = zone_of(header.text(7), mapping.zone)
        uses = [] if uses is None else uses
        facility = header.text(4) or header.text(3)
        from_field = 4 if header.text(4) else 3
        checked(facility, "facility", header, from_field, 1)
        uses += [Use("facility", header, from_field, 1), Use("message time", header, 7, 1)]
        return cls(mapping, facility, time_at(header, 7, 1, zone), zone, uses)

    def note(self, name: str, segment: Segment, field_number: int, component: int = 1) -> None:
        """Remember that a value was taken from there."""
        self.uses.append(Use(name, segment, field_number, component))


def zone_of(time: str, fallback: tzinfo) -> tzinfo:
    """The offset of MSH-7 holds for every time of the message that has none of its own (chapter 2A, DTM)."""
    if not re.search(r"[+-]\d{4}$", time):
        return fallback
    try:
        moment = parse_time(time)
        local = parse_time(time[:-5])
    except ValueError:
        return fallback
    return timezone(local - moment)


def message_time(message: Message, zone: tzinfo = UTC) -> datetime | None:
    """MSH-7 in UTC. Raises MessageError for a value that is no time."""
    return time_at(message.header, 7, 1, zone)


def time_at(segment: Segment, field_number: int, component: int, zone: tzinfo) -> datetime | None:
    """The moment that stands there, None where nothing does. Raises MessageError."""
    text = segment.text(field_number, component)
    try:
        return parse_time(text, zone) if text else None
    except ValueError as error:
        raise MessageError(Condition.DATA_TYPE, segment.place(field_number, component), str(error)) from None


def checked(value: str, name: str, segment: Segment, field_number: int, component: int) -> str:
    """The value, unless it is longer than its kind may be. Raises MessageError 102."""
    longest = _LONGEST.get(name, LONGEST_KEY)
    if len(value) > longest:
        place = segment.place(field_number, component)
        raise MessageError(Condition.DATA_TYPE, place, f"longer than {longest} characters")
    return value


@dataclass(frozen=True, slots=True)
class Group:
    """The segments that belong together, read by the context's mapping."""

    segments: Sequence[Segment]
    context: Context

    def find(self, locations: Iterable[At]) -> tuple[Segment, At] | None:
        """The first location that is filled, or else the first one whose value is deleted."""
        deleted: tuple[Segment, At] | None = None
        for at in locations:
            for segment in self.segments:
                if segment.name != at.segment:
                    continue
                if segment.text(at.field, at.component, None).strip():
                    return segment, at
                if deleted is None and segment.deletes(at.field, at.component):
                    deleted = segment, at
                break
        return deleted

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def text(self, name: str, locations: Iterable[At] | None = None) -> Text:
        """The value of that name. Raises MessageError where it is too long."""
        found = self.find(getattr(self.context.mapping, name) if locations is None else locations)
        if found is None:
            return None
        segment, at = found
        self.context.note(name, segment, at.field, at.component)
        value = segment.text(at.field, at.component, None).strip()
        return checked(value, name, segment, at.field, at.component) or DELETE

    def identifier(self, name: str) -> tuple[str | None, str]:
        """An EI: the number and who assigns it, that is its namespace, else its universal id, else the sender."""
        found = self.find(getattr(self.context.mapping, name))
        if found is None:
            return None, self.context.facility
        segment, at = found
        self.context.note(name, segment, at.field, at.component)
        number = segment.text(at.field, at.component, None).strip()
        checked(number, name, segment, at.field, at.component)
        for beside in (1, 2):
            if assigner := segment.text(at.field, at.component + beside).strip():
                self.context.note("assigner", segment, at.field, at.component + beside)
                return number or None, checked(assigner, "assigner", segment, at.field, at.component + beside)
        return number or None, self.context.facility

    def uid(self, name: str) -> Text:
        """A DICOM UID. Raises MessageError for anything else."""
        uid = self.text(name)
        if isinstance(uid, str) and not _UID.fullmatch(uid):
            found = self.find(getattr(self.context.mapping, name))
            assert found is not None
            segment, at = found
            raise MessageError(Condition.DATA_TYPE, segment.place(at.field, at.component), "not a DICOM UID")
        return uid

    def coded(self, name: str) -> Coded:
        """Code, text and coding system, which stand in three components side by side."""
        for at in getattr(self.context.mapping, name):
            beside = [At(at.segment, at.field, at.component + n) for n in range(3)]
            if all(self.find([place]) is None for place in beside[:2]):
                continue
            code, text, system = (self.text(name, [place]) for place in beside)
            return code, text, system
        return None, None, None

    def moment(self, name: str) -> datetime | Deleted | None:
        """A time in UTC. Raises MessageError for a value that is none."""
        found = self.find(getattr(self.context.mapping, name))
        if found is None:
            return None
        segment, at = found
        self.context.note(name, segment, at.field, at.component)
        return time_at(segment, at.field, at.component, self.context.zone) or DELETE

    def reason(self) -> Text:
        """Coded reasons and free text, each text once, as lines."""
        mapping = self.context.mapping
        texts: list[str] = []
        deleted = False
        for at in (*mapping.reason, *mapping.clinical_information):
            segment = self.first(at.segment)
            if segment is None:
                continue
            deleted = deleted or segment.deletes(at.field)
            is_coded = at in mapping.reason
            said = coded_texts(segment, at.field) if is_coded else [segment.free_text(at.field)]
            new = [text for text in (each.strip() for each in said) if text and text not in texts]
            if new:
                self.context.note("reason", segment, at.field)
                checked("\n".join(new), "reason", segment, at.field, 1)
            texts += new
        if texts:
            return "\n".join(texts)
        return DELETE if deleted else None

    def provider(self, name: str) -> Provider | Deleted | None:
        """XCN: identifier, family, given, middle, suffix, prefix."""
        for at in getattr(self.context.mapping, name):
            segment = self.first(at.segment)
            if segment is None or not segment.raw(at.field):
                continue
            self.context.note(name, segment, at.field)
            if segment.deletes(at.field):
                return DELETE
            parts = [checked(segment.text(at.field, n), name, segment, at.field, n) for n in range(1, 7)]
            identifier, family, given, middle, suffix, prefix = parts
            person = PersonName(family, given, middle, prefix, suffix) if family or given else None
            return Provider(identifier or None, person)
        return None


def coded_texts(segment: Segment, field_number: int) -> list[str]:
    """The text of each repetition, or its code where it has no text."""
    repetitions = range(1, len(segment.repetitions(field_number)) + 1)
    return [segment.text(field_number, 2, None, n) or segment.text(field_number, 1, None, n) for n in repetitions]
