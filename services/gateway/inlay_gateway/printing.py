"""The PDF of a report version for results: the same words as in the message, with the patient and the notice on top."""

from __future__ import annotations

from functools import lru_cache

from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_core.printing import Printed, Printer


@lru_cache(1)
def _printer(font: str = "") -> Printer:
    return Printer(font)


def printed_result(report: Report, order: Order, notice: str, font: str = "") -> bytes | None:
    """The page; None when a character has no glyph in the font: the text of the message is complete without it."""
    patient, signature = order.patient, report.signature if report.is_signed else None
    facts = (
        ("Patient", f"{patient.name.text}, {patient.identifier}" if patient.name else patient.identifier),
        ("Born", patient.birth_date.isoformat() if patient.birth_date else ""),
        ("Accession number", order.accession_number or ""),
        ("Procedure", order.procedure.text or order.procedure.code or ""),
        ("Status", f"{report.status}, version {report.version}"),
        ("Signed", f"{signature.signer_name}, {signature.signed_at:%Y-%m-%d %H:%M} UTC" if signature else ""),
    )
    sections = tuple((each.name.capitalize(), each.text) for each in report.sections if each.text.strip())
    return _printer(font).page(Printed("Radiology report", notice, tuple(f for f in facts if f[1].strip()), sections))
