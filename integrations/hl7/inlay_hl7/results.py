"""ORU^R01, the result message (HL7 v2.5.1, chapter 7): one OBX per section of the report, status in OBR-25 and OBX-11.

The same `Result` always gives the same bytes, so that a message can be sent again under the same control id.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType

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
from inlay_hl7.times import format_time

# Section codes of DICOM PS3.20, "Imaging Reports using HL7 Clinical Document Architecture", section 9.
SECTION_CODES: Mapping[str, Coded] = MappingProxyType(
    {
        "indication": Coded("18785-6", "Radiology Reason for study (narrative)", "LN"),
        "technique": Coded("55111-9", "Current imaging procedure descriptions Document", "LN"),
        "comparison": Coded("18834-2", "Radiology Comparison study (narrative)", "LN"),
        "findings": Coded("59776-5", "Procedure findings Narrative", "LN"),
        "impression": Coded("19005-8", "Radiology Imaging study [Impression] (narrative)", "LN"),
    }
)
WHOLE_REPORT = Coded("18748-4", "Diagnostic imaging study", "LN")
PDF = Coded("PDF", "Report as PDF", "L")
BANNER = Coded("INLAY-BANNER", "Notice on machine-made text", "L")

CANCELLED_TEXT = "Cancelled before a report was signed."
WITHDRAWN_TEXT = "Withdrawn: entered in error."


class ResultStatus(Enum):
    """OBR-25 (table 0123) and OBX-11 (table 0085)."""

    DRAFT = ("R", "R")
    SIGNED = ("F", "F")
    CORRECTED = ("C", "C")
    CANCELLED = ("X", "X")
    WITHDRAWN = ("C", "W")  # table 0123 has no W: the order's result is corrected, its text was wrong

    @property
    def of_order(self) -> str:
        """OBR-25."""
        return self.value[0]

    @property
    def of_text(self) -> str:
        """OBX-11."""
        return self.value[1]

    @property
    def is_attested(self) -> bool:
        """Whether a clinician stands behind it."""
        return self not in (ResultStatus.DRAFT, ResultStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Result:
    """What an ORU says. `sections` are name and text in the order of the report; `banner` is a notice before them.

    `interpreter` is the clinician who signed, and belongs to attested results only.
    """

    envelope: Envelope
    patient: PatientFields
    status: ResultStatus
    report_id: str
    reported_at: datetime
    sections: tuple[tuple[str, str], ...] = ()
    banner: str = ""
    placer_number: str = ""
    filler_number: str = ""
    accession_number: str = ""
    procedure: Coded = WHOLE_REPORT
    modality: str = ""
    ordering_provider: Person = NOBODY
    interpreter: Person = NOBODY
    study_instance_uid: str = ""
    # The whole report as a PDF; empty for none.
    pdf: bytes = b""

    def __post_init__(self) -> None:
        if self.status is ResultStatus.DRAFT and self.interpreter != NOBODY:
            raise ValueError("a draft has no interpreter")


def build_result(result: Result) -> bytes:
    """The payload of an ORU^R01. Raises UnicodeEncodeError for text with lone surrogates."""
    header = msh(result.envelope, ("ORU", "R01", "ORU_R01"))
    return message([header, pid(result.patient), _orc(result), _obr(result), *_observations(result)])


def _orc(result: Result) -> str:
    status = {ResultStatus.DRAFT: "IP", ResultStatus.CANCELLED: "CA"}.get(result.status, "CM")
    return segment(
        "ORC",
        {1: "RE", 2: escape(result.placer_number), 3: escape(result.filler_number), 5: status, 12: _orderer(result)},
    )


def _obr(result: Result) -> str:
    interpreter = result.interpreter if result.status.is_attested else NOBODY
    return segment(
        "OBR",
        {
            1: "1",
            2: escape(result.placer_number),
            3: escape(result.filler_number),
            4: coded(result.procedure),
            16: _orderer(result),
            18: escape(result.accession_number),
            22: format_time(result.reported_at),
            24: escape(result.modality),
            25: result.status.of_order,
            32: components(interpreter.identifier, interpreter.family, interpreter.given, separator="&"),
        },
    )


def _orderer(result: Result) -> str:
    person = result.ordering_provider
    return components(person.identifier, person.family, person.given, person.middle, person.suffix, person.prefix)


def _observations(result: Result) -> list[str]:
    if result.status is ResultStatus.CANCELLED:
        rows = [(WHOLE_REPORT, CANCELLED_TEXT)]
    elif result.status is ResultStatus.WITHDRAWN:
        # The receiver matches by OBX-3: each section that it was sent is replaced by the notice.
        rows = [(_code(name), WITHDRAWN_TEXT) for name, _ in result.sections] or [(WHOLE_REPORT, WITHDRAWN_TEXT)]
    else:
        rows = [(BANNER, result.banner)] if result.banner else []
        rows += [(_code(name), text) for name, text in result.sections]
    texts = [_obx(number, code, text, result) for number, (code, text) in enumerate(rows, start=1)]
    return [*texts, _pdf(len(texts) + 1, result)] if result.pdf else texts


def _pdf(number: int, result: Result) -> str:
    """ED: source, type of data, subtype, encoding, data. Base64 needs no escapes (chapter 2A, ED)."""
    data = base64.b64encode(result.pdf).decode("ascii")
    return segment(
        "OBX",
        {
            1: str(number),
            2: "ED",
            3: coded(PDF),
            4: "1",
            5: f"^application^pdf^Base64^{data}",
            11: result.status.of_text,
            14: format_time(result.reported_at),
        },
    )


def _code(section: str) -> Coded:
    return SECTION_CODES.get(section) or replace(WHOLE_REPORT, code=section.upper(), text=section, system="L")


def _obx(number: int, code: Coded, text: str, result: Result) -> str:
    # TX has no line breaks; FT has `\.br\` for them (chapter 2A).
    kind = "FT" if "\n" in text or "\r" in text else "TX"
    return segment(
        "OBX",
        {
            1: str(number),
            2: kind,
            3: coded(code),
            4: "1",
            5: escape(text),
            11: result.status.of_text,
            14: format_time(result.reported_at),
        },
    )
