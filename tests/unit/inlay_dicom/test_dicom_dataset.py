import logging
import os
import struct
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless

from inlay_dicom.dataset import Limits, header_of, place_of, read, read_header
from inlay_dicom.errors import InvalidDicom
from inlay_testkit.dicom import PHANTOM_TAGS, file_bytes, in_syntax, radiograph

PIXELS = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)
SECRET = "Doe^Jane"


def refused(code: str, source: bytes | Path, limits: Limits | None = None) -> InvalidDicom:
    """The error of reading `source`, which must have that code."""
    with pytest.raises(InvalidDicom) as caught:
        read(source, limits or Limits())
    assert caught.value.code == code
    return caught.value


def written(folder: Path, data: bytes) -> Path:
    """A file of these bytes."""
    path = folder / "one.dcm"
    path.write_bytes(data)
    return path


def test_header_tells_identity_and_view(tmp_path: Path) -> None:
    """The header carries what choosing needs, stripped and in upper case."""
    dataset = radiograph(
        PIXELS, AccessionNumber=" A7 ", ViewPosition="pa", BodyPartExamined="Chest", SeriesNumber=3, ImageLaterality="U"
    )
    header = read_header(written(tmp_path, file_bytes(dataset)))
    assert (header.study_instance_uid, header.accession_number) == ("1.2.3", "A7")
    assert (header.modality, header.view_position, header.body_part, header.laterality) == ("DX", "PA", "CHEST", "U")
    assert (header.rows, header.columns, header.series_number, header.photometric) == (40, 48, 3, "MONOCHROME2")
    assert header.image_type == ("ORIGINAL", "PRIMARY")
    assert header.has_pixels
    assert header.complete


def test_absent_values_are_empty_not_errors(tmp_path: Path) -> None:
    """A file without the optional attributes has a header all the same: choosing decides, not reading."""
    dataset = radiograph(PIXELS, AccessionNumber=None, ViewPosition=None, ImageType=None, Modality=None)
    header = read_header(written(tmp_path, file_bytes(dataset)))
    assert (header.accession_number, header.view_position, header.image_type, header.modality) == ("", "", (), "")


