"""Signed reports to the archive as DICOM documents, through the outbox: sent again until the archive has them.

A version keeps its SOP Instance UIDs, so that a document that was sent twice is one object in the archive. A withdrawn
report takes its documents out of use by a rejection note.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import StrEnum
from typing import Final, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, EncapsulatedPDFStorage

from inlay_core.application.ports import Destination, ImageSource, OutboxItem
from inlay_core.application.publishing import claim_deliveries
from inlay_core.domain.errors import DomainError
from inlay_core.domain.labels import banner
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_dicom import encapsulated_pdf as pages
from inlay_dicom import structured_report
from inlay_dicom.archive import ArchiveProblem
from inlay_dicom.mapping import signed_report
from inlay_dicom.rejection import Withdrawal, rejection_note
from inlay_dicom.signed_report import SignedReport
from inlay_gateway.delivery import Books, Sent, sent_each
from inlay_gateway.printing import printed_result

# Longer than any archive's deadline for one object.
_LEASE_SECONDS = 900.0
# What another attempt would not change.
_LASTING: Final = frozenset({"report-missing", "not-printable"})


class Form(StrEnum):
    """What a version becomes in the archive."""

    SR = "sr"
    PDF = "pdf"


# Form, SOP class, and the UIDs of its series and instances.
_OBJECTS: Final = (
    (Form.SR, BasicTextSRStorage, structured_report.series_uid, structured_report.instance_uid),
    (Form.PDF, EncapsulatedPDFStorage, pages.series_uid, pages.instance_uid),
)


class Sender(Protocol):
    """An archive that documents are sent to; raises ArchiveProblem."""

    def send(self, dataset: Dataset) -> None:
        """Have the archive keep the object."""
        ...


@dataclass(frozen=True, slots=True)
class Documents:
    """Where documents go, whose they are, and where the study of an order without StudyInstanceUID is looked up.

    `forms` are what each version becomes; `printed` makes the page of one.
    """

    sender: Sender
    organization: str
    zone: tzinfo
    images: ImageSource | None = None
    forms: frozenset[Form] = frozenset({Form.SR})
    printed: Callable[[Report, Order, str], bytes | None] = printed_result


def deliver_document(books: Books, documents: Documents) -> Sequence[Sent]:
    """Send the next due version, or the note that withdraws a report."""
    items = claim_deliveries(books.new_uow(), books.clock, Destination.DICOM, limit=1, lease_seconds=_LEASE_SECONDS)
    return sent_each(books, items, lambda item: _send(books, documents, item))


def _send(books: Books, documents: Documents, item: OutboxItem) -> Sent:
    try:
        code = _sent(books, documents, item)
    except ArchiveProblem as problem:
        return _failed(books, item, f"archive-{problem.code}", permanent=problem.code == "rejected")
    except ValueError:
        return _failed(books, item, "not-representable", permanent=True)
    except DomainError as error:
        return _failed(books, item, error.code)
    if code is not None:
        return _failed(books, item, code, permanent=code in _LASTING)
    books.done(item)
    return Sent(item, "delivered")


def _failed(books: Books, item: OutboxItem, code: str, *, permanent: bool = False) -> Sent:
    books.failed(item, code, permanent=permanent)
    return Sent(item, code)


def _sent(books: Books, documents: Documents, item: OutboxItem) -> str | None:
    """Send what the item's version is to the archive; why it cannot be sent, None where it was."""
    with books.new_uow() as uow:
        report = uow.reports.version(str(item.payload["report_id"]), int(item.payload["version"]))
        order = uow.orders.get(report.order_id) if report else None
        jobs = uow.jobs.of_report(report.id) if report else ()
        earlier = [uow.reports.version(report.id, n) for n in range(report.version - 1, 0, -1)] if report else []
    if report is None or order is None:
        return "report-missing"
    study = _study(order, documents.images)
    if study is None:
        return "study-unknown"
    signed = [one for one in earlier if one is not None and one.is_signed]
    last = signed.pop(0) if report.status is Status.ENTERED_IN_ERROR and signed else report
    values = signed_report(
        _in_zone(last, documents.zone),
        replace(order, studied_at=order.studied_at.astimezone(documents.zone) if order.studied_at else None),
        study_instance_uid=study,
        organization=documents.organization,
        notice=banner(last, jobs),
        predecessor=signed[0].version if signed else None,
    )
    if last is not report:
        documents.sender.send(_note(documents, report, values, [one.version for one in (last, *signed)]))
        return None
    if Form.SR in documents.forms:
        documents.sender.send(structured_report.basic_text_sr(values))
    if Form.PDF in documents.forms:
        page = documents.printed(report, order, values.notice)
        if page is None:
            return "not-printable"
        documents.sender.send(pages.encapsulated_pdf(values, page))
    return None


def _note(documents: Documents, report: Report, values: SignedReport, versions: Sequence[int]) -> Dataset:
    """What takes the documents of these versions out of use."""
    objects = {
        series(report.id): [(sop_class, instance(report.id, version)) for version in versions]
        for form, sop_class, series, instance in _OBJECTS
        if form in documents.forms
    }
    at = report.updated_at.astimezone(documents.zone)
    return rejection_note(values, Withdrawal(report.version, at, report.author.name, objects))


def _in_zone(report: Report, zone: tzinfo) -> Report:
    if report.signature is None:
        return report
    return replace(report, signature=replace(report.signature, signed_at=report.signature.signed_at.astimezone(zone)))


def _study(order: Order, images: ImageSource | None) -> str | None:
    if order.study_instance_uid:
        return order.study_instance_uid
    refs = images.find(None, order.accession_number) if images else []
    return refs[0].study_instance_uid if refs else None
