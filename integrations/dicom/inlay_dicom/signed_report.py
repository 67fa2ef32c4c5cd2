"""What all documents of a signed report share, whatever their form: patient, study, series, and UIDs that follow.

The same report gives the same document, so that it can be sent again without becoming another object.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

REPORT_TITLE: Final = ("18748-4", "LN", "Diagnostic Imaging Report")
_SEX: Final = {"male": "M", "female": "F", "other": "O"}
# PS3.5 6.2: what a text may not hold, and what separates the parts of a name.
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
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


def new_document(report: SignedReport, sop_class: str, sop_instance: str) -> Dataset:
    """A dataset of the class with patient and study. Raises ValueError, naming an attribute that cannot hold one."""
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID = sop_class
    document.SOPInstanceUID = sop_instance
    _describe_patient_and_study(document, report)
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
        document.StudyDescription = one_line(report.procedure)


def describe_series(document: Dataset, report: SignedReport, modality: str, series: str, number: str) -> None:
    """The document's series, and where and when it was made: at the signature of its version."""
    document.Modality = modality
    document.SeriesInstanceUID = series
    document.SeriesNumber = number
    document.SeriesDescription = "Report"
    document.Manufacturer = "Inlay"
    # It would hold for every time of the document: a study of last summer keeps the time that its images have.
    if report.studied_at is None or report.studied_at.utcoffset() == report.signed_at.utcoffset():
        document.TimezoneOffsetFromUTC = offset(report.signed_at)
    document.InstanceNumber = str(report.version)
    document.ContentDate = document.InstanceCreationDate = report.signed_at.strftime("%Y%m%d")
    document.ContentTime = document.InstanceCreationTime = report.signed_at.strftime("%H%M%S")


def request_of(report: SignedReport) -> Dataset:
    """The order that the report answers, as an item of Referenced Request Sequence."""
    request = Dataset()
    request.StudyInstanceUID = report.study_instance_uid
    request.ReferencedStudySequence = Items()
    request.AccessionNumber = report.accession_number
    request.PlacerOrderNumberImagingServiceRequest = one_line(report.placer_number)
    request.FillerOrderNumberImagingServiceRequest = one_line(report.filler_number)
    request.RequestedProcedureID = ""
    request.RequestedProcedureDescription = one_line(report.procedure)
    request.RequestedProcedureCodeSequence = Items()
    return request


def references(report: SignedReport, instances: Mapping[str, Sequence[tuple[str, str]]]) -> Items:
    """(SOP class, SOP instance) pairs by series, as the macro of PS3.3 table C.17-3 names them within the study."""
    study = Dataset()
    study.StudyInstanceUID = report.study_instance_uid
    study.ReferencedSeriesSequence = Items()
    for series, pairs in instances.items():
        item = Dataset()
        item.SeriesInstanceUID = series
        item.ReferencedSOPSequence = Items([sop_reference(*pair) for pair in pairs])
        study.ReferencedSeriesSequence.append(item)
    return Items([study])


def sop_reference(sop_class: str, sop_instance: str) -> Dataset:
    """An item that names one object."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def code(concept: tuple[str, str, str]) -> Items:
    """A code sequence of one (value, scheme, meaning)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept
    return Items([item])


def content_item(relation: str, value_type: str, concept: tuple[str, str, str]) -> Dataset:
    """A content item (PS3.3 C.17.3) without its value."""
    item = Dataset()
    item.RelationshipType = relation
    item.ValueType = value_type
    item.ConceptNameCodeSequence = code(concept)
    return item


def observed_by(person: str) -> list[Dataset]:
    """Who says what follows: TID 1002 for a person."""
    kind = content_item("HAS OBS CONTEXT", "CODE", ("121005", "DCM", "Observer Type"))
    kind.ConceptCodeSequence = code(("121006", "DCM", "Person"))
    name = content_item("HAS OBS CONTEXT", "PNAME", ("121008", "DCM", "Person Observer Name"))
    name.PersonName = display_name(person)
    return [kind, name]


def display_name(name: str) -> str:
    """A name whose parts nobody knows, as the first part; without any caret it would be of a form long retired."""
    return f"{Name(name).pn}^"


def one_line(text: str) -> str:
    """A text as a value of LO: separators replaced, cut at 64 characters."""
    return _SEPARATORS.sub(" ", text).strip()[:_LONG_STRING]


def _identifier(text: str, keyword: str, longest: int) -> str:
    """An identifier as it is: cut or with other characters it would be somebody else's."""
    if len(text) > longest or "\\" in text or CONTROL.search(text):
        raise ValueError(f"{keyword}: cannot hold this identifier")
    return text


def offset(moment: datetime) -> str:
    """The zone of a moment as the offset of DT and (0008,0201)."""
    ahead = moment.utcoffset() or timedelta(0)
    minutes = int(ahead.total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def uid(name: str) -> str:
    """A UID of the root 2.25 (PS3.5 B.2) that follows from a name."""
    return f"2.25.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])}"
