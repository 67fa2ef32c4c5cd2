from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, EncapsulatedPDFStorage

from inlay_core.application import signing
from inlay_core.application.ports import Delivery, Destination, OutboxItem, Site
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import Invalid
from inlay_core.domain.lifecycle import Event
from inlay_core.domain.order import Order
from inlay_core.domain.report import Report
from inlay_core.settings import Settings
from inlay_dicom import encapsulated_pdf as pages
from inlay_dicom.archive import ArchiveProblem
from inlay_dicom.dataset import rejected_by
from inlay_dicom.signed_report import Name
from inlay_dicom.structured_report import instance_uid
from inlay_gateway.delivery import Books
from inlay_gateway.dicom import sender_of, site_of
from inlay_gateway.documents import Documents, Form, deliver_document
from inlay_gateway.printing import printed_result
from inlay_testkit.core import RADIOLOGIST, StillClock, Ward, counting_ids
from inlay_testkit.memory import Memory

SITE = Site(destinations=(Destination.DICOM,))
VIENNA = ZoneInfo("Europe/Vienna")


class Archive:
    """An archive that keeps what it is sent, unless a test says otherwise."""

    def __init__(self) -> None:
        self.kept: list[Dataset] = []
        self.problem: ArchiveProblem | None = None

    def send(self, dataset: Dataset) -> None:
        """Take it, and then fail if told to: an answer may be lost."""
        self.kept.append(dataset)
        if self.problem is not None:
            raise self.problem


class House:
    """A database with a drafted report, and the archive."""

    def __init__(self, **order: object) -> None:
        self.memory, self.clock, self.archive = Memory(), StillClock(), Archive()
        self.books = Books(self.memory, self.clock, counting_ids("book"), SITE)
        self.ward = Ward(self.memory(), self.clock, SITE)
        self.forms = frozenset({Form.SR})
        self.printed: Callable[[Report, Order, str], bytes | None] = printed_result
        self.report = self.ward.drafted(**order)  # type: ignore[arg-type]

    def sign(self) -> Report:
        """A radiologist signs what they see."""
        report = self.ward.report(self.report.id)
        return signing.sign(
            *self.ward.trio, RADIOLOGIST, report.id, expected_version=report.version, site=self.ward.site
        )

    def amend(self) -> Report:
        """A correction, signed in the same act."""
        report = self.ward.report(self.report.id)
        edit = SectionEdit("impression", (FragmentEdit(text="Zwei Zeilen:\nunauffällig.\t"),))
        return signing.amend(
            *self.ward.trio,
            RADIOLOGIST,
            report.id,
            expected_version=report.version,
            kind=Event.CORRECT,
            edits=[edit],
            reason="typing error",
            site=self.ward.site,
        )

    def retract(self) -> Report:
        """The report was entered in error."""
        report = self.ward.report(self.report.id)
        return signing.retract(
            *self.ward.trio,
            RADIOLOGIST,
            report.id,
            expected_version=report.version,
            reason="wrong patient",
            site=self.ward.site,
        )

    def deliver(self) -> list[str]:
        """One round; what became of each item."""
        documents = Documents(self.archive, "Hospital", VIENNA, forms=self.forms, printed=self.printed)
        return [sent.code for sent in deliver_document(self.books, documents)]

    def items(self) -> list[OutboxItem]:
        """What waits for the archive, or went there."""
        return [item for item in self.memory.world.outbox.values() if item.destination == Destination.DICOM]


def test_only_signed_versions_go_to_the_archive() -> None:
    """A draft is not sent; the signed version is, as a verified Basic Text SR that names who signed it."""
    house = House()
    assert house.deliver() == []
    signed = house.sign()
    assert house.deliver() == ["delivered"]
    (document,) = house.archive.kept
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert (document.CompletionFlag, document.VerificationFlag) == ("COMPLETE", "VERIFIED")
    assert document.VerifyingObserverSequence[0].VerifyingObserverName == "Dr. Ada Reader^"
    assert document.VerifyingObserverSequence[0].VerificationDateTime == "20260302090000+0100"
    assert document.StudyInstanceUID == "1.2.826.0.1.1"
    assert (document.PatientID, document.PatientName, document.PatientSex) == ("MRN1", "Testperson^Tina", "F")
    assert document.SOPInstanceUID == instance_uid(signed.id, signed.version)


