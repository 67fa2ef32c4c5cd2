"""Signed reports as DICOM documents: valid by dciodvfy, taken by Orthanc over STOW-RS and C-STORE, once."""

import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, EncapsulatedPDFStorage

from inlay_dicom.encapsulated_pdf import encapsulated_pdf
from inlay_dicom.encapsulated_pdf import instance_uid as pdf_instance
from inlay_dicom.encapsulated_pdf import series_uid as pdf_series
from inlay_dicom.rejection import Withdrawal, rejection_note
from inlay_dicom.scu import DimseArchive, DimseServer
from inlay_dicom.signed_report import Name, SignedReport
from inlay_dicom.store import ReceivedStore
from inlay_dicom.structured_report import basic_text_sr, instance_uid
from inlay_dicom.structured_report import series_uid as sr_series
from inlay_dicom.web import WebArchive, WebServer
from inlay_testkit.dicom import file_bytes
from inlay_testkit.pacs import PASSWORD, USER, Orthanc, dcmtk
from inlay_testkit.peers import find_program

pytestmark = pytest.mark.peers

SIGNED = SignedReport(
    report_id="r1",
    version=4,
    study_instance_uid="1.2.3",
    patient_id="P7",
    patient_issuer="HOSP",
    patient_name=Name("Müller-Łukasz", "Ann^a", suffix="MD"),
    birth_date=date(1970, 1, 2),
    sex="female",
    accession_number="A1",
    placer_number="PL1",
    filler_number="F1",
    referring=Name("Overend", "Ida"),
    procedure="Chest X-ray, 2 views",
    studied_at=datetime(2026, 3, 2, 8, tzinfo=UTC),
    signed_at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC),
    signer="Dr. Ada Reader",
    organization="Hospital",
    notice="Synthetic phantom images only; not for clinical use.",
    sections=[
        ("indication", "Cough – since Monday."),
        ("technique", "PA and lateral."),
        ("comparison", "2025-01-02."),
        ("findings", "The heart is normal.\nNo effusion. Größe < 5 mm & stable.\n\n"),
        ("impression", "No acute findings. "),
    ],
)
BARE = SignedReport("r2", 3, "1.2.3", "P7", SIGNED.signed_at, "Dr. Ada Reader", "Hospital", [("findings", "Normal.")])


def problems(folder: Path, report: SignedReport) -> list[str]:
    """What dciodvfy finds wrong with a report's document."""
    return found_wrong(folder, basic_text_sr(report), "BasicTextSR")


def found_wrong(folder: Path, document: Dataset, kind: str) -> list[str]:
    """What dciodvfy finds wrong with a document, which it has to recognise as of that kind."""
    path = folder / "report.dcm"
    path.write_bytes(file_bytes(document))
    done = subprocess.run([str(find_program("dciodvfy")), str(path)], capture_output=True, text=True, check=False)
    assert kind in done.stderr, done.stderr
    found = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
    # A Study ID and a date may be unknown (type 2); only media with a DICOMDIR need them, and this is none.
    return [line for line in found if "needed to build DICOMDIR" not in line]


def withdrawn(report: SignedReport) -> Withdrawal:
    """The withdrawal of what was sent of a report: a document and its page."""
    documents = {
        sr_series(report.report_id): [(BasicTextSRStorage, instance_uid(report.report_id, report.version))],
        pdf_series(report.report_id): [(EncapsulatedPDFStorage, pdf_instance(report.report_id, report.version))],
    }
    return Withdrawal(report.version + 1, datetime(2026, 3, 3, 8, tzinfo=UTC), "Dr. Ben Second", documents)


def amended() -> SignedReport:
    """A correction of an earlier version."""
    import dataclasses

    return dataclasses.replace(SIGNED, version=5, predecessor=4)


@pytest.mark.parametrize("report", [SIGNED, BARE, amended()], ids=["full", "bare", "amended"])
def test_documents_are_valid(tmp_path: Path, report: SignedReport) -> None:
    """dciodvfy has no error and no warning, whether the order told much or little."""
    assert problems(tmp_path, report) == []


