"""A signed report as a Basic Text SR document (PS3.3 A.35.1), verified by whoever signed it.

The same report gives the same dataset, its UIDs included, so that it can be sent again without becoming another object.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

# PS3.16 CID 7001 and 7002 in LOINC and DICOM codes: the heading of a section, and what its text is.
_SECTIONS: Final = {
    "indication": (("18785-6", "LN", "Indications for Procedure"), ("121060", "DCM", "History")),
    "technique": (("55111-9", "LN", "Current Procedure Descriptions"), ("121065", "DCM", "Procedure Description")),
    "comparison": (("18834-2", "LN", "Previous Findings"), ("121069", "DCM", "Previous Finding")),
    "findings": (("59776-5", "LN", "Findings"), ("121071", "DCM", "Finding")),
    "impression": (("19005-8", "LN", "Impressions"), ("121073", "DCM", "Impression")),
}
_TITLE: Final = ("18748-4", "LN", "Diagnostic Imaging Report")
_NOTICE: Final = ("121106", "DCM", "Comment")
_SEX: Final = {"male": "M", "female": "F", "other": "O"}
# PS3.5 6.2: what a text may not hold, and what separates the parts of a name.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_SEPARATORS: Final = re.compile(r"[\\^=\x00-\x1f]")
_LONG_STRING: Final = 64


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name by its parts, in the order of PN."""

    family: str = ""
    given: str = ""
    middle: str = ""
    prefix: str = ""
    suffix: str = ""

    @property
    def pn(self) -> str:
        """As a PN value (PS3.5 6.2.1), separators in its parts replaced; empty parts at the end are left out."""
        parts = (self.family, self.given, self.middle, self.prefix, self.suffix)
        return "^".join(_SEPARATORS.sub(" ", part).strip() for part in parts).rstrip("^")[:_LONG_STRING]


@dataclass(frozen=True, slots=True)
class SignedReport:
    """What a document says; its times are written in the zone that they carry.

    `predecessor` is the version that this one amends, None for the first signed one.
    """

    report_id: str
    version: int
    study_instance_uid: str
    patient_id: str
    signed_at: datetime
    signer: str
    organization: str
    sections: Sequence[tuple[str, str]]
    patient_issuer: str = ""
    patient_name: Name = Name()
    birth_date: date | None = None
    sex: str = ""
    accession_number: str = ""
    placer_number: str = ""
    filler_number: str = ""
    referring: Name = Name()
    procedure: str = ""
    studied_at: datetime | None = None
    notice: str = ""
    predecessor: int | None = None


def instance_uid(report_id: str, version: int) -> str:
    """The SOP Instance UID of a version's document."""
    return _uid(f"sr|{report_id}|{version}")


def basic_text_sr(report: SignedReport) -> Dataset:
    """The document. Raises ValueError, naming the attribute, for an identifier that its attribute cannot hold."""
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID = BasicTextSRStorage
    document.SOPInstanceUID = instance_uid(report.report_id, report.version)
    _describe_patient_and_study(document, report)
    _describe_document(document, report)
    document.ValueType = "CONTAINER"
    document.ConceptNameCodeSequence = _code(_TITLE)
    document.ContinuityOfContent = "SEPARATE"
    document.ContentSequence = Items(_content(report))
    return document


def _describe_patient_and_study(document: Dataset, report: SignedReport) -> None:
    document.PatientName = report.patient_name.pn
    document.PatientID = _identifier(report.patient_id, "PatientID", _LONG_STRING)
    if report.patient_issuer:
        document.IssuerOfPatientID = _identifier(report.patient_issuer, "IssuerOfPatientID", _LONG_STRING)
    document.PatientBirthDate = report.birth_date.strftime("%Y%m%d") if report.birth_date else ""
    document.PatientSex = _SEX.get(report.sex, "")
    document.StudyInstanceUID = report.study_instance_uid
    document.StudyDate = report.studied_at.strftime("%Y%m%d") if report.studied_at else ""
    document.StudyTime = report.studied_at.strftime("%H%M%S") if report.studied_at else ""
    document.ReferringPhysicianName = report.referring.pn
    document.StudyID = ""
    document.AccessionNumber = _identifier(report.accession_number, "AccessionNumber", 16)
    if report.procedure:
        document.StudyDescription = _one_line(report.procedure)


