import contextlib
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from inlay_core.domain.errors import Unavailable
from inlay_dicom.archive import ArchiveProblem, StudyFound, Wanted, studies_of
from inlay_dicom.dataset import read
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import ArchiveImages, FolderImages
from inlay_dicom.scu import DimseArchive, DimseServer
from inlay_dicom.store import ReceivedStore
from inlay_dicom.web import WebArchive, WebServer, parts
from inlay_testkit.archive import Held, dimse_archive, multipart, web_archive
from inlay_testkit.dicom import radiograph
from inlay_testkit.scp import storage

# pynetdicom's requestor leaves sockets to the garbage collector when it is hung up on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
ANY = Wanted(accession_number="A1")


@pytest.fixture
def held() -> Held:
    """What the archive holds."""
    return Held()


@pytest.fixture
def url(held: Held) -> Iterator[str]:
    """A DICOMweb archive."""
    with web_archive(held) as url:
        yield url


def web(folder: Path, url: str, **options: Any) -> WebArchive:
    """Our client of it, with a store in `folder`."""
    return WebArchive(WebServer(url, **options), ReceivedStore(folder, quota_bytes=1 << 24))


def stored(folder: Path) -> int:
    """How many files came."""
    return sum(1 for _ in folder.rglob("*.dcm"))


# ── DICOMweb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_studies_are_found_with_date_and_description(url: str, held: Held, tmp_path: Path) -> None:
    """QIDO-RS tells what a prior is shown with; times are in the site's zone."""
    held.put(radiograph(PIXELS, StudyDate="20250102", StudyTime="0830", StudyDescription="Thorax", PatientID="P7"))
    archive = WebArchive(WebServer(url), ReceivedStore(tmp_path, quota_bytes=1), ZoneInfo("Europe/Vienna"))
    assert archive.studies(Wanted(patient_id="P7")) == [
        StudyFound("1.2.3", datetime(2025, 1, 2, 7, 30, tzinfo=UTC), "Thorax", (), "A1", "P7", "")
    ]
    assert archive.studies(Wanted(patient_id="P8")) == []


def test_what_does_not_match_is_left_out() -> None:
    """An archive that ignores a key answers with other patients' studies; none of them is taken for what was asked."""
    mine, other = Dataset(), Dataset()
    mine.StudyInstanceUID, mine.PatientID = "1.1", "P7"
    other.StudyInstanceUID, other.PatientID = "1.2", "p7"
    found = studies_of([mine, other, Dataset()], Wanted(patient_id="P7"), UTC)
    assert [one.study_instance_uid for one in found] == ["1.1"]


def test_only_what_may_be_drafted_from_is_fetched(url: str, held: Held, tmp_path: Path) -> None:
    """Localisers, derived images and reports stay in the archive; of many views the first eight come."""
    held.put(radiograph(PIXELS, SOPInstanceUID="7.0", ImageType=["DERIVED", "SECONDARY"]))
    held.put(radiograph(PIXELS, SOPInstanceUID="7.99", Modality="SR"))
    held.put(*(radiograph(PIXELS, SOPInstanceUID=f"7.{n}", ViewPosition="LL") for n in range(1, 11)))
    held.put(radiograph(PIXELS, SOPInstanceUID="7.50", ViewPosition="PA"))
    assert web(tmp_path, url).bring("1.2.3") == 8
    assert stored(tmp_path) == 8
    asked = [path.rsplit("/", 1)[1] for path in held.asked if "instances" in path]
    assert asked[0] == "7.50"
    assert not {"7.0", "7.99"} & set(asked)


def test_password_and_token_are_sent_and_read_anew(url: str, held: Held, tmp_path: Path) -> None:
    """Basic and bearer authentication; a file that is replaced holds from the next request on."""
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    bearer = web(tmp_path / "s", url, token_file=str(secret))
    bearer.studies(ANY)
    secret.write_text("second\n")
    bearer.studies(ANY)
    web(tmp_path / "s", url, user="inlay", password_file=str(secret)).studies(ANY)
    assert [each["Authorization"] for each in held.headers] == [
        "Bearer first",
        "Bearer second",
        "Basic aW5sYXk6c2Vjb25k",
    ]
    secret.unlink()
    with pytest.raises(ArchiveProblem) as problem:
        bearer.studies(ANY)
    assert problem.value.code == "refused"


