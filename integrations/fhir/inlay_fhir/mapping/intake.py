"""A ServiceRequest or an ImagingStudy that a client creates, as the command that an HL7 order would have given.

https://hl7.org/fhir/R4/servicerequest.html, https://hl7.org/fhir/R4/imagingstudy.html. The same use cases take both in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

from inlay_core.application.ports import Action, OrderCommand, OrderCondition, PatientFields
from inlay_core.domain.order import OrderStatus, Priority
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_fhir import parameters
from inlay_fhir.body import bad, object_at, objects_at, text_at
from inlay_fhir.elements import Json
from inlay_fhir.mapping.naming import DICOM, UID_SYSTEM, V2_0203, assigners, code_system_name, is_uid
from inlay_fhir.outcome import Refusal
from inlay_fhir.site import FhirSite

Number = tuple[str, str]
"""(assigner, number) of an order or of a patient."""
FindPatient = Callable[[str], Patient]
"""The patient with that id; raises NotFound."""
FindNumber = Callable[[str], Number]
"""The (assigner, placer number) of the order with that id; raises NotFound."""

_PRIORITIES: Final = {
    "routine": Priority.ROUTINE,
    "urgent": Priority.URGENT,
    "asap": Priority.STAT,
    "stat": Priority.STAT,
}
_INTENTS: Final = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def order_of_service_request(site: FhirSite, body: Json, patient: FindPatient) -> OrderCommand:
    """The order that a ServiceRequest states. Raises Refusal, naming the element."""
    place = "ServiceRequest"
    if body.get("status") != "active":
        raise bad(f"{place}.status", "a new order is active.")
    if body.get("intent") not in _INTENTS:
        raise bad(f"{place}.intent", "Inlay takes orders.")
    numbers = _numbers(site, body, place)
    placer, filler = numbers.get("PLAC"), numbers.get("FILL")
    accession = numbers.get("ACSN")
    leading = placer or filler or accession
    if leading is None:
        raise bad(f"{place}.identifier", "an order needs its placer or accession number (type PLAC, FILL or ACSN).")
    if placer and filler and placer[0] != filler[0]:
        raise bad(f"{place}.identifier", "placer and filler number have one system.")
    code, system, text = _procedure(body, "code", place)
    return OrderCommand(
        Action.NEW,
        assigner=leading[0],
        placer_number=placer[1] if placer else None,
        filler_number=filler[1] if filler else None,
        accession_number=accession[1] if accession else None,
        accession_assigner=accession[0] if accession else "",
        study_instance_uid=_study_uid(body, place),
        patient=_patient(site, body, place, patient),
        procedure_code=code,
        procedure_system=system,
        procedure_text=text,
        modality=_modality(objects_at(body, "orderDetail", place)),
        reason=_reason(body, place),
        priority=_priority(body, place),
        ordering_provider=_provider(body, place),
        scheduled_at=_time(body, "occurrenceDateTime", place),
        order_status=OrderStatus.SCHEDULED,
        place=place,
    )


def order_of_imaging_study(site: FhirSite, body: Json, patient: FindPatient, order: FindNumber) -> OrderCommand:
    """The order that an ImagingStudy is of: named by `basedOn` or by its accession number. Raises Refusal."""
    place = "ImagingStudy"
    if body.get("status") not in ("registered", "available"):
        raise bad(f"{place}.status", "a new study is registered or available.")
    uid = _study_uid(body, place)
    if uid is None:
        raise bad(f"{place}.identifier", f"a study has its StudyInstanceUID ({UID_SYSTEM}).")
    accession = _numbers(site, body, place).get("ACSN")
    placer = _based_on(body, place, order)
    if accession is None and placer is None:
        raise bad(f"{place}.identifier", "a study names its order by basedOn or by its accession number (type ACSN).")
    code, system, text = _procedure(body, "procedureCode", place)
    modality = next((text_at(each, "code", place, 16) for each in objects_at(body, "modality", place)), None)
    return OrderCommand(
        Action.NEW,
        assigner=(placer or accession or ("", ""))[0],
        placer_number=placer[1] if placer else None,
        accession_number=accession[1] if accession else None,
        accession_assigner=accession[0] if accession else "",
        study_instance_uid=uid,
        patient=_patient(site, body, place, patient),
        procedure_code=code,
        procedure_system=system,
        procedure_text=text,
        modality=modality,
        scheduled_at=_time(body, "started", place),
        place=place,
    )


def condition_of(site: FhirSite, header: str) -> OrderCondition:
    """The condition in If-None-Exist: `identifier=system|value`. Raises Refusal for what Inlay cannot promise."""
    pairs = parameters.form(header.lstrip("?").encode("ascii", "replace"))
    if len(pairs) != 1 or pairs[0][0] != "identifier":
        raise Refusal(400, "not-supported", "If-None-Exist is identifier=system|value here.")
    wanted = parameters.token("If-None-Exist", pairs[0][1])
    if not wanted.system:
        raise Refusal(400, "not-supported", "If-None-Exist is identifier=system|value here.")
    if wanted.system == UID_SYSTEM:
        return OrderCondition(study_instance_uid=wanted.code.removeprefix("urn:oid:"))
    return OrderCondition(tuple((assigner, wanted.code) for assigner in assigners(site, wanted.system)))


def _numbers(site: FhirSite, body: Json, place: str) -> dict[str, Number]:
    """The business identifiers by their type (table 0203); one without a type is the placer's."""
    found: dict[str, Number] = {}
    for n, each in enumerate(objects_at(body, "identifier", place)):
        where = f"{place}.identifier[{n}]"
        system, value = text_at(each, "system", where, 255), text_at(each, "value", where, 255)
        if system == UID_SYSTEM:
            continue
        if system is None or value is None:
            raise bad(where, "an identifier has system and value.")
        kind = _type_of(each, where) or ("ACSN" if place == "ImagingStudy" else "PLAC")
        if kind in ("PLAC", "FILL", "ACSN") and found.setdefault(kind, (assigners(site, system)[0], value))[1] != value:
            raise bad(where, f"there is one identifier of type {kind}.")
    return found


