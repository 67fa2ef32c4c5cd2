"""Parts of resources: `_summary` (true, text, data) and `_elements`. What was cut is tagged SUBSETTED.

https://hl7.org/fhir/R4/search.html#summary, #elements
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from inlay_fhir import parameters
from inlay_fhir.elements import Json
from inlay_fhir.parameters import Pair

Cut = Callable[[Json], Json]

_SUBSETTED: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
    "display": "subsetted",
}
_ALWAYS: Final = frozenset({"resourceType", "id", "meta"})
# Elements without which a resource is not valid (minimum 1); US Core asks for category and subject as well.
_REQUIRED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "DiagnosticReport": frozenset({"status", "category", "code", "subject"}),
        "ServiceRequest": frozenset({"status", "intent", "subject"}),
        "ImagingStudy": frozenset({"status", "subject"}),
        "Provenance": frozenset({"target", "recorded", "agent"}),
        "Task": frozenset({"status", "intent"}),
        "AuditEvent": frozenset({"type", "recorded", "agent", "source"}),
        "Subscription": frozenset({"status", "reason", "criteria", "channel"}),
    }
)
# What R4 marks with a sigma, as far as Inlay emits it.
_SUMMARY: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "DiagnosticReport": frozenset(
            {"identifier", "effectiveDateTime", "issued", "performer", "resultsInterpreter"},
        ),
        "ServiceRequest": frozenset(
            {"identifier", "category", "priority", "code", "occurrenceDateTime", "requester", "reasonCode"}
        ),
        "ImagingStudy": frozenset({"identifier", "modality", "started", "basedOn", "procedureCode"}),
        "Patient": frozenset({"identifier", "name", "gender", "birthDate"}),
        "Provenance": frozenset({"entity"}),
        "Device": frozenset({"identifier", "status", "type"}),
        "Task": frozenset({"statusReason", "businessStatus", "code", "focus", "executionPeriod", "lastModified"}),
        "AuditEvent": frozenset({"subtype", "action", "outcome"}),
        "Subscription": frozenset({"end"}),
    }
)
# Answers about answers: their entries are cut, they themselves are not.
_WHOLE: Final = frozenset({"Bundle", "OperationOutcome", "CapabilityStatement", "OperationDefinition", "Parameters"})
MODES: Final = frozenset({"true", "text", "data", "false"})


def cut_of(query: Iterable[Pair]) -> Cut:
    """What a query leaves of a resource. An unknown `_summary` or an empty `_elements` leaves everything."""
    pairs = list(query)
    mode, listed = parameters.last(pairs, "_summary"), parameters.last(pairs, "_elements")
    if mode in MODES - {"false"}:
        return lambda resource: summarised(resource, mode)
    if listed:
        # `DiagnosticReport.status` is as good as `status`.
        wanted = frozenset(name.strip().rpartition(".")[2] for name in listed.split(","))
        return lambda resource: _elements(resource, wanted | {f"_{name}" for name in wanted})
    return lambda resource: resource


def summarised(resource: Json, mode: str) -> Json:
    """The resource as `_summary` wants it."""
    kind = resource["resourceType"]
    if kind in _WHOLE:
        return resource
    if mode == "data":
        return _tagged({name: value for name, value in resource.items() if name != "text"})
    return _only(resource, frozenset({"text"}) if mode == "text" else _SUMMARY.get(kind, frozenset()))


def _elements(resource: Json, wanted: frozenset[str]) -> Json:
    return resource if resource["resourceType"] in _WHOLE else _only(resource, wanted)


def _only(resource: Json, wanted: frozenset[str]) -> Json:
    kept = _ALWAYS | wanted | _REQUIRED.get(resource["resourceType"], frozenset())
    return _tagged({name: value for name, value in resource.items() if name in kept})


def _tagged(resource: Json) -> Json:
    meta = resource.get("meta", {})
    return {**resource, "meta": {**meta, "tag": [*meta.get("tag", ()), _SUBSETTED]}}