def test_client_certificate_and_the_archives_own(held: Held, tmp_path: Path) -> None:
    """An archive that asks for certificates is served with ours; one whose own we do not trust is not spoken to."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    ca, ours = tmp_path / "ca.pem", tmp_path / "ours.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("inlay").private_key_and_cert_chain_pem.write_to_path(ours)
    with web_archive(held, server) as url:
        assert web(tmp_path, url, ca=str(ca), certificate=str(ours)).studies(ANY) == []
        for bad in ({"ca": str(ca)}, {"certificate": str(ours)}):
            with pytest.raises(ArchiveProblem) as problem:
                web(tmp_path, url, **bad).studies(ANY)
            assert problem.value.code == "away"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((401, "text/plain", b""), "refused"),
        ((403, "text/plain", b""), "refused"),
        ((500, "text/plain", b"Patricia"), "away"),
        ((503, "text/plain", b""), "away"),
        ((400, "text/plain", b""), "answer"),
        ((404, "text/plain", b""), "answer"),
        ((200, "application/dicom+json", b"[{"), "answer"),
        ((200, "application/dicom+json", b'[{"0020000D": 5}]'), "answer"),
        ((200, "text/html", b"<p>log in</p>"), "answer"),
    ],
)
def test_bad_answers_have_a_kind_and_no_text(
    url: str, held: Held, tmp_path: Path, answer: tuple[int, str, bytes], code: str
) -> None:
    """What an archive answers instead is one of three kinds, and neither its text nor what was asked is repeated."""
    held.instead = lambda _: answer
    with pytest.raises(ArchiveProblem) as problem:
        web(tmp_path, url).studies(Wanted(patient_id="P-SECRET"))
    assert problem.value.code == code
    assert "Patricia" not in str(problem.value)
    assert "SECRET" not in str(problem.value)


def test_nothing_found_is_no_error(url: str, held: Held, tmp_path: Path) -> None:
    """204 and 404 mean that there is none (yet)."""
    held.instead = lambda _: (204, "application/dicom+json", b"")
    archive = web(tmp_path, url)
    assert archive.studies(ANY) == []
    held.instead = lambda _: None
    assert archive.bring("1.2.3") == 0


def test_an_archive_that_drips_is_given_up(url: str, held: Held, tmp_path: Path) -> None:
    """A byte now and then keeps a connection alive for ever; the whole answer has a deadline."""
    held.put(radiograph(PIXELS))
    held.drip_s = 0.02
    with pytest.raises(ArchiveProblem) as problem:
        web(tmp_path, url, deadline_seconds=0.3).studies(ANY)
    assert problem.value.code == "away"


def test_an_archive_that_accepts_and_is_silent_is_given_up(tmp_path: Path) -> None:
    """A server that hangs is away after the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ArchiveProblem) as problem:
            web(tmp_path, f"http://127.0.0.1:{port}", timeout_seconds=0.2).studies(ANY)
        assert problem.value.code == "away"
        dimse = DimseArchive(DimseServer("PACS", "127.0.0.1", port, timeout_seconds=0.2), "INLAY")
        with pytest.raises(ArchiveProblem) as problem:
            dimse.studies(ANY)
        assert problem.value.code == "away"