def _type_of(identifier: Json, place: str) -> str | None:
    codings = objects_at(object_at(identifier, "type", place), "coding", place)
    return next((str(c.get("code")) for c in codings if c.get("system") in (V2_0203, None)), None)


def _study_uid(body: Json, place: str) -> str | None:
    for n, each in enumerate(objects_at(body, "identifier", place)):
        if each.get("system") == UID_SYSTEM:
            uid = (text_at(each, "value", f"{place}.identifier[{n}]", 80) or "").removeprefix("urn:oid:")
            if not is_uid(uid):
                raise bad(f"{place}.identifier[{n}]", "a StudyInstanceUID is urn:oid: and a UID.")
            return uid
    return None


def _patient(site: FhirSite, body: Json, place: str, find: FindPatient) -> PatientFields:
    """The subject: a patient that is known here, one that is contained, or one by identifier."""
    subject = object_at(body, "subject", place)
    target = text_at(subject, "reference", f"{place}.subject", 255)
    if target and target.startswith("#"):
        contained = (each for each in objects_at(body, "contained", place) if each.get("id") == target[1:])
        found = next((each for each in contained if each.get("resourceType") == "Patient"), None)
        if found is None:
            raise bad(f"{place}.subject.reference", "no such contained Patient.")
        return _stated_patient(site, found, "Patient")
    if target and (identity := target.rpartition("Patient/")[2]) != target:
        known = find(identity)
        return PatientFields(known.assigner, known.identifier)
    number = _number_of(site, object_at(subject, "identifier", f"{place}.subject"), f"{place}.subject.identifier")
    if number is None:
        raise bad(f"{place}.subject", "Patient/<id>, a contained Patient, or an identifier with system and value.")
    return PatientFields(*number)


