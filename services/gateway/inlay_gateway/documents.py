"""Signed reports to the archive, as DICOM SR documents, through the outbox: sent again until the archive has them.

A version keeps its SOP Instance UID, so that a document that was sent twice is one object in the archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Protocol

from pydicom.dataset import Dataset

from inlay_core.application.ports import Destination, ImageSource, OutboxItem
from inlay_core.application.publishing import claim_deliveries
from inlay_core.domain.errors import DomainError
from inlay_core.domain.labels import banner
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_dicom.archive import ArchiveProblem
from inlay_dicom.mapping import signed_report
from inlay_dicom.structured_report import basic_text_sr
from inlay_gateway.delivery import Books, Sent

# Longer than any archive's deadline for one object.
_LEASE_SECONDS = 900.0


class Sender(Protocol):
    """An archive that documents are sent to; raises ArchiveProblem."""

    def send(self, dataset: Dataset) -> None:
        """Have the archive keep the object."""
        ...


@dataclass(frozen=True, slots=True)
class Documents:
    """Where documents go, whose they are, and where the study of an order without StudyInstanceUID is looked up."""

    sender: Sender
    organization: str
    zone: tzinfo
    images: ImageSource | None = None


def deliver_document(books: Books, documents: Documents) -> Sequence[Sent]:
    """Send the next due signed version."""
    items = claim_deliveries(books.new_uow(), books.clock, Destination.DICOM, limit=1, lease_seconds=_LEASE_SECONDS)
    return [_send(books, documents, item) for item in items]


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
        return _failed(books, item, code, permanent=code == "report-missing")
    books.done(item)
    return Sent(item, "delivered")


def _failed(books: Books, item: OutboxItem, code: str, *, permanent: bool = False) -> Sent:
    books.failed(item, code, permanent=permanent)
    return Sent(item, code)


def _sent(books: Books, documents: Documents, item: OutboxItem) -> str | None:
    """Send the version of the item; why it cannot be sent, None where it was."""
    with books.new_uow() as uow:
        report = uow.reports.version(str(item.payload["report_id"]), int(item.payload["version"]))
        order = uow.orders.get(report.order_id) if report else None
        jobs = uow.jobs.of_report(report.id) if report else ()
        earlier = (uow.reports.version(report.id, n) for n in range(report.version - 1, 0, -1)) if report else ()
        predecessor = next((one.version for one in earlier if one is not None and one.is_signed), None)
    if report is None or order is None:
        return "report-missing"
    study = _study(order, documents.images)
    if study is None:
        return "study-unknown"
    values = signed_report(
        _in_zone(report, documents.zone),
        replace(order, studied_at=order.studied_at.astimezone(documents.zone) if order.studied_at else None),
        study_instance_uid=study,
        organization=documents.organization,
        notice=banner(report, jobs),
        predecessor=predecessor,
    )
    documents.sender.send(basic_text_sr(values))
    return None


def _in_zone(report: Report, zone: tzinfo) -> Report:
    if report.signature is None:
        return report
    return replace(report, signature=replace(report.signature, signed_at=report.signature.signed_at.astimezone(zone)))


def _study(order: Order, images: ImageSource | None) -> str | None:
    if order.study_instance_uid:
        return order.study_instance_uid
    refs = images.find(None, order.accession_number) if images else []
    return refs[0].study_instance_uid if refs else None