def test_an_answer_without_end_is_given_up(
    url: str, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than an answer may be is not read into memory."""
    archive = web(tmp_path, url)
    adapter = archive._session.get_adapter(url)
    monkeypatch.setattr(adapter, "_most_bytes", 10_000)
    held.instead = lambda _: (200, "application/dicom+json", b"[" + b" " * 20_000 + b"]")
    with pytest.raises(ArchiveProblem):
        archive.studies(ANY)


def test_an_image_that_breaks_off_is_not_kept(url: str, held: Held, tmp_path: Path) -> None:
    """Half a multipart body, or a part that is no whole file, leaves nothing in the store."""
    held.put(radiograph(PIXELS, SOPInstanceUID="7.1"))
    _, content_type, whole = multipart(b"x" * 200)
    for body in (whole[:-40], whole):
        instead = (200, content_type, body)
        held.instead = lambda path, instead=instead: instead if "instances" in path else None  # type: ignore[misc]
        with pytest.raises(ArchiveProblem) as problem:
            web(tmp_path, url).bring("1.2.3")
        assert problem.value.code == "answer"
    assert stored(tmp_path) == 0


@given(st.lists(st.binary(max_size=60), max_size=4), st.from_regex(r"[a-zA-Z0-9'=_.-]{1,20}", fullmatch=True))
def test_parts_come_out_as_they_went_in(files: list[bytes], boundary: str) -> None:
    """Whatever bytes the parts hold, they are given back; the boundary may be quoted or not."""
    mark = b"--" + boundary.encode()
    if any(mark in b"\r\n" + one + b"\r\n" for one in files):
        return
    _, _, body = multipart(*files, boundary=boundary)
    assert list(parts(f'multipart/related; type="application/dicom"; boundary="{boundary}"', body)) == files


@given(st.text(max_size=40), st.binary(max_size=80))
def test_no_body_breaks_the_parser(content_type: str, body: bytes) -> None:
    """Whatever came, the answer is parts or an `ArchiveProblem`."""
    with contextlib.suppress(ArchiveProblem):
        assert all(isinstance(part, bytes) for part in parts(content_type, body))


def failed(reason: int) -> bytes:
    """A STOW-RS answer about an object that was not stored."""
    return json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}).encode()


@pytest.mark.parametrize(("reason", "taken"), [(0x0111, True), (0x0110, False), (0xA900, False)])
@pytest.mark.parametrize("status", [200, 409])
def test_what_an_archive_says_of_an_object(
    url: str, held: Held, tmp_path: Path, reason: int, taken: bool, status: int
) -> None:
    """That it is there already is success, whatever the HTTP status; every other reason is a rejection."""
    held.instead = lambda _: (status, "application/dicom+json", failed(reason))
    archive = web(tmp_path, url)
    if taken:
        archive.send(radiograph(PIXELS))
        return
    with pytest.raises(ArchiveProblem) as problem:
        archive.send(radiograph(PIXELS))
    assert problem.value.code == "rejected"


def test_what_is_sent_is_a_whole_file(url: str, held: Held, tmp_path: Path) -> None:
    """STOW-RS takes Part 10 files: with preamble, and with file meta information that names the object."""
    dataset = radiograph(PIXELS, SOPInstanceUID="7.1")
    web(tmp_path, url).send(dataset)
    (body,) = held.received
    (part,) = parts('multipart/related; boundary="0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"', body)
    assert read(part).file_meta.MediaStorageSOPInstanceUID == "7.1"


# ── DIMSE ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_c_find_and_c_move(held: Held, tmp_path: Path) -> None:
    """Studies are found by accession number; only series of images and rejection notes are moved."""
    held.put(radiograph(PIXELS, SOPInstanceUID="7.1", StudyDate="20250102"))
    held.put(radiograph(PIXELS, SOPInstanceUID="7.2", SeriesInstanceUID="1.2.3.2", Modality="SR", StudyDate="20250102"))
    with storage(tmp_path) as scp, dimse_archive(held, {"INLAY": scp.port}) as port:
        archive = DimseArchive(DimseServer("PACS", "127.0.0.1", port), "INLAY")
        (found,) = archive.studies(ANY)
        assert found.studied_at == datetime(2025, 1, 2, tzinfo=UTC)
        assert archive.bring(found.study_instance_uid) == 1
        assert archive.bring("9.9") == 0
        assert held.asked.count("move") == 1
        assert len(scp.files) == 1


def test_a_destination_that_the_archive_does_not_know_is_told(held: Held) -> None:
    """A801: somebody has to enter our AE title in the archive."""
    held.put(radiograph(PIXELS))
    with dimse_archive(held, {}) as port:
        archive = DimseArchive(DimseServer("PACS", "127.0.0.1", port), "INLAY")
        with pytest.raises(ArchiveProblem, match="destination"):
            archive.bring("1.2.3")


def test_an_archive_that_is_not_there_is_away() -> None:
    """A closed port is an archive that is away."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ArchiveProblem) as problem:
        DimseArchive(DimseServer("PACS", "127.0.0.1", port), "INLAY").studies(ANY)
    assert problem.value.code == "away"


# ── as an image source ───────────────────────────────────────────────────────────────────────────────────────────────


class Scripted:
    """An archive that does what a test says."""

    def __init__(self, *outcomes: object, studies: int = 0) -> None:
        self._outcomes = iter(outcomes)
        self._studies = studies
        self.calls = 0

    def studies(self, wanted: Wanted) -> list[StudyFound]:
        """So many studies."""
        return [StudyFound(f"1.{n}", None, "", (), wanted.accession_number, "", "") for n in range(self._studies)]

    def bring(self, _study_instance_uid: str) -> int:
        """The next outcome."""
        self.calls += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return int(str(outcome))


def source(folder: Path, archive: Scripted, times: Iterator[float]) -> ArchiveImages:
    """The port over a scripted archive, with a clock that jumps."""
    now = [0.0]

    def clock() -> float:
        return now[0]

    made = ArchiveImages(FolderImages(FolderIndex(folder)), archive, first_pause_s=5, now=clock)
    made.tick = lambda: now.__setitem__(0, next(times))  # type: ignore[attr-defined]
    return made


def test_what_is_not_there_is_asked_for_less_and_less(tmp_path: Path) -> None:
    """A study that the archive lacks is asked for again after 5, 10, 20 seconds, and at last every five minutes."""
    archive = Scripted(*[0] * 2000)
    images = source(tmp_path, archive, itertools.count(1.0))
    for _ in range(1200):
        images.find("1.2.3", None)
        images.tick()  # type: ignore[attr-defined]
    # At 0, 5, 15, 35, 75, 155, 315, then every 300 seconds.
    assert archive.calls == 9


def test_an_archive_that_is_away_is_left_alone(tmp_path: Path) -> None:
    """While it rests no other study is asked for either, and what comes out is that the images are not here yet."""
    archive = Scripted(ArchiveProblem("away", "x"), 0)
    images = source(tmp_path, archive, iter([1.0, 6.0]))
    with pytest.raises(Unavailable) as away:
        images.find("1.2.3", None)
    assert away.value.code == "archive-away"
    images.tick()  # type: ignore[attr-defined]
    assert images.find("1.2.4", None) == []
    images.tick()  # type: ignore[attr-defined]
    assert images.find("1.2.4", None) == []
    assert archive.calls == 2


def test_a_full_store_is_unavailable(url: str, held: Held, tmp_path: Path) -> None:
    """What the archive has and we cannot keep is a matter for later, not the end of the job."""
    held.put(radiograph(PIXELS))
    archive = WebArchive(WebServer(url), ReceivedStore(tmp_path, quota_bytes=10))
    with pytest.raises(Unavailable) as full:
        ArchiveImages(FolderImages(FolderIndex(tmp_path)), archive).find("1.2.3", None)
    assert full.value.code == "store-unusable"


@pytest.mark.parametrize(("studies", "calls"), [(0, 0), (1, 1), (2, 0)])
def test_an_accession_number_of_two_studies_brings_none(tmp_path: Path, studies: int, calls: int) -> None:
    """Accession numbers of two assigners may be equal: then nothing is taken for the order's images."""
    archive = Scripted(0, studies=studies)
    assert source(tmp_path, archive, iter(())).find(None, "A1") == []
    assert archive.calls == calls


def test_a_hanging_archive_holds_no_other_duty(tmp_path: Path) -> None:
    """While one duty waits for an archive, the watched folder is swept by another."""
    from inlay_gateway.relay import Duty, work

    hanging, stopped, swept = threading.Event(), threading.Event(), threading.Event()

    def ask() -> int:
        hanging.wait(60)
        return 0

    def sweep() -> int:
        swept.set()
        return 0

    thread = threading.Thread(target=work, args=([Duty("archive-0", 1, ask), Duty("images", 1, sweep)], stopped))
    thread.start()
    assert swept.wait(30)
    hanging.set()
    stopped.set()
    thread.join()