def _stated_patient(site: FhirSite, body: Json, place: str) -> PatientFields:
    identifiers = objects_at(body, "identifier", place)
    record_numbers = [each for each in identifiers if _type_of(each, place) == "MR"] or identifiers
    record = record_numbers[0] if record_numbers else {}
    number = _number_of(site, record, f"{place}.identifier")
    if number is None:
        raise bad(f"{place}.identifier", "a patient has a record number with its system.")
    name = next(iter(objects_at(body, "name", place)), None)
    gender = text_at(body, "gender", place, 16)
    if gender not in (None, "male", "female", "other", "unknown"):
        raise bad(f"{place}.gender", "male, female, other or unknown.")
    return PatientFields(*number, name=_name(name) if name else None, birth_date=_birth_date(body, place), sex=gender)


def _number_of(site: FhirSite, identifier: Json, place: str) -> Number | None:
    system, value = text_at(identifier, "system", place, 255), text_at(identifier, "value", place, 255)
    return (assigners(site, system)[0], value) if system and value else None


def _name(name: Json) -> PersonName:
    place = "Patient.name"

    def words(key: str) -> str:
        parts = name.get(key, [])
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or len(parts) > 20:
            raise bad(f"{place}.{key}", "a list of strings.")
        return " ".join(parts)[:255]

    given, _, middle = words("given").partition(" ")
    family = text_at(name, "family", place, 255) or text_at(name, "text", place, 255) or ""
    return PersonName(family, given, middle, words("prefix"), words("suffix"))


def _birth_date(body: Json, place: str) -> date | None:
    text = text_at(body, "birthDate", place, 10)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise bad(f"{place}.birthDate", "a date YYYY-MM-DD.") from None


def _procedure(body: Json, name: str, place: str) -> tuple[str | None, str | None, str | None]:
    """(code, code system as orders state it, text); the first coding counts."""
    stated: Any = body.get(name)
    concept = stated[0] if isinstance(stated, list) and stated else stated
    if concept is None:
        return None, None, None
    if not isinstance(concept, dict):
        raise bad(f"{place}.{name}", "a CodeableConcept.")
    where = f"{place}.{name}"
    coding = next(iter(objects_at(concept, "coding", where)), {})
    system = text_at(coding, "system", where, 255)
    text = text_at(concept, "text", where, 1000) or text_at(coding, "display", where, 1000)
    return text_at(coding, "code", where, 255), code_system_name(system) if system else None, text


def _modality(details: list[Json]) -> str | None:
    """The first code of DICOM's among the order's details (context group 29)."""
    codings = (c for detail in details for c in objects_at(detail, "coding", "ServiceRequest.orderDetail"))
    found = next((c for c in codings if c.get("system") == DICOM), {})
    return text_at(found, "code", "ServiceRequest.orderDetail", 16)


def _reason(body: Json, place: str) -> str | None:
    texts = [text_at(each, "text", f"{place}.reasonCode") for each in objects_at(body, "reasonCode", place)]
    return "\n".join(text for text in texts if text) or None


def _priority(body: Json, place: str) -> Priority | None:
    text = text_at(body, "priority", place, 16)
    if text is not None and text not in _PRIORITIES:
        raise bad(f"{place}.priority", f"one of {', '.join(_PRIORITIES)}.")
    return _PRIORITIES[text] if text else None


def _provider(body: Json, place: str) -> Provider | None:
    requester = object_at(body, "requester", place)
    number = text_at(object_at(requester, "identifier", f"{place}.requester"), "value", f"{place}.requester", 255)
    shown = text_at(requester, "display", f"{place}.requester", 255)
    return Provider(number, PersonName(shown) if shown else None) if number or shown else None


def _time(body: Json, name: str, place: str) -> datetime | None:
    text = text_at(body, name, place, 64)
    if text is None:
        return None
    if not _MOMENT.fullmatch(text):
        raise bad(f"{place}.{name}", "a date with time and zone.")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad(f"{place}.{name}", "there is no such time.") from None


def _based_on(body: Json, place: str, order: FindNumber) -> Number | None:
    for n, each in enumerate(objects_at(body, "basedOn", place)):
        target = text_at(each, "reference", f"{place}.basedOn[{n}]", 255) or ""
        identity = target.rpartition("ServiceRequest/")[2]
        if identity and identity != target:
            return order(identity)
    return None
