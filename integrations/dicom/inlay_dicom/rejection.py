"""A rejection note (IHE RAD, Imaging Object Change Management): what takes a withdrawn report's documents out of use.

A Key Object Selection titled "Rejected for Patient Safety Reasons" (PS3.16 CID 7011) that names each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import KeyObjectSelectionDocumentStorage

from inlay_dicom.signed_report import (
    SignedReport,
    code,
    content_item,
    new_document,
    observed_by,
    offset,
    references,
    request_of,
    sop_reference,
    uid,
)

_TITLE: Final = ("113037", "DCM", "Rejected for Patient Safety Reasons")
_DESCRIPTION: Final = ("113012", "DCM", "Key Object Description")


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """When and by whom the report was withdrawn, which version that made, and its (class, instance) pairs by series."""

    version: int
    at: datetime
    by: str
    documents: Mapping[str, Sequence[tuple[str, str]]]


def instance_uid(report_id: str, version: int) -> str:
    """The SOP Instance UID of the note that the withdrawing version sends."""
    return uid(f"ko|{report_id}|{version}")


def rejection_note(report: SignedReport, withdrawal: Withdrawal) -> Dataset:
    """The note about the documents of a report, whose last signed version is `report`. Raises ValueError as they do."""
    note = new_document(report, KeyObjectSelectionDocumentStorage, instance_uid(report.report_id, withdrawal.version))
    note.Modality = "KO"
    note.SeriesInstanceUID = uid(f"ko-series|{report.report_id}")
    note.SeriesNumber = "9003"
    note.SeriesDescription = "Withdrawn report"
    note.ReferencedPerformedProcedureStepSequence = Items()
    note.Manufacturer = "Inlay"
    note.InstanceNumber = str(withdrawal.version)
    if report.studied_at is None or report.studied_at.utcoffset() == withdrawal.at.utcoffset():
        note.TimezoneOffsetFromUTC = offset(withdrawal.at)
    note.ContentDate = note.InstanceCreationDate = withdrawal.at.strftime("%Y%m%d")
    note.ContentTime = note.InstanceCreationTime = withdrawal.at.strftime("%H%M%S")
    note.ReferencedRequestSequence = Items([request_of(report)])
    note.CurrentRequestedProcedureEvidenceSequence = references(report, withdrawal.documents)
    note.ValueType = "CONTAINER"
    note.ConceptNameCodeSequence = code(_TITLE)
    note.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = Items([template])
    note.ContentSequence = Items(_content(withdrawal))
    return note


def _content(withdrawal: Withdrawal) -> list[Dataset]:
    description = content_item("CONTAINS", "TEXT", _DESCRIPTION)
    description.TextValue = "The report was entered in error and is withdrawn."
    objects = [_object(*pair) for pairs in withdrawal.documents.values() for pair in pairs]
    return [*observed_by(withdrawal.by), description, *objects]


def _object(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "COMPOSITE"
    item.ReferencedSOPSequence = Items([sop_reference(sop_class, sop_instance)])
    return item
