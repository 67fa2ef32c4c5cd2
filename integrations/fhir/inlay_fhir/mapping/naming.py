"""Identifiers and codes: how Inlay's assigners and HL7 v2 code systems are called in FHIR, and back again.

https://hl7.org/fhir/R4/datatypes.html#Identifier, https://hl7.org/fhir/R4/terminologies-systems.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, unquote

from inlay_core.domain.errors import Invalid
from inlay_core.domain.order import Order, Procedure
from inlay_core.domain.report import Author
from inlay_fhir.elements import Json, coding, concept, filled, reference, string
from inlay_fhir.site import FhirSite

LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
V2_0203: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
ACTOR_SYSTEM: Final = "urn:x-inlay:actor"
SHA256_SYSTEM: Final = "urn:x-inlay:sha-256"
UID_SYSTEM: Final = "urn:dicom:uid"

IMAGING_STUDY_CODE: Final = "18748-4"
"""LOINC "Diagnostic imaging study": what a report is called whose order names no code."""
IMAGING_STUDY_NAME: Final = "Diagnostic imaging study"

# HL7 table 0396 -> FHIR. What is not here is a name that a site made.
_SYSTEMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LN": LOINC,
        "SCT": SNOMED,
        "SNM": SNOMED,
        "RADLEX": "http://radlex.org",
        "DCM": DICOM,
        "C4": "http://www.ama-assn.org/go/cpt",
        "CPT4": "http://www.ama-assn.org/go/cpt",
        "I10": "http://hl7.org/fhir/sid/icd-10",
        "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    }
)
_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_URI: Final = re.compile(r"(https?|urn):\S+", re.IGNORECASE)
CODE_SYSTEM_PREFIX: Final = "urn:x-inlay:code-system:"


def assigner_system(site: FhirSite, assigner: str) -> str | None:
    """The identifier system of an assigner: a URI as it is, an OID as a URN, a name behind the site's prefix."""
    if not assigner:
        return None
    if _URI.fullmatch(assigner):
        return assigner
    return f"urn:oid:{assigner}" if _OID.fullmatch(assigner) else site.assigner_system + quote(assigner, safe="")


def assigners(site: FhirSite, system: str) -> tuple[str, ...]:
    """Every assigner that `assigner_system` would call so."""
    if system.startswith(site.assigner_system):
        return (unquote(system.removeprefix(site.assigner_system)), system)
    return (system.removeprefix("urn:oid:"), system) if system.startswith("urn:oid:") else (system,)


def identifier(site: FhirSite, type_code: str, value: str | None, assigner: str) -> Json | None:
    """An Identifier of a type of table 0203 (MR, PLAC, FILL, ACSN); None without a value."""
    if not string(value):
        return None
    return filled(
        use="official" if type_code == "MR" else None,
        type_=concept(coding(V2_0203, type_code)),
        system=assigner_system(site, assigner),
        value=string(value),
    )


def code_system(name: str | None) -> str | None:
    """The URI of a v2 code system; a site's own name gets a prefix, a URI or OID stays."""
    if not name:
        return None
    if name.upper() in _SYSTEMS:
        return _SYSTEMS[name.upper()]
    if _URI.fullmatch(name):
        return name
    return f"urn:oid:{name}" if _OID.fullmatch(name) else CODE_SYSTEM_PREFIX + quote(name, safe="")


def code_system_names(uri: str) -> tuple[str, ...]:
    """Every name by which an order may state that code system."""
    names = tuple(name for name, known in _SYSTEMS.items() if known == uri)
    if uri.startswith(CODE_SYSTEM_PREFIX):
        names += (unquote(uri.removeprefix(CODE_SYSTEM_PREFIX)),)
    return (*names, uri.removeprefix("urn:oid:"), uri)


def code_system_name(uri: str) -> str:
    """How an order states that code system: as in table 0396 where it is there, else so that it comes back the same."""
    return code_system_names(uri)[0]


def order_number(order: Order) -> tuple[str, str]:
    """(assigner, placer number), by which an order is found again."""
    if order.placer_number is None:
        raise Invalid("no-placer-number", "The order has no placer number; name it by its accession number.", "basedOn")
    return order.assigner, order.placer_number


def is_uid(text: str) -> bool:
    """Whether it is a DICOM UID (PS3.5 9.1)."""
    return len(text) <= 64 and _OID.fullmatch(text) is not None


def procedure_concept(procedure: Procedure) -> Json:
    """The procedure as a concept; an order without a code gets the general one of LOINC: a report must have one.

    The order's words are the text and no `display`: that belongs to the code system, and validators compare it.
    """
    stated = " ".join((string(procedure.code) or "").split())
    if not stated:
        return concept(coding(LOINC, IMAGING_STUDY_CODE, IMAGING_STUDY_NAME), text=procedure.text)
    return concept(coding(code_system(procedure.system), stated), text=procedure.text)


def study_reference(uid: str | None) -> Json | None:
    """A Reference to a study; None for what is no UID (DICOM PS3.5 9.1), because it could be no FHIR id either."""
    return {"reference": f"ImagingStudy/{uid}"} if uid and is_uid(uid) else None


def person(person_id: str, name: str) -> Json:
    """A clinician as a logical reference: Inlay keeps no directory of people, the hospital does."""
    return reference(
        type="Practitioner", identifier=filled(system=ACTOR_SYSTEM, value=string(person_id)), display=string(name)
    )


def author(made_by: Author) -> Json:
    """Who made a version: a clinician, or one of the systems (which is software, and so a Device, but no AI)."""
    who = person(made_by.id, made_by.name)
    return who if made_by.kind == "person" else who | {"type": "Device"}


def hashed(digest: str, display: str) -> Json:
    """A Reference to bytes that are kept elsewhere, by their SHA-256 in hexadecimal."""
    return reference(identifier={"system": SHA256_SYSTEM, "value": digest}, display=display)