def test_the_document_holds_every_section() -> None:
    """Each section is a container with its text; the notice on machine-made words comes along while there is one."""
    house = House()
    house.sign()
    house.deliver()
    containers = [item for item in house.archive.kept[0].ContentSequence if item.ValueType == "CONTAINER"]
    texts = {c.ConceptNameCodeSequence[0].CodeValue: c.ContentSequence[0].TextValue for c in containers}
    assert texts == {
        "59776-5": "The heart is normal. No pleural effusion.\r\nNo pneumothorax.",
        "19005-8": "No acute findings.",
    }


def test_sent_again_it_is_the_same_object() -> None:
    """After a lost answer the very same dataset goes out: the archive sees one object."""
    house = House()
    house.sign()
    house.archive.problem = ArchiveProblem("away", "x")
    assert house.deliver() == ["archive-away"]
    assert house.items()[0].state is Delivery.PENDING
    house.archive.problem = None
    house.clock.advance(60)
    assert house.deliver() == ["delivered"]
    first, second = house.archive.kept
    assert first == second


def test_an_object_that_the_archive_rejects_is_parked() -> None:
    """What will never be taken is not sent for ever; it is dead, with its code, and in the trail."""
    house = House()
    house.sign()
    house.archive.problem = ArchiveProblem("rejected", "x")
    assert house.deliver() == ["archive-rejected"]
    assert house.items()[0].state is Delivery.DEAD
    assert "relay:report:undeliverable" in house.ward.tags(house.report.id)


def test_a_correction_names_the_version_that_it_replaces() -> None:
    """An amended report is a new object of the same series whose predecessor is the one that was signed before."""
    house = House()
    signed = house.sign()
    house.deliver()
    house.clock.advance(60)
    house.amend()
    assert house.deliver() == ["delivered"]
    first, second = house.archive.kept
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    (study,) = second.PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == instance_uid(signed.id, signed.version) == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    text = second.ContentSequence[-1].ContentSequence[0].TextValue
    assert text == "Zwei Zeilen:\r\nunauffällig.\t"


def test_a_report_without_a_study_waits() -> None:
    """Without StudyInstanceUID a document would belong to nothing; it is tried again when the study is known."""
    house = House(study_instance_uid=None)
    house.sign()
    assert house.deliver() == ["study-unknown"]
    assert house.archive.kept == []
    assert house.items()[0].state is Delivery.PENDING


def test_an_identifier_that_does_not_fit_is_never_cut() -> None:
    """An accession number of 17 characters has no place in DICOM: cut, it would be another study's."""
    house = House(accession_number="A" * 17)
    house.sign()
    assert house.deliver() == ["not-representable"]
    assert house.items()[0].state is Delivery.DEAD


@pytest.mark.parametrize(
    ("name", "pn"),
    [
        (Name("Müller", "Ann^a", suffix="MD"), "Müller^Ann a^^^MD"),
        (Name("O=Brien\\x"), "O Brien x"),
        (Name(), ""),
    ],
)
def test_separators_in_names_are_replaced(name: Name, pn: str) -> None:
    """A caret in a given name must not become another part of the name."""
    assert name.pn == pn


def test_reports_need_a_place_to_go(tmp_path: Path) -> None:
    """Naming an archive that the file does not describe stops the relay at its start."""
    settings = Settings(home=tmp_path, dicom_reports="dimse")
    with pytest.raises(Invalid, match="dimse"):
        sender_of(settings, site_of(settings))
    config = tmp_path / "dicom.toml"
    config.write_text("[dimse]\nae_title = 'PACS'\nhost = '127.0.0.1'\nport = 104\nimages = false\n")
    named = replace(settings, dicom_config=str(config))
    assert sender_of(named, site_of(named)) is not None
    assert sender_of(Settings(home=tmp_path), site_of(Settings(home=tmp_path))) is None


