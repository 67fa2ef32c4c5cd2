"""ORM^O01 as a RIS sends it (IHE Radiology TF-2, RAD-4, HL7 v2.3.1): for the demonstration and tests."""

from __future__ import annotations

from dataclasses import dataclass

from inlay_hl7.building import (
    NOBODY,
    Coded,
    Envelope,
    PatientFields,
    Person,
    coded,
    components,
    message,
    msh,
    pid,
    segment,
)
from inlay_hl7.escapes import escape

CHEST = Coded("71046", "Chest X-ray, 2 views", "C4")


@dataclass(frozen=True, slots=True)
class OrderFields:
    """One ORC group: `control` is ORC-1 (NW, CA, DC, XO, SC), `status` ORC-5, `priority` S, A or R."""

    placer_number: str
    accession_number: str
    control: str = "NW"
    status: str = ""
    filler_number: str = ""
    procedure: Coded = CHEST
    modality: str = "DX"
    priority: str = "R"
    scheduled_time: str = ""
    clinical_information: str = ""
    reason: str = ""
    ordering_provider: Person = NOBODY
    study_instance_uid: str = ""


def build_order(envelope: Envelope, patient: PatientFields, orders: tuple[OrderFields, ...]) -> bytes:
    """The payload of an ORM^O01 with one ORC, OBR and ZDS per order."""
    segments = [msh(envelope, ("ORM", "O01", "ORM_O01")), pid(patient), segment("PV1", {1: "1", 2: "O"})]
    for number, order in enumerate(orders, start=1):
        segments += _group(number, order)
    return message(segments)


def _group(number: int, order: OrderFields) -> list[str]:
    person = order.ordering_provider
    provider = components(person.identifier, person.family, person.given, person.middle, person.suffix, person.prefix)
    placer, filler = escape(order.placer_number), escape(order.filler_number)
    timing = components("", "", "", order.scheduled_time, "", order.priority)
    group = [
        segment("ORC", {1: order.control, 2: placer, 3: filler, 5: order.status, 7: timing, 12: provider}),
        segment(
            "OBR",
            {
                1: str(number),
                2: placer,
                3: filler,
                4: coded(order.procedure),
                13: escape(order.clinical_information),
                16: provider,
                18: escape(order.accession_number),
                24: escape(order.modality),
                27: timing,
                31: components("", order.reason),
            },
        ),
    ]
    if order.study_instance_uid:
        group.append(segment("ZDS", {1: components(order.study_instance_uid, "INLAY", "Application", "DICOM")}))
    return group
