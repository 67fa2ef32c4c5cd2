"""A signed report as an Encapsulated PDF document (PS3.3 A.45.1): the page that people read, verified by its signer."""

from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from inlay_dicom.signed_report import REPORT_TITLE, SignedReport, code, describe_series, new_document, uid

_TITLE: Final = "Radiology report, version"


def instance_uid(report_id: str, version: int) -> str:
    """The SOP Instance UID of a version's page."""
    return uid(f"pdf|{report_id}|{version}")


def series_uid(report_id: str) -> str:
    """The series of all versions' pages; the class of an object and its modality are one per series."""
    return uid(f"pdf-series|{report_id}")


def encapsulated_pdf(report: SignedReport, pdf: bytes) -> Dataset:
    """The document. Raises ValueError, naming the attribute, for an identifier that its attribute cannot hold."""
    document = new_document(report, EncapsulatedPDFStorage, instance_uid(report.report_id, report.version))
    describe_series(document, report, "DOC", series_uid(report.report_id), "9002")
    document.ConversionType = "WSD"
    document.AcquisitionDateTime = ""
    # The page names the patient.
    document.BurnedInAnnotation = "YES"
    document.DocumentTitle = f"{_TITLE} {report.version}"
    document.ConceptNameCodeSequence = code(REPORT_TITLE)
    document.VerificationFlag = "VERIFIED"
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return document
