"""Which elements of a report still hold words of the model that nobody has verified, and the labels that say so.

DS4P inline security labels (http://hl7.org/fhir/uv/security-label-ds4p) beside AIAST on the whole. A lock or an edit by
a clinician verifies a fragment, a signature all of them; infill makes new words that are not verified.
"""

from __future__ import annotations

from typing import Any, Final

from inlay_core.domain.fragment import Fragment, Origin
from inlay_core.domain.report import Report
from inlay_fhir.elements import AI_ASSERTED, Json

_INLINE: Final = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label"
INLINE_LABELS: Final[Json] = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "code": "PROCESSINLINELABEL",
    "display": "process inline security label",
}
_TARGET_PATH: Final = "http://hl7.org/fhir/StructureDefinition/targetPath"
_LABEL: Final[Json] = {"extension": [{"url": _INLINE, "valueCoding": AI_ASSERTED}]}


def is_unverified(fragment: Fragment) -> bool:
    """Whether its words are the model's and no clinician has locked them."""
    return fragment.origin is Origin.MODEL and not fragment.locked


def unverified_elements(report: Report) -> tuple[str, ...]:
    """The elements of the DiagnosticReport that hold such words: text, conclusion, presentedForm."""
    sections = [] if report.is_signed else [s for s in report.sections if any(map(is_unverified, s.fragments))]
    if not sections:
        return ()
    concluded = any(section.name == "impression" for section in sections)
    return ("text", *(["conclusion"] if concluded else []), "presentedForm")


def labelled(resource: Json, report: Report) -> Json:
    """The DiagnosticReport with inline labels where they belong, and the label that announces them."""
    elements = [name for name in unverified_elements(report) if name in resource]
    if not elements:
        return resource
    meta = resource["meta"]
    found: dict[str, Any] = {}
    for name, value in resource.items():
        if name == "meta":
            found[name] = {**meta, "security": [*meta.get("security", ()), INLINE_LABELS]}
        elif name not in elements:
            found[name] = value
        elif isinstance(value, list):
            found[name] = [_LABEL | each for each in value]
        elif isinstance(value, dict):
            found[name] = _LABEL | value
        else:
            found |= {name: value, f"_{name}": _LABEL}
    return found


def element_targets(report: Report, target: str) -> list[Json]:
    """Targets of a Provenance for the elements that the model still answers for."""
    return [
        {
            "extension": [{"url": _TARGET_PATH, "valueString": f"DiagnosticReport.{name}"}],
            "reference": target,
        }
        for name in unverified_elements(report)
    ]
