"""Where the values of a message stand: the defaults per type of message, and how a location is written.

The defaults are IHE Radiology RAD-4 (HL7 2.3.1) for ORM^O01 and the HL7 2.5.1 structures for OMI^O23, OMG^O19 and
ORU^R01. Sites differ, so every row can be configured per sending application (`inlay_hl7.senders`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, tzinfo
from types import MappingProxyType
from typing import Final, Self


@dataclass(frozen=True, slots=True)
class At:
    """A location in a group of segments: segment, field, component. Written `OBR-18` or `TQ1-9.1`."""

    segment: str
    field: int
    component: int = 1

    @classmethod
    def parse(cls, text: str) -> At:
        """The location that is written so; raises ValueError."""
        found = re.fullmatch(r"([A-Z][A-Z0-9]{2})-([1-9][0-9]?)(?:\.([1-9][0-9]?))?", text)
        if found is None:
            raise ValueError("a location is written SEG-field or SEG-field.component")
        return cls(found[1], int(found[2]), int(found[3] or 1))

    def __str__(self) -> str:
        return f"{self.segment}-{self.field}" + (f".{self.component}" if self.component > 1 else "")


def _at(*locations: str) -> tuple[At, ...]:
    return tuple(At.parse(location) for location in locations)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where the values of an order stand for one sender; of several locations the first filled one counts.

    `zone` is the zone of times without an offset. `reason` locations are coded texts (their text component counts),
    `clinical_information` ones are free text; both together are the reason of the order. `patient_identifier_types`
    are the types (PID-3.5) that name the record number, the best one first.
    """

    placer_number: tuple[At, ...] = _at("ORC-2", "OBR-2")
    filler_number: tuple[At, ...] = _at("ORC-3", "OBR-3")
    accession_number: tuple[At, ...] = _at("OBR-18")
    requested_procedure_id: tuple[At, ...] = _at("OBR-19")
    step_id: tuple[At, ...] = _at("OBR-20")
    study_instance_uid: tuple[At, ...] = _at("ZDS-1")
    procedure: tuple[At, ...] = _at("OBR-4", "OBR-44")
    modality: tuple[At, ...] = _at("OBR-24")
    reason: tuple[At, ...] = _at("OBR-31")
    clinical_information: tuple[At, ...] = _at("OBR-13")
    # TQ1 inside of a 2.3.1 message is common.
    priority: tuple[At, ...] = _at("TQ1-9", "ORC-7.6", "OBR-27.6", "OBR-5")
    scheduled_at: tuple[At, ...] = _at("TQ1-7", "ORC-7.4", "OBR-27.4", "OBR-36")
    ordering_provider: tuple[At, ...] = _at("ORC-12", "OBR-16")
    # The order's own time (ORC-9) only where a sender keeps it current; MSH-7 rises with every message.
    order_time: tuple[At, ...] = ()
    patient_identifier_types: tuple[str, ...] = ("MR",)
    zone: tzinfo = UTC

    @property
    def has_steps(self) -> bool:
        """Whether the sender tells steps in IPC segments, so that a new order needs one."""
        return any(at.segment == "IPC" for at in self.accession_number)


LOCATIONS: Final = tuple(each.name for each in fields(Mapping) if each.name not in ("zone", "patient_identifier_types"))
"""The names of the values that have locations."""

RAD_4: Final = Mapping()
_IMAGING: Final = replace(
    RAD_4,
    accession_number=_at("IPC-1"),
    requested_procedure_id=_at("IPC-2"),
    study_instance_uid=_at("IPC-3"),
    step_id=_at("IPC-4"),
    modality=_at("IPC-5"),
)

DEFAULTS: Final[Table[str, Mapping]] = MappingProxyType({"ORM": RAD_4, "OMI": _IMAGING, "OMG": RAD_4, "ORU": RAD_4})
"""The mapping of each type of message before anything is configured."""

# OBR-13 became a coded text in 2.7 (it was plain text before).
_CODED_OBR_13: Final = frozenset({"2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9"})


@dataclass(frozen=True, slots=True)
class Mappings:
    """The mappings of one sender, by type of message (MSH-9.1)."""

    by_type: Table[str, Mapping] = field(default_factory=lambda: DEFAULTS)

    def of(self, message_type: str, version: str = "") -> Mapping:
        """The mapping for a message of this type and version."""
        mapping = self.by_type.get(message_type, self.by_type["ORM"])
        coded = tuple(at for at in mapping.clinical_information if at.segment == "OBR" and at.field == 13)
        if not coded or version not in _CODED_OBR_13:
            return mapping
        plain = tuple(at for at in mapping.clinical_information if at not in coded)
        return replace(mapping, reason=(*mapping.reason, *coded), clinical_information=plain)

    def changed(self, **changes: object) -> Self:
        """These mappings with the same change in each."""
        return type(self)({name: replace(each, **changes) for name, each in self.by_type.items()})  # type: ignore[arg-type]

    def with_type(self, message_type: str, mapping: Mapping) -> Self:
        """These mappings with another one for a type."""
        return type(self)({**self.by_type, message_type: mapping})