@pytest.mark.parametrize("inner", [b"RY\x02\x00ab", b"UL\x03\x00abc"], ids=["no such VR", "no such length"])
def test_text_attribute_that_says_it_is_a_sequence_is_absent(inner: bytes) -> None:
    """A file may give any attribute any value representation, and the items within may be unreadable."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 4 + len(inner)) + struct.pack("<HH", 0x5249, 0x4D41) + inner
    element = struct.pack("<HH2sHL", 0x0008, 0x0008, b"SQ", 0, len(item)) + item
    header = header_of(read(file_bytes(radiograph(PIXELS, ImageType=None)) + element))
    assert header.image_type == ()
    assert header.rows == 40


@pytest.mark.parametrize(
    ("tags", "phantom"),
    [
        ({}, True),
        ({"ManufacturerModelName": "Another"}, False),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, False),
        ({"PatientID": "12345"}, True),
    ],
)
def test_phantom_needs_model_name_and_image_type(tags: dict[str, Any], phantom: bool) -> None:
    """A study is a phantom only if model name and image type both say so; the patient id alone says nothing."""
    assert header_of(radiograph(PIXELS, **(PHANTOM_TAGS | tags))).is_phantom is phantom


def test_real_chest_film_is_no_phantom() -> None:
    """A file of a real device is not taken for a phantom."""
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    assert not read_header(Path(path)).is_phantom


def test_not_dicom_is_said() -> None:
    """Bytes without the mark of Part 10 are refused as no DICOM, not as a broken file."""
    refused("not-dicom", b"\x89PNG" + bytes(500))
    refused("not-dicom", b"short")


def test_empty_file_is_truncated() -> None:
    """An empty file is one whose writing has not begun."""
    refused("truncated", b"")


def test_missing_transfer_syntax_names_its_place() -> None:
    """Without a transfer syntax nothing is guessed; the error names the attribute."""
    path = get_testdata_file("meta_missing_tsyntax.dcm")
    assert isinstance(path, str)
    assert refused("bad-tag", Path(path)).place == "(0002,0010) TransferSyntaxUID"


def test_size_limit_is_looked_at_before_reading(tmp_path: Path) -> None:
    """A file over the limit is refused by its size, as bytes and as a path (a sparse terabyte is never read)."""
    refused("too-large", bytes(2000), Limits(file_bytes=1000))
    path = tmp_path / "huge.dcm"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    refused("too-large", path)
    with pytest.raises(InvalidDicom) as caught:
        read_header(path)
    assert caught.value.code == "too-large"


def test_deflated_bomb_is_refused(tmp_path: Path) -> None:
    """A small deflated file that would inflate beyond the limit is refused, for whole files and for headers."""
    data = file_bytes(in_syntax(radiograph(np.zeros((1000, 1000), np.uint16)), DeflatedExplicitVRLittleEndian))
    assert len(data) < 20_000
    limits = Limits(file_bytes=100_000)
    refused("too-large", data, limits)
    with pytest.raises(InvalidDicom) as caught:
        read_header(written(tmp_path, data), limits)
    assert caught.value.code == "too-large"


def test_deflated_file_is_read() -> None:
    """The deflated transfer syntax is understood."""
    dataset = read(file_bytes(in_syntax(radiograph(PIXELS), DeflatedExplicitVRLittleEndian)))
    assert dataset.PixelData == PIXELS.tobytes()


@pytest.mark.parametrize("syntax", ["native", "encapsulated", "deflated"])
def test_every_cut_file_is_incomplete(tmp_path: Path, syntax: str) -> None:
    """Wherever a copy stands, the header of the part says that the file is not complete, or cannot be read at all."""
    dataset = radiograph(PIXELS)
    if syntax == "encapsulated":
        dataset = in_syntax(dataset, JPEGLSLossless)
    if syntax == "deflated":
        dataset = in_syntax(dataset, DeflatedExplicitVRLittleEndian)
    data = file_bytes(dataset)
    assert read_header(written(tmp_path, data)).complete
    for length in range(0, len(data) - 1, 7):
        try:
            header = read_header(written(tmp_path, data[:length]))
        except InvalidDicom:
            continue
        assert not header.complete or not header.has_pixels, length


def test_file_whose_pixels_break_off_is_incomplete() -> None:
    """A real truncated file is recognised from its header alone."""
    path = get_testdata_file("MR_truncated.dcm")
    assert isinstance(path, str)
    header = read_header(Path(path))
    assert header.has_pixels
    assert not header.complete


def test_header_is_read_without_the_pixels(tmp_path: Path) -> None:
    """Reading a header costs the header: of a large sparse file, next to nothing is read."""
    data = file_bytes(radiograph(PIXELS))
    start = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path = tmp_path / "sparse.dcm"
    with path.open("wb") as file:
        file.write(data[:start] + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", 1 << 30))
        file.truncate(start + 12 + (1 << 30))
    header = read_header(path, Limits(file_bytes=2 << 30))
    assert header.complete
    assert path.stat().st_blocks * 512 < 1 << 20


def test_rejection_note_names_what_it_rejects() -> None:
    """A key object selection with a rejection title takes its instances out of use; another title does not."""
    note = key_object("113001", "1.2.3.4")
    assert header_of(note).rejects == ("1.2.3.4",)
    assert header_of(key_object("113000", "1.2.3.4")).rejects == ()


def key_object(title: str, instance: str) -> Dataset:
    """A rejection note as IHE IOCM has it, in its smallest form."""
    name, reference, series, study, note = (Dataset() for _ in range(5))
    name.CodeValue = title
    reference.ReferencedSOPInstanceUID = instance
    series.ReferencedSOPSequence = [reference]
    study.ReferencedSeriesSequence = [series]
    note.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    note.ConceptNameCodeSequence = [name]
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    return note


def test_errors_and_logs_hold_no_value(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """A patient's name in a broken file shows up in no error, log line or output: pydicom's own messages quote it."""
    data = file_bytes(radiograph(PIXELS, PatientName=SECRET, PatientID=SECRET, StudyDate="20260101"))
    broken = [data[:length] for length in range(200, len(data), 97)]
    broken.append(data.replace(b"20260101", SECRET.encode()))
    said = []
    with caplog.at_level(logging.DEBUG):
        for one in broken:
            try:
                header_of(read(one))
            except InvalidDicom as problem:
                said += traceback.format_exception(problem)
    assert said
    assert SECRET not in "".join(said)
    captured = capfd.readouterr()
    assert SECRET not in caplog.text + captured.out + captured.err


def test_place_names_tag_and_keyword() -> None:
    """Errors name attributes as the standard prints them."""
    assert place_of("Rows") == "(0028,0010) Rows"
    assert place_of("NoSuchThing") == "NoSuchThing"


@pytest.mark.skipif("INLAY_TEST_DATA" not in os.environ, reason="INLAY_TEST_DATA is not set")
def test_files_of_many_makers_have_headers() -> None:
    """Every file of the foreign collection has a complete header with its modality."""
    files = sorted((Path(os.environ["INLAY_TEST_DATA"]) / "dicom").glob("*.dcm"))
    assert files
    for path in files:
        header = read_header(path)
        assert header.complete
        assert header.modality in ("DX", "CR")


def test_deflate_stream_that_breaks_off_is_truncated() -> None:
    """A deflated dataset without its end is truncated, even where its first elements can be read."""
    data = file_bytes(in_syntax(radiograph(PIXELS), DeflatedExplicitVRLittleEndian))
    refused("truncated", data[:-20])