def test_times_are_the_sites(tmp_path: Path) -> None:
    """The study's date is the local one, not UTC's: at 00:30 in Vienna it is still yesterday in UTC."""
    house = House()
    with house.memory() as uow:
        order = uow.orders.get(house.report.order_id)
        assert order is not None
        moment = datetime(2026, 3, 2, 0, 30, tzinfo=VIENNA)
        house.memory.world.orders[order.id] = replace(order, studied_at=moment.astimezone(ZoneInfo("UTC")))
    house.sign()
    house.deliver()
    (document,) = house.archive.kept
    assert (document.StudyDate, document.StudyTime, document.TimezoneOffsetFromUTC) == ("20260302", "003000", "+0100")


def test_a_study_of_last_summer_keeps_its_time() -> None:
    """One offset would hold for all times of a document: where summer and winter meet in one, none is stated."""
    house = House()
    with house.memory() as uow:
        order = uow.orders.get(house.report.order_id)
        assert order is not None
        moment = datetime(2025, 7, 1, 12, tzinfo=VIENNA)
        house.memory.world.orders[order.id] = replace(order, studied_at=moment.astimezone(ZoneInfo("UTC")))
    house.sign()
    house.deliver()
    (document,) = house.archive.kept
    assert document.StudyTime == "120000"
    assert "TimezoneOffsetFromUTC" not in document


def test_a_page_goes_where_the_site_wants_one() -> None:
    """With both forms each version is a document and a page; sent again they are the same two objects."""
    house = House()
    house.forms = frozenset(Form)
    signed = house.sign()
    house.archive.problem = ArchiveProblem("away", "x")
    assert house.deliver() == ["archive-away"]
    house.archive.problem = None
    house.clock.advance(60)
    assert house.deliver() == ["delivered"]
    _, document, page = house.archive.kept
    assert document.SOPClassUID == BasicTextSRStorage
    assert page.SOPClassUID == EncapsulatedPDFStorage
    assert page.SOPInstanceUID == pages.instance_uid(signed.id, signed.version)
    assert page.EncapsulatedDocument.startswith(b"%PDF")
    assert page.EncapsulatedDocumentLength <= len(page.EncapsulatedDocument)
    assert (page.PatientID, page.StudyInstanceUID) == (document.PatientID, document.StudyInstanceUID)
    assert page.SeriesInstanceUID != document.SeriesInstanceUID


def test_a_page_that_cannot_be_printed_is_parked() -> None:
    """A character without a glyph: the document is in the archive, and the missing page is dead with its reason."""
    house = House()
    house.forms = frozenset(Form)
    house.printed = lambda *_: None
    house.sign()
    assert house.deliver() == ["not-printable"]
    assert [kept.SOPClassUID for kept in house.archive.kept] == [BasicTextSRStorage]
    assert house.items()[0].state is Delivery.DEAD


@pytest.mark.parametrize("forms", [{Form.SR}, {Form.PDF}, {Form.SR, Form.PDF}])
def test_a_withdrawn_report_rejects_its_documents(forms: set[Form]) -> None:
    """The archive gets a rejection note about every version that it was sent, by whoever withdrew the report."""
    house = House()
    house.forms = frozenset(forms)
    house.sign()
    house.amend()
    house.retract()
    assert [house.deliver(), house.deliver(), house.deliver()] == [["delivered"]] * 3
    *sent, note = house.archive.kept
    assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert sorted(rejected_by(note)) == sorted(str(one.SOPInstanceUID) for one in sent)
    series = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {str(one.SeriesInstanceUID) for one in series} == {str(one.SeriesInstanceUID) for one in sent}
    named = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in note.ContentSequence[3:]]
    assert sorted(named) == sorted(rejected_by(note))
    assert note.ContentSequence[1].PersonName == "Dr. Ada Reader^"
    assert note.PatientID == sent[0].PatientID