def test_dciodvfy_would_see_a_mistake(tmp_path: Path) -> None:
    """The check can fail: a document without its verifying observer is an error."""
    document = basic_text_sr(SIGNED)
    del document.VerifyingObserverSequence
    path = tmp_path / "report.dcm"
    path.write_bytes(file_bytes(document))
    done = subprocess.run([str(find_program("dciodvfy")), str(path)], capture_output=True, text=True, check=False)
    assert "Error" in done.stderr
    assert "VerifyingObserverSequence" in done.stderr


def test_dcmtk_reads_the_text(tmp_path: Path) -> None:
    """dsrdump, a reader of its own, shows the whole text with its umlauts, and takes the document for verified."""
    path = tmp_path / "report.dcm"
    path.write_bytes(file_bytes(basic_text_sr(SIGNED)))
    shown = dcmtk("dsrdump", "+Pl", path)
    assert shown.returncode == 0, shown.stderr
    assert "Größe < 5 mm & stable." in shown.stdout
    assert "Dr. Ada Reader" in shown.stdout
    assert "VERIFIED" in shown.stdout


def sender_to(orthanc: Orthanc, folder: Path, way: str) -> WebArchive | DimseArchive:
    """A client of the archive."""
    if way == "dimse":
        return DimseArchive(DimseServer("ORTHANC", "127.0.0.1", orthanc.dicom), "INLAY")
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    server = WebServer(orthanc.dicomweb, user=USER, password_file=str(secret))
    return WebArchive(server, ReceivedStore(folder, quota_bytes=1))


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_orthanc_has_it_once(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """Sent twice by STOW-RS or C-STORE, there is one object in the archive, in the study of the images."""
    sender = sender_to(orthanc, tmp_path, way)
    document = basic_text_sr(SIGNED)
    sender.send(document)
    sender.send(document)
    (instance,) = orthanc.find("Instance", StudyInstanceUID="1.2.3")
    assert instance["MainDicomTags"]["SOPInstanceUID"] == instance_uid("r1", 4)
    (study,) = orthanc.find("Study", StudyInstanceUID="1.2.3")
    assert study["PatientMainDicomTags"]["PatientName"] == "Müller-Łukasz^Ann a^^^MD"


PDF = b"%PDF-1.4\n%%EOF\n"


@pytest.mark.parametrize("report", [SIGNED, BARE, amended()], ids=["full", "bare", "amended"])
def test_pages_are_valid(tmp_path: Path, report: SignedReport) -> None:
    """dciodvfy has no error and no warning for the encapsulated page."""
    assert found_wrong(tmp_path, encapsulated_pdf(report, PDF), "EncapsulatedPDF") == []


@pytest.mark.parametrize("report", [SIGNED, BARE], ids=["full", "bare"])
def test_rejection_notes_are_valid(tmp_path: Path, report: SignedReport) -> None:
    """dciodvfy has no error and no warning for the note that takes a withdrawn report's documents out of use."""
    assert found_wrong(tmp_path, rejection_note(report, withdrawn(report)), "KeyObjectSelectionDocument") == []


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_orthanc_takes_pages_and_notes(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """The archive has the page as it was printed, and the note in the same study."""
    sender = sender_to(orthanc, tmp_path, way)
    for document in (encapsulated_pdf(SIGNED, PDF), rejection_note(SIGNED, withdrawn(SIGNED))):
        sender.send(document)
        sender.send(document)
    modalities = [one["MainDicomTags"]["Modality"] for one in orthanc.find("Series", StudyInstanceUID="1.2.3")]
    assert sorted(modalities) == ["DOC", "KO"]
    (page,) = orthanc.find("Instance", SOPInstanceUID=pdf_instance("r1", 4))
    assert orthanc.raw(f"/instances/{page['ID']}/pdf").startswith(PDF)
