import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from inlay_model import BadImage, BadRequest, Gap, Lock, Section
from inlay_model.__main__ import main
from inlay_model.commands import parse_sections, read_request
from inlay_model.study import read_picture
from inlay_testkit.tiny_diffusion import save_tiny


def write_dicom(path: Path, stored: np.ndarray, **elements: object) -> Path:
    """A minimal DX file with these pixels and further elements."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    bits = 8 * stored.dtype.itemsize
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint that calls itself the demonstration."""
    return str(save_tiny(tmp_path_factory.mktemp("demo"), demonstration=True))


@pytest.fixture
def phantom(tmp_path: Path) -> str:
    """A DICOM file whose header says that it is one of our phantoms."""
    pixels = np.random.default_rng(0).integers(0, 256, (384, 384), dtype=np.uint8)
    kinds = ["DERIVED", "PRIMARY", "PHANTOM"]
    return str(write_dicom(tmp_path / "phantom.dcm", pixels, ManufacturerModelName="Inlay Phantom", ImageType=kinds))


def test_the_demonstration_is_refused_on_what_is_no_phantom(
    demonstration: str, tmp_path: Path, phantom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A DICOM of another maker and a plain picture are refused by name; a phantom and the explicit flag are not."""
    pixels = np.zeros((384, 384), np.uint8)
    foreign = str(write_dicom(tmp_path / "x.dcm", pixels, ManufacturerModelName="Scanner", ImageType=["ORIGINAL"]))
    half = str(write_dicom(tmp_path / "y.dcm", pixels, ManufacturerModelName="Inlay Phantom", ImageType=["ORIGINAL"]))
    picture = str(tmp_path / "x.png")
    Image.fromarray(pixels).save(picture)
    common = ["--model", demonstration, "--steps", "1"]
    for path in (foreign, half, picture):
        assert main(["draft", "--image", path, *common]) == 2
        assert "not-a-phantom" in capsys.readouterr().err
    assert main(["draft", "--image", phantom, *common]) == 0
    assert "Synthetic phantom images only" in capsys.readouterr().err
    assert main(["draft", "--image", foreign, *common, "--demo-model-on-any-study"]) == 0


def test_infill_prints_locks_and_replay_gives_the_same_text(
    demonstration: str, phantom: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON output has every lock in its place; the record file replays to the same pieces."""
    record = tmp_path / "run.json"
    section = "findings=The heart is normal in size. [...3] No pneumothorax."
    common = ["--image", phantom, "--model", demonstration, "--json"]
    assert main(["infill", "--section", section, *common, "--steps", "2", "--record", str(record)]) == 0
    answer = json.loads(capsys.readouterr().out)
    pieces = answer["sections"][0]["pieces"]
    assert [piece["text"] for piece in pieces if piece["kind"] == "lock"] == [
        "The heart is normal in size. ",
        " No pneumothorax.",
    ]
    assert main(["replay", str(record), *common]) == 0
    assert json.loads(capsys.readouterr().out)["sections"] == answer["sections"]


def test_a_text_only_infill_needs_no_image(demonstration: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an image there is nothing to refuse: the gap is filled from the text alone."""
    asked = ["infill", "--section", "findings=[...2] No effusion.", "--model", demonstration, "--steps", "1"]
    assert main([*asked, "--watch"]) == 0
    assert "No effusion." in capsys.readouterr().out


def test_named_errors_become_one_line_and_exit_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing checkpoint is one readable line with its code, not a traceback."""
    assert main(["draft", "--image", str(tmp_path / "x.dcm"), "--model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: There is no checkpoint folder")


@pytest.mark.parametrize("command", [["replay"], ["infill", "--request"]])
def test_a_file_that_is_no_request_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """A record or a request that is not there, is no JSON, or holds something else."""
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[1]")
    for name, said in (("none", "cannot be read"), ("broken", "cannot be read"), ("other", "no JSON object with")):
        assert main([*command, str(tmp_path / f"{name}.json")]) == 2
        assert said in capsys.readouterr().err


def test_gaps_are_written_as_three_dots_in_brackets(tmp_path: Path) -> None:
    """`[...]` and `[...20]` are gaps, everything else is locked as it stands; the JSON form says the same."""
    written = parse_sections(["findings=A. [...] B.[...20]", "impression=[...]"])
    assert written == [
        Section("findings", (Lock("A. "), Gap(), Lock(" B."), Gap(max_tokens=20))),
        Section("impression", (Gap(),)),
    ]
    file = tmp_path / "request.json"
    items = [{"lock": "A. "}, {"gap": {}}, {"lock": " B."}, {"gap": {"max_tokens": 20}}]
    file.write_text(
        json.dumps({"sections": [{"name": "findings", "items": items}, {"name": "impression", "items": [{"gap": {}}]}]})
    )
    assert read_request(file) == written
    with pytest.raises(BadRequest):
        parse_sections(["no equals sign"])


def test_dicom_pixels_become_eight_bits_by_their_window(tmp_path: Path) -> None:
    """The window's ends are black and white; MONOCHROME1 is inverted; without a window the range is stretched."""
    stored = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)
    windowed = write_dicom(tmp_path / "w.dcm", stored, WindowCenter=1500.5, WindowWidth=1001)
    assert np.asarray(read_picture(windowed).image).tolist() == [[0, 0], [255, 255]]
    inverted = write_dicom(
        tmp_path / "i.dcm", stored, WindowCenter=1500.5, WindowWidth=1001, PhotometricInterpretation="MONOCHROME1"
    )
    assert np.asarray(read_picture(inverted).image).tolist() == [[255, 255], [0, 0]]
    assert np.asarray(read_picture(write_dicom(tmp_path / "p.dcm", stored)).image).tolist() == [[0, 64], [128, 255]]


def test_files_without_a_picture_are_named_errors(tmp_path: Path) -> None:
    """Files that are not there, folders, text files and DICOM files without pixels are refused."""
    for unreadable in (tmp_path / "none.png", tmp_path):
        with pytest.raises(BadImage, match=r"cannot be read .* Name a DICOM file or picture"):
            read_picture(unreadable)
    (tmp_path / "a.txt").write_text("no picture" * 30)
    with pytest.raises(BadImage):
        read_picture(tmp_path / "a.txt")
    empty = write_dicom(tmp_path / "e.dcm", np.zeros((2, 2), np.uint8))
    dataset = pydicom.dcmread(empty)
    del dataset.PixelData
    pydicom.dcmwrite(empty, dataset, enforce_file_format=True)
    with pytest.raises(BadImage):
        read_picture(empty)


def test_help_teaches_gaps_and_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """The top help names every command and shows how a gap is written."""
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    out = capsys.readouterr().out
    assert leaving.value.code == 0
    assert "[...]" in out
    for command in ("draft", "infill", "replay", "bench", "eval", "train"):
        assert command in out
