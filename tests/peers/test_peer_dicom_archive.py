"""Orthanc as the archive: by DICOMweb and by C-FIND and C-MOVE, the same answers from both."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from inlay_dicom.archive import Archive, ArchiveProblem, Wanted
from inlay_dicom.dataset import read
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import ArchiveImages, FolderImages
from inlay_dicom.pixels import grey8
from inlay_dicom.scp import StorageScp
from inlay_dicom.scu import DimseArchive, DimseServer
from inlay_dicom.store import ReceivedStore
from inlay_dicom.web import WebArchive, WebServer
from inlay_testkit.dicom import file_bytes, in_syntax, radiograph
from inlay_testkit.pacs import PASSWORD, USER, Orthanc, dcmtk

pytestmark = pytest.mark.peers

GREY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(params=["dicomweb", "dimse"])
def archive(request: pytest.FixtureRequest, orthanc: Orthanc, our_dicom_port: int, tmp_path: Path) -> Iterator[Archive]:
    """Our client of Orthanc, with a store in `tmp_path`."""
    store = ReceivedStore(tmp_path, quota_bytes=1 << 26)
    if request.param == "dicomweb":
        secret = tmp_path / "secret"
        secret.write_text(PASSWORD)
        yield WebArchive(WebServer(orthanc.dicomweb, user=USER, password_file=str(secret)), store)
        return
    scp = StorageScp(store, ae_title="INLAY")
    scp.start("127.0.0.1", our_dicom_port)
    yield DimseArchive(DimseServer("ORTHANC", "127.0.0.1", orthanc.dicom), "INLAY")
    scp.stop()


def film(**tags: Any) -> Any:
    """A radiograph of a made-up patient."""
    identity = {"PatientID": "P7", "PatientName": "Test^Tina", "StudyDate": "20250102", "StudyTime": "083000"}
    return radiograph(GREY, bits_stored=12, **(identity | {"StudyDescription": "Thorax", "StudyID": "1"} | tags))


def test_studies_of_a_patient_are_found(archive: Archive, orthanc: Orthanc) -> None:
    """Orthanc's answers have date, description and number; another patient's study is not among them."""
    orthanc.put(file_bytes(film()), file_bytes(film(StudyInstanceUID="1.2.4", PatientID="P8", SOPInstanceUID="7.9")))
    (found,) = archive.studies(Wanted(patient_id="P7"))
    assert (found.study_instance_uid, found.description, found.accession_number) == ("1.2.3", "Thorax", "A1")
    assert found.studied_at is not None
    assert found.studied_at.isoformat() == "2025-01-02T08:30:00+00:00"
    both = {one.study_instance_uid for one in archive.studies(Wanted(accession_number="A1"))}
    assert both == {"1.2.3", "1.2.4"}
    assert archive.studies(Wanted(accession_number="A9")) == []


def test_a_study_comes_when_it_is_in_the_archive(archive: Archive, orthanc: Orthanc, tmp_path: Path) -> None:
    """The image source over Orthanc is empty, then has the frontal image first, and what was loaded is the image."""
    source = ArchiveImages(FolderImages(FolderIndex(tmp_path, settle_s=0), rescan_s=0), archive, first_pause_s=0)
    assert source.find("1.2.3", None) == []
    frontal = film(ViewPosition="PA")
    orthanc.put(file_bytes(film(ViewPosition="LL")), file_bytes(frontal))
    first, second = source.find("1.2.3", None)
    assert (first.view_position, second.view_position) == ("PA", "LL")
    assert (grey8(read(source.load(first))) == grey8(frontal)).all()
    assert source.find(None, "A1") == [first, second]


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless],
    ids=lambda uid: uid.keyword,
)
def test_images_come_in_a_syntax_that_we_read(archive: Archive, orthanc: Orthanc, tmp_path: Path, syntax: Any) -> None:
    """Whatever syntax the archive holds an image in, it arrives and can be shown, unchanged."""
    original = film()
    if syntax == JPEGBaseline8Bit:
        original = radiograph((GREY // 16).astype(np.uint8), PatientID="P7")
    orthanc.put(file_bytes(in_syntax(original, syntax)))
    assert archive.bring("1.2.3") == 1
    (path,) = tmp_path.rglob("*.dcm")
    difference = np.abs(grey8(read(path)).astype(int) - grey8(original).astype(int)).max()
    assert difference <= (3 if syntax == JPEGBaseline8Bit else 0)


def test_a_wrong_password_is_a_refusal(orthanc: Orthanc, tmp_path: Path) -> None:
    """Orthanc's 401 is told apart from an archive that is away."""
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    server = WebServer(orthanc.dicomweb, user=USER, password_file=str(secret))
    store = ReceivedStore(tmp_path, quota_bytes=1)
    with pytest.raises(ArchiveProblem) as problem:
        WebArchive(server, store).studies(Wanted(patient_id="P7"))
    assert problem.value.code == "refused"
    with pytest.raises(ArchiveProblem) as problem:
        WebArchive(dataclasses.replace(server, url="http://127.0.0.1:1/dicom-web"), store).bring("1.2.3")
    assert problem.value.code == "away"


def test_dcmtk_moves_to_us(orthanc: Orthanc, our_dicom_port: int, tmp_path: Path) -> None:
    """findscu sees the study, and movescu has Orthanc send it to our Storage SCP."""
    orthanc.put(file_bytes(film()))
    to = ("-S", "-aec", "ORTHANC", "127.0.0.1", orthanc.dicom)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
    assert "1.2.3" in dcmtk("findscu", *to, *keys).stderr
    store = ReceivedStore(tmp_path, quota_bytes=1 << 26)
    scp = StorageScp(store, ae_title="INLAY")
    scp.start("127.0.0.1", our_dicom_port)
    try:
        # The exit status is 0 whatever happens: what counts is what arrived.
        dcmtk("movescu", "-aet", "INLAY", "-aem", "INLAY", *to, *keys)
    finally:
        scp.stop()
    assert len(list(tmp_path.rglob("*.dcm"))) == 1