def _describe_document(document: Dataset, report: SignedReport) -> None:
    document.Modality = "SR"
    document.SeriesInstanceUID = _uid(f"sr-series|{report.report_id}")
    document.SeriesNumber = "9001"
    document.SeriesDescription = "Report"
    document.ReferencedPerformedProcedureStepSequence = Items()
    document.Manufacturer = "Inlay"
    # It would hold for every time of the document: a study of last summer keeps the time that its images have.
    if report.studied_at is None or report.studied_at.utcoffset() == report.signed_at.utcoffset():
        document.TimezoneOffsetFromUTC = _offset(report.signed_at)
    document.InstanceNumber = str(report.version)
    document.CompletionFlag = "COMPLETE"
    document.VerificationFlag = "VERIFIED"
    document.ContentDate = document.InstanceCreationDate = report.signed_at.strftime("%Y%m%d")
    document.ContentTime = document.InstanceCreationTime = report.signed_at.strftime("%H%M%S")
    document.VerifyingObserverSequence = Items([_verifier(report)])
    document.ReferencedRequestSequence = Items([_request(report)])
    document.PerformedProcedureCodeSequence = Items()
    if report.predecessor is not None:
        document.PredecessorDocumentsSequence = Items([_predecessor(document, report)])


def _verifier(report: SignedReport) -> Dataset:
    verifier = Dataset()
    verifier.VerifyingObserverName = _display_name(report.signer)
    verifier.VerifyingObserverIdentificationCodeSequence = Items()
    verifier.VerifyingOrganization = _one_line(report.organization)
    verifier.VerificationDateTime = report.signed_at.strftime("%Y%m%d%H%M%S") + _offset(report.signed_at)
    return verifier


def _request(report: SignedReport) -> Dataset:
    request = Dataset()
    request.StudyInstanceUID = report.study_instance_uid
    request.ReferencedStudySequence = Items()
    request.AccessionNumber = report.accession_number
    request.PlacerOrderNumberImagingServiceRequest = _one_line(report.placer_number)
    request.FillerOrderNumberImagingServiceRequest = _one_line(report.filler_number)
    request.RequestedProcedureID = ""
    request.RequestedProcedureDescription = _one_line(report.procedure)
    request.RequestedProcedureCodeSequence = Items()
    return request


def _predecessor(document: Dataset, report: SignedReport) -> Dataset:
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = BasicTextSRStorage
    instance.ReferencedSOPInstanceUID = instance_uid(report.report_id, report.predecessor or 0)
    series.SeriesInstanceUID = document.SeriesInstanceUID
    series.ReferencedSOPSequence = Items([instance])
    study.StudyInstanceUID = report.study_instance_uid
    study.ReferencedSeriesSequence = Items([series])
    return study


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _content(report: SignedReport) -> list[Dataset]:
    observer = _item("HAS OBS CONTEXT", "CODE", ("121005", "DCM", "Observer Type"))
    observer.ConceptCodeSequence = _code(("121006", "DCM", "Person"))
    name = _item("HAS OBS CONTEXT", "PNAME", ("121008", "DCM", "Person Observer Name"))
    name.PersonName = _display_name(report.signer)
    notice = [_text(_NOTICE, report.notice)] if report.notice else []
    return [observer, name, *notice, *(_section(*section) for section in report.sections if section[1].strip())]


def _section(name: str, text: str) -> Dataset:
    heading, concept = _SECTIONS[name]
    container = _item("CONTAINS", "CONTAINER", heading)
    container.ContinuityOfContent = "SEPARATE"
    container.ContentSequence = Items([_text(concept, text)])
    return container


def _text(concept: tuple[str, str, str], text: str) -> Dataset:
    item = _item("CONTAINS", "TEXT", concept)
    # UT ends its lines with CR LF; a blank at the end is not significant and would be lost on the way (PS3.5 6.2).
    item.TextValue = _CONTROL.sub(" ", "\r\n".join(text.splitlines())).rstrip(" ")
    return item


def _item(relation: str, value_type: str, concept: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.RelationshipType = relation
    item.ValueType = value_type
    item.ConceptNameCodeSequence = _code(concept)
    return item


def _code(concept: tuple[str, str, str]) -> Items:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = concept
    return Items([code])


def _display_name(name: str) -> str:
    """A name whose parts nobody knows, as the first part; without any caret it would be of a form long retired."""
    return f"{Name(name).pn}^"


def _one_line(text: str) -> str:
    return _SEPARATORS.sub(" ", text).strip()[:_LONG_STRING]


def _identifier(text: str, keyword: str, longest: int) -> str:
    """An identifier as it is: cut or with other characters it would be somebody else's."""
    if len(text) > longest or "\\" in text or _CONTROL.search(text):
        raise ValueError(f"{keyword}: cannot hold this identifier")
    return text


def _offset(moment: datetime) -> str:
    ahead = moment.utcoffset() or timedelta(0)
    minutes = int(ahead.total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def _uid(name: str) -> str:
    """A UID of the root 2.25 (PS3.5 B.2) that follows from a name."""
    return f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])}"
