"""The search parameters of DiagnosticReport, each with what it restricts; the capability statement lists this table.

https://hl7.org/fhir/R4/diagnosticreport.html#search, US Core 8 (DiagnosticReport for report exchange), IHE RAD-143
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from inlay_core.application.ports import ReportSearch, TimeBound
from inlay_fhir import parameters
from inlay_fhir.mapping.diagnostic_report import CATEGORIES, STATUS_SYSTEM, statuses
from inlay_fhir.mapping.naming import IMAGING_STUDY_CODE, LOINC, UID_SYSTEM, assigners, code_system_names
from inlay_fhir.outcome import Refusal
from inlay_fhir.parameters import Token
from inlay_fhir.site import FhirSite


class Narrowing:
    """A search that gets narrower with each parameter: values of one are alternatives, parameters are all required."""

    def __init__(self, site: FhirSite, base_url: str) -> None:
        self.site = site
        self.base_url = base_url
        self._fields: dict[str, tuple[Any, ...]] = {}
        self._bounds: dict[str, tuple[TimeBound, ...]] = {}
        self._nothing = False

    def to(self, name: str, values: list[Any]) -> None:
        """Only reports whose field has one of `values`, and one of those asked for before."""
        wanted = tuple(dict.fromkeys(values))
        if name in self._fields:
            wanted = tuple(
                both for old in self._fields[name] for new in wanted if (both := _both(old, new)) is not None
            )
        self._nothing = self._nothing or not wanted
        self._fields[name] = wanted

    def within(self, name: str, bound: TimeBound) -> None:
        """Only reports whose time is inside the bound."""
        self._bounds[name] = (*self._bounds.get(name, ()), bound)

    def search(self) -> ReportSearch:
        """The search as the core takes it."""
        if self._nothing:
            return ReportSearch(statuses=())
        return ReportSearch(**self._fields, **self._bounds)  # type: ignore[arg-type]


def _both(old: Any, new: Any) -> Any:
    """What fits both alternatives, None if nothing does; pairs are (owner or None for any, value)."""
    if old == new:
        return old
    if not (isinstance(old, tuple) and isinstance(new, tuple)) or old[1] != new[1] or None not in (old[0], new[0]):
        return None
    return (new[0] if old[0] is None else old[0], old[1])


Restrict = Callable[[Narrowing, str, str], None]
"""Narrows the search by one parameter: (search, parameter's name, its value)."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter: its name, FHIR type, what it does in words and in fact, and other names it goes by."""

    name: str
    type: str
    documentation: str
    restrict: Restrict
    others: tuple[str, ...] = field(default=())


def _ids(search: Narrowing, _: str, value: str) -> None:
    search.to("ids", [parameters.unescaped(text) for text in parameters.alternatives(value)])


def _references(target: str, resource: str) -> Restrict:
    def restrict(search: Narrowing, _: str, value: str) -> None:
        found = (parameters.referenced(t, resource, search.base_url) for t in parameters.alternatives(value))
        search.to(target, [identity for identity in found if identity is not None])

    return restrict


def _tokens(name: str, value: str) -> list[Token]:
    return [parameters.token(name, text) for text in parameters.alternatives(value)]


def _identifiers(target: str) -> Restrict:
    def restrict(search: Narrowing, name: str, value: str) -> None:
        pairs: list[tuple[str | None, str]] = []
        for wanted in _tokens(name, value):
            owners = assigners(search.site, wanted.system) if wanted.system is not None else (None,)
            pairs += [(owner, wanted.code) for owner in owners]
        search.to(target, pairs)

    return restrict


def _study_identifier(search: Narrowing, name: str, value: str) -> None:
    wanted = [t for t in _tokens(name, value) if t.system in (None, UID_SYSTEM)]
    search.to("study_instance_uids", [token.code.removeprefix("urn:oid:") for token in wanted])


def _status(search: Narrowing, name: str, value: str) -> None:
    wanted = [token.code for token in _tokens(name, value) if token.system in (None, STATUS_SYSTEM)]
    search.to("statuses", [status for code in wanted for status in statuses(search.site, code)])


def _category(search: Narrowing, name: str, value: str) -> None:
    """Every report is in the same categories: one that is asked for restricts nothing, another one everything."""
    known = {(system, code) for system, code, _ in CATEGORIES} | {(None, code) for _, code, _ in CATEGORIES}
    if not any((token.system, token.code) in known for token in _tokens(name, value)):
        search.to("statuses", [])


def _code(search: Narrowing, name: str, value: str) -> None:
    pairs: list[tuple[str | None, str]] = []
    for wanted in _tokens(name, value):
        if wanted.code == IMAGING_STUDY_CODE and wanted.system in (None, LOINC):
            pairs.append((None, ""))  # What reports are called whose order names no code.
        names = code_system_names(wanted.system) if wanted.system is not None else (None,)
        pairs += [(system, wanted.code) for system in names]
    search.to("procedures", pairs)


def _dates(target: str) -> Restrict:
    def restrict(search: Narrowing, name: str, value: str) -> None:
        if len(parameters.alternatives(value)) != 1:
            raise Refusal(400, "not-supported", f"Search parameter {name}: one date each; repeat it for a period.")
        bound = parameters.bound(name, value)
        search.within(target, TimeBound(bound.op, bound.start, bound.end))

    return restrict


_PATIENT_IDENTIFIER: Final = _identifiers("patient_identifiers")
_ACCESSION: Final = _identifiers("accessions")

PARAMETERS: Final = (
    Parameter("_id", "token", "Logical id.", _ids),
    Parameter("_lastUpdated", "date", "When this version was made.", _dates("last_updated")),
    Parameter(
        "patient",
        "reference",
        "The patient, as `Patient/<id>`, an id, or the full URL.",
        _references("patient_ids", "Patient"),
        ("subject", "patient:Patient", "subject:Patient"),
    ),
    Parameter(
        "patient.identifier",
        "token",
        "The patient's record number, with or without its system.",
        _PATIENT_IDENTIFIER,
        (
            "subject.identifier",
            "patient:identifier",
            "subject:identifier",
            "patient:Patient.identifier",
            "subject:Patient.identifier",
        ),
    ),
    Parameter("identifier", "token", "The accession number.", _ACCESSION),
    Parameter(
        "based-on",
        "reference",
        "The order, as `ServiceRequest/<id>`, an id, or the full URL.",
        _references("order_ids", "ServiceRequest"),
        ("basedOn", "based-on:ServiceRequest", "basedOn:ServiceRequest"),
    ),
    Parameter(
        "based-on.identifier",
        "token",
        "The accession number of the order.",
        _ACCESSION,
        (
            "basedOn.identifier",
            "based-on:identifier",
            "basedOn:identifier",
            "based-on:ServiceRequest.identifier",
            "basedOn:ServiceRequest.identifier",
        ),
    ),
    Parameter(
        "imaging-study",
        "reference",
        "The study, as `ImagingStudy/<StudyInstanceUID>` (IHE RAD-143; R4 has no such parameter).",
        _references("study_instance_uids", "ImagingStudy"),
        ("imagingStudy", "imaging-study:ImagingStudy", "imagingStudy:ImagingStudy"),
    ),
    Parameter(
        "imaging-study.identifier",
        "token",
        "`urn:dicom:uid|urn:oid:<StudyInstanceUID>`.",
        _study_identifier,
        ("imagingStudy.identifier", "imaging-study:identifier", "imagingStudy:identifier"),
    ),
    Parameter("status", "token", "DiagnosticReport.status.", _status),
    Parameter("category", "token", "Every report is in `LP29684-5` (LOINC) and `RAD` (v2-0074).", _category),
    Parameter("code", "token", "The procedure's code, with or without its system.", _code),
    Parameter("date", "date", "When the study took place, or is to (`effectiveDateTime`).", _dates("studied")),
    Parameter("issued", "date", "When a clinician signed.", _dates("signed")),
)

BY_NAME: Final = {name: parameter for parameter in PARAMETERS for name in (parameter.name, *parameter.others)}


def restriction(name: str) -> Restrict | None:
    """What the parameter `name` (modifier included) restricts; None when there is no such parameter.

    Raises Refusal for a modifier that a known parameter does not take: ignoring it would turn the question round.
    """
    found = BY_NAME.get(name)
    if found is None and name.partition(":")[0] in BY_NAME and ":" in name:
        raise Refusal(400, "not-supported", f"Search parameter {name.partition(':')[0]}: no such modifier here.")
    return found.restrict if found else None
