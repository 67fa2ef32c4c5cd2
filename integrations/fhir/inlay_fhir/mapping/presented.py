"""The forms in which a whole report is presented: exact text, HTML, and PDF where the site's font has every glyph.

https://hl7.org/fhir/R4/diagnosticreport-definitions.html#DiagnosticReport.presentedForm. Each says what is AI-made.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from inlay_core.application.ports import ReportRow
from inlay_core.domain.report import Report
from inlay_fhir.elements import Json, attachment, instant, writable
from inlay_fhir.mapping.naming import IMAGING_STUDY_NAME
from inlay_fhir.narrative import escaped
from inlay_fhir.site import FhirSite

TITLE: Final = "Radiology report"
Facts = tuple[tuple[str, str], ...]


def titled(report: Report) -> list[tuple[str, str]]:
    """The sections that have words, with their titles."""
    return [(section.name.capitalize(), section.text) for section in report.sections if section.text.strip()]


def presented_forms(site: FhirSite, row: ReportRow, notice: str) -> list[Json] | None:
    """The forms as Attachments, the exact text first; None while there are no words."""
    sections = titled(row.report)
    if not sections:
        return None
    facts = _facts(site, row)
    text = plain_text(row.report, notice).encode("utf-8")
    forms = [(text, "text/plain; charset=utf-8"), (_html(notice, facts, sections), "text/html; charset=utf-8")]
    pdf = site.pdf(TITLE, notice, facts, tuple(sections)) if site.pdf else None
    if pdf is not None:
        forms.append((pdf, "application/pdf"))
    created = instant(row.report.updated_at)
    return [attachment(data, kind, title=TITLE, creation=created) for data, kind in forms]


def plain_text(report: Report, notice: str) -> str:
    """The whole report as one text, the notice first; each section's words are exactly the stored ones."""
    parts = [notice] if notice else []
    parts += [f"{title.upper()}\n{text}" for title, text in titled(report)]
    return "\n\n".join(parts)


def _facts(site: FhirSite, row: ReportRow) -> Facts:
    """Whose report it is and how far it has come: a page that lies on a desk has to say so."""
    report, order = row.report, row.order
    patient, signature = order.patient, report.signature if report.is_signed else None
    born = patient.birth_date.isoformat() if patient.birth_date else ""
    studied = order.studied_at or order.scheduled_at
    facts = (
        ("Patient", f"{patient.name.text}, {patient.identifier}" if patient.name else patient.identifier),
        ("Born", born),
        ("Accession number", order.accession_number or ""),
        ("Procedure", order.procedure.text or order.procedure.code or IMAGING_STUDY_NAME),
        ("Study", _moment(site, studied) if studied else ""),
        ("Status", f"{report.status}, version {report.version}"),
        ("Signed", f"{signature.signer_name}, {_moment(site, signature.signed_at)}" if signature else ""),
    )
    return tuple((name, writable(value)) for name, value in facts if value.strip())


def _moment(site: FhirSite, moment: datetime) -> str:
    """The time on the site's clocks, to the minute."""
    return moment.astimezone(site.zone).strftime("%Y-%m-%d %H:%M %Z")


def _html(notice: str, facts: Facts, sections: list[tuple[str, str]]) -> bytes:
    """A whole page without scripts, styles or links; text is escaped, so that it cannot bring any."""
    rows = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in facts)
    words = "".join(f"<h2>{escaped(title)}</h2><p>{escaped(text)}</p>" for title, text in sections)
    told = f"<p><strong>{escaped(notice)}</strong></p>" if notice else ""
    page = (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><title>{TITLE}</title></head>'
        f"<body><h1>{TITLE}</h1>{told}<table>{rows}</table>{words}</body></html>"
    )
    return page.encode("utf-8")
