"""A signed report as a Basic Text SR document (PS3.3 A.35.1), verified by whoever signed it.

The same report gives the same dataset, its UIDs included, so that it can be sent again without becoming another object.
"""

from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import BasicTextSRStorage

from inlay_dicom.signed_report import (
    CONTROL,
    REPORT_TITLE,
    SignedReport,
    code,
    content_item,
    describe_series,
    display_name,
    new_document,
    observed_by,
    offset,
    one_line,
    references,
    request_of,
    uid,
)

# PS3.16 CID 7001 and 7002 in LOINC and DICOM codes: the heading of a section, and what its text is.
_SECTIONS: Final = {
    "indication": (("18785-6", "LN", "Indications for Procedure"), ("121060", "DCM", "History")),
    "technique": (("55111-9", "LN", "Current Procedure Descriptions"), ("121065", "DCM", "Procedure Description")),
    "comparison": (("18834-2", "LN", "Previous Findings"), ("121069", "DCM", "Previous Finding")),
    "findings": (("59776-5", "LN", "Findings"), ("121071", "DCM", "Finding")),
    "impression": (("19005-8", "LN", "Impressions"), ("121073", "DCM", "Impression")),
}
_NOTICE: Final = ("121106", "DCM", "Comment")


def instance_uid(report_id: str, version: int) -> str:
    """The SOP Instance UID of a version's document."""
    return uid(f"sr|{report_id}|{version}")


def series_uid(report_id: str) -> str:
    """The series of all versions' documents."""
    return uid(f"sr-series|{report_id}")


def basic_text_sr(report: SignedReport) -> Dataset:
    """The document. Raises ValueError, naming the attribute, for an identifier that its attribute cannot hold."""
    document = new_document(report, BasicTextSRStorage, instance_uid(report.report_id, report.version))
    _describe_document(document, report)
    document.ValueType = "CONTAINER"
    document.ConceptNameCodeSequence = code(REPORT_TITLE)
    document.ContinuityOfContent = "SEPARATE"
    document.ContentSequence = Items(_content(report))
    return document


def _describe_document(document: Dataset, report: SignedReport) -> None:
    describe_series(document, report, "SR", series_uid(report.report_id), "9001")
    document.ReferencedPerformedProcedureStepSequence = Items()
    document.CompletionFlag = "COMPLETE"
    document.VerificationFlag = "VERIFIED"
    document.VerifyingObserverSequence = Items([_verifier(report)])
    document.ReferencedRequestSequence = Items([request_of(report)])
    document.PerformedProcedureCodeSequence = Items()
    if report.predecessor is not None:
        earlier = instance_uid(report.report_id, report.predecessor)
        document.PredecessorDocumentsSequence = references(
            report, {series_uid(report.report_id): [(BasicTextSRStorage, earlier)]}
        )


def _verifier(report: SignedReport) -> Dataset:
    verifier = Dataset()
    verifier.VerifyingObserverName = display_name(report.signer)
    verifier.VerifyingObserverIdentificationCodeSequence = Items()
    verifier.VerifyingOrganization = one_line(report.organization)
    verifier.VerificationDateTime = report.signed_at.strftime("%Y%m%d%H%M%S") + offset(report.signed_at)
    return verifier


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _content(report: SignedReport) -> list[Dataset]:
    notice = [_text(_NOTICE, report.notice)] if report.notice else []
    return [
        *observed_by(report.signer),
        *notice,
        *(_section(*section) for section in report.sections if section[1].strip()),
    ]


def _section(name: str, text: str) -> Dataset:
    heading, concept = _SECTIONS[name]
    container = content_item("CONTAINS", "CONTAINER", heading)
    container.ContinuityOfContent = "SEPARATE"
    container.ContentSequence = Items([_text(concept, text)])
    return container


def _text(concept: tuple[str, str, str], text: str) -> Dataset:
    item = content_item("CONTAINS", "TEXT", concept)
    # UT ends its lines with CR LF; a blank at the end is not significant and would be lost on the way (PS3.5 6.2).
    item.TextValue = CONTROL.sub(" ", "\r\n".join(text.splitlines())).rstrip(" ")
    return item
