import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from inlay_model import BadImage, BadRequest, Gap, Lock, Section
from inlay_model.__main__ import main
from inlay_model.asked import REQUEST, parse_sections, read_request
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.render import phantom as phantom_of
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
    pixels = np.eye(384, dtype=np.uint8)
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


def test_named_errors_become_one_line_and_exit_status_two(
    tmp_path: Path, phantom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing checkpoint is one readable line with its code, not a traceback."""
    assert main(["draft", "--image", phantom, "--model", str(tmp_path / "none")]) == 2
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


@pytest.mark.parametrize(
    ("written", "gap"),
    [
        ("[...5-20]", Gap(5, 20)),
        ("[...5-]", Gap(5)),
        ("[... left pleura]", Gap(hint="left pleura")),
        ("[...5-20 pleura]", Gap(5, 20, "pleura")),
        ("[... 5 mm nodule]", Gap(hint="5 mm nodule")),
        ("[...|No effusion. ]", Gap(replaces="No effusion. ")),
        ("[...|]", Gap(replaces="")),
        ("[...20 pleura |No effusion.]", Gap(0, 20, "pleura", "No effusion.")),
    ],
)
def test_a_gap_has_bounds_a_hint_and_what_it_replaces(written: str, gap: Gap) -> None:
    """All that the engine takes of a gap can be written into the brackets, between locks that stay as they are."""
    assert parse_sections([f"findings=A.  {written}\tB."]) == [Section("findings", (Lock("A.  "), gap, Lock("\tB.")))]


@pytest.mark.parametrize("written", ["[...20pleura]", "[...-5]", "[...", "[...5--9]", "[...|a]b [...x"])
def test_what_is_meant_as_a_gap_and_is_none_is_not_locked(written: str) -> None:
    """A mistyped gap would come back as text of the report; the error says how one is written."""
    with pytest.raises(BadRequest, match=r"A gap is written \[\.\.\.\]"):
        parse_sections([f"findings=A. {written}"])


def _in_a_section(*items: object) -> dict[str, object]:
    return {"sections": [{"name": "findings", "items": list(items)}]}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"sections": "abc"}, "sections is no list"),
        ({"sections": [{"name": "findings"}]}, "section 1: a section is written"),
        ({"sections": [{"name": 3, "items": []}]}, "section 1: a section is written"),
        ({"sections": [{"name": "findings", "items": "A."}]}, "section 1: items is no list"),
        (_in_a_section("A."), "section 1, item 1: an item is a"),
        (_in_a_section({"lock": "A.", "gap": {}}), "section 1, item 1: an item is a"),
        (_in_a_section({"lock": None}), "section 1, item 1: a lock is text"),
        (_in_a_section({"lock": "A."}, {"gap": None}), "section 1, item 2: a gap is an object"),
        (_in_a_section({"gap": {"most": 3}}), "may have min_tokens, max_tokens, hint, replaces"),
        (_in_a_section({"gap": {"min_tokens": "3"}}), "min_tokens of a gap is a whole number"),
        (_in_a_section({"gap": {"min_tokens": None}}), "min_tokens of a gap is a whole number"),
        (_in_a_section({"gap": {"max_tokens": True}}), "max_tokens of a gap is a whole number"),
        (_in_a_section({"gap": {"hint": 3}}), "hint of a gap is text"),
        (_in_a_section({"gap": {"min_tokens": 5, "max_tokens": 3}}), "0 <= min_tokens <= max_tokens"),
        ({"sections": []}, "at least one section"),
    ],
)
def test_a_request_of_another_form_says_where_and_how_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: object, named: str
) -> None:
    """Every wrong key, type or place in a request's file is one line that names it, before a checkpoint is loaded."""
    file = tmp_path / "request.json"
    file.write_text(json.dumps(said))
    assert main(["infill", "--request", str(file), "--model", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.endswith("[bad-request]\n")


def test_the_request_and_the_gaps_in_the_help_are_read(tmp_path: Path) -> None:
    """What the help shows as a request is one, with every key that a gap has."""
    file = tmp_path / "request.json"
    file.write_text(REQUEST)
    findings, impression = read_request(file)
    assert findings.items[1] == Gap(5, 20, "pleura", "No pleural effusion.")
    assert impression.items == (Gap(),)


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({}, "no whole run record"),
        ("abc", "run is no object"),
        ({"settings": {"stepps": 3}}, "stepps"),
        ({"settings": {"steps": "x"}}, "no whole run record"),
        ({"settings": "x"}, "no whole run record"),
        ({"context": {"manner": "x"}}, "manner"),
    ],
)
def test_a_record_of_another_form_is_named_before_the_work(
    demonstration: str, phantom: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: object, named: str
) -> None:
    """A run record that lacks fields or has others inside is a bad request, not a traceback."""
    file = tmp_path / "run.json"
    assert main(["draft", "--image", phantom, "--model", demonstration, "--steps", "1", "--record", str(file)]) == 0
    said = json.loads(file.read_text())
    said["run"] = {**said["run"], **run} if run and isinstance(run, dict) else run
    file.write_text(json.dumps(said))
    capsys.readouterr()
    assert main(["replay", str(file), "--image", phantom, "--model", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.endswith("[bad-request]\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--record", "{folder}/none/run.json"],
        ["--record", "{folder}"],
        ["--warm-start", "0.5"],
        ["--rewrite", "--style", "concise"],
        ["--rewrite"],
        ["--seed", "-1"],
        ["--image", "{folder}/none.png"],
    ],
)
def test_what_cannot_be_is_said_before_a_checkpoint_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """The checkpoint that is named is not there either: the error is about the option."""
    given = [option.format(folder=tmp_path) for option in options]
    assert main(["infill", "--section", "findings=[...]", "--model", str(tmp_path / "none"), *given]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "checkpoint" not in err


@pytest.mark.parametrize(
    "command",
    [
        ["phantoms", "--vqa", "1"],
        ["merge", "--model", "none", "--adapter", "none"],
        ["fetch", "owner/name", "--revision", "0" * 40],
        ["train", "--config", "none.toml"],
    ],
)
def test_a_folder_that_cannot_be_made_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands there: said first, whatever else is not there."""
    (tmp_path / "file").touch()
    assert main([*command, "--out", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "cannot be made" in err
    assert err.endswith("[bad-request]\n")
    assert main([*command, "--out", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--threads", "--steps", "--alternatives"])
@pytest.mark.parametrize("number", ["0", "-1", "x", "²"])
def test_counts_are_whole_numbers_above_zero(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused as a misuse, with the option's name."""
    with pytest.raises(SystemExit) as leaving:
        main(["infill", "--section", "findings=[...]", option, number])
    assert leaving.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint that was asked to dispute nearly everything, and says how often scores are right."""
    folder = tmp_path_factory.mktemp("doubtful")
    return str(save_tiny(folder, dispute_threshold=1e-6, calibration=[[-20, 0.1], [0, 0.9]], takes_hints=True))


def test_disputes_alternatives_and_confidence_are_shown(
    doubtful: str, phantom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To people with words and numbers, beside a report that stands alone; the same in JSON, with its spans."""
    lock = "Large right pleural effusion. "
    asked = ["infill", "--section", f"findings={lock}[...20-24]", "--section", "impression=No effusion. [...20-24]"]
    common = ["--image", phantom, "--model", doubtful, "--steps", "2", "--alternatives", "2", "--confidence"]
    assert main([*asked, *common]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Findings: {lock.strip()}")
    assert "disputed" not in out
    assert main([*asked, *common, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    texts = {(part["name"], piece["item"]): piece["text"] for part in answer["sections"] for piece in part["pieces"]}
    assert answer["disputes"]
    for dispute in answer["disputes"]:
        said = texts[dispute["section"], dispute["item"]][dispute["start"] : dispute["end"]].strip()
        assert dispute["text"] == said
        assert f"disputed in {dispute['section']}: {said} (probability {dispute['probability']:.2g}" in err
    assert {(one["section"], one["item"]) for one in answer["alternatives"]} == {("findings", 1), ("impression", 1)}
    assert "findings, gap 1, best first:\n  1. " in err
    best = next(one for one in answer["alternatives"] if one["section"] == "findings")["texts"][0]
    assert best["text"] == texts["findings", 1].strip()
    assert f"(score {best['score']:.3f}" in err
    assert answer["confidence"]
    for word in answer["confidence"]:
        assert word["text"] == texts[word["section"], word["item"]][word["start"] : word["end"]].strip()
        assert f"{word['text']} {word['probability']:.2f}" in err
    assert "confidence in findings, gap 1: " in err


def test_the_demonstration_disputes_an_effusion_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint that ships, on a normal phantom: the lock is printed as it is, and doubted beside it."""
    picture = tmp_path / "phantom.png"
    Image.fromarray(phantom_of(3, Findings.normal()).image).save(picture)
    asked = ["infill", "--section", "findings=Large right pleural effusion. [...]", "--image", str(picture)]
    assert main([*asked, "--demo-model-on-any-study", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Findings: Large right pleural effusion.")
    assert re.search(r"^disputed in findings: .*(pleural|effusion).* \(probability ", err, re.MULTILINE)


def test_a_long_report_may_fill_several_canvases(demonstration: str, phantom: str, tmp_path: Path) -> None:
    """The option is a setting of the run, which its record has."""
    record = tmp_path / "run.json"
    asked = ["draft", "--image", phantom, "--model", demonstration, "--steps", "1", "--canvases", "2"]
    assert main([*asked, "--record", str(record)]) == 0
    assert json.loads(record.read_text())["run"]["settings"]["canvases"] == 2
    assert main(["replay", str(record), "--image", phantom, "--model", demonstration]) == 0


def test_what_was_not_looked_for_is_null(demonstration: str, phantom: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint without a threshold disputes nothing, which differs from having found nothing."""
    asked = ["infill", "--section", "findings=No effusion. [...2]", "--image", phantom, "--model", demonstration]
    assert main([*asked, "--steps", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["disputes"], answer["confidence"], answer["alternatives"]) == (None, None, [])


def test_an_earlier_run_is_gone_on_from(doubtful: str, phantom: str, tmp_path: Path) -> None:
    """Its gaps replace what it wrote, its locks stand; the same request without that text has another digest."""
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    common = ["--image", phantom, "--model", doubtful, "--steps", "4"]
    section = "findings=The heart is normal in size. [...6 pleura] No pneumothorax."
    assert main(["infill", "--section", section, *common, "--record", str(first)]) == 0
    assert main(["infill", "--earlier", str(first), "--warm-start", "0.25", *common, "--record", str(again)]) == 0
    before, after = (json.loads(file.read_text()) for file in (first, again))
    lock, gap, end = after["sections"][0]["items"]
    assert (lock, end) == ({"lock": "The heart is normal in size. "}, {"lock": " No pneumothorax."})
    replaced = before["answer"][0]["pieces"][1]["text"]
    assert gap == {"gap": {"min_tokens": 0, "max_tokens": 6, "hint": "pleura", "replaces": replaced}}
    assert after["run"]["settings"]["warm_start"] == 0.25
    assert main(["replay", str(again), "--image", phantom, "--model", doubtful]) == 0


def test_a_draft_goes_on_from_what_it_begins_with_and_is_said_again_in_a_style(
    phantom: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--begin is locked and replayed; --rewrite takes the draft's own text, of any checkpoint trained for that."""
    model = str(save_tiny(tmp_path / "model", styles=["concise"], rewrites=True))
    record, again = tmp_path / "run.json", tmp_path / "again.json"
    common = ["--image", phantom, "--model", model]
    assert main(["draft", "--begin", "No effusion. ", *common, "--steps", "2", "--record", str(record)]) == 0
    assert capsys.readouterr().out.startswith("Findings: No effusion. ")
    assert main(["replay", str(record), *common]) == 0
    rewriting = ["--rewrite", "--style", "concise", "--steps", "2", "--record", str(again)]
    assert main(["infill", "--earlier", str(record), *common, *rewriting]) == 0
    said = json.loads(again.read_text())
    assert said["run"]["context"] == {"style": "concise", "rewrite": True}
    assert said["sections"][0]["items"][0] == {"lock": "No effusion. "}


def test_a_precision_is_taken_and_an_unknown_one_refused(
    demonstration: str, phantom: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option reaches the loader, which says what this checkpoint's sizes rule out."""
    asked = ["draft", "--image", phantom, "--model", demonstration, "--steps", "1", "--precision"]
    assert main([*asked, "bf16"]) == 0
    capsys.readouterr()
    assert main([*asked, "4bit"]) == 2
    assert "4bit" in capsys.readouterr().err


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
    with pytest.raises(BadImage, match="Convert it to DICOM or PNG"):
        read_picture(tmp_path / "a.txt")
    empty = write_dicom(tmp_path / "e.dcm", np.zeros((2, 2), np.uint8))
    dataset = pydicom.dcmread(empty)
    del dataset.PixelData
    pydicom.dcmwrite(empty, dataset, enforce_file_format=True)
    with pytest.raises(BadImage):
        read_picture(empty)


def test_an_image_without_contrast_is_no_radiograph(
    demonstration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All black, all white, and a window beside all values, which makes it so: a named error and not a report."""
    black, white = tmp_path / "black.png", tmp_path / "white.png"
    Image.new("L", (400, 400)).save(black)
    Image.new("RGB", (400, 400), "white").save(white)
    beside = write_dicom(tmp_path / "beside.dcm", np.eye(64, dtype=np.uint16) + 100, WindowCenter=4000, WindowWidth=10)
    for image in (black, white, beside):
        given = ["draft", "--image", str(image), "--model", demonstration, "--demo-model-on-any-study"]
        assert main(given) == 2
        assert re.search(r"needs contrast.*Send the image itself.*\[bad-image\]", capsys.readouterr().err)


def test_help_teaches_gaps_and_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """The top help names every command and shows how a gap is written."""
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    out = capsys.readouterr().out
    assert leaving.value.code == 0
    assert "[...]" in out
    for command in ("draft", "infill", "replay", "bench", "eval", "train"):
        assert command in out


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("draft", ["draft --image phantom.dcm"]),
        ("infill", ["[...5-20 pleura]", '"min_tokens": 5, "max_tokens": 20, "hint": "pleura"', "--earlier draft.json"]),
        ("replay", ["replay run.json --image phantom.dcm"]),
    ],
)
def test_help_of_a_command_says_what_it_does_and_shows_it(
    command: str, taught: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A description, and examples that can be typed."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert all(text in out for text in taught)
    assert "example" in out


@pytest.mark.parametrize("command", ["bench", "eval", "train", "merge", "digest", "fetch", "phantoms"])
def test_every_other_command_shows_itself_in_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help that ends with the list of options teaches nobody what to type."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options, _, examples = capsys.readouterr().out.partition("-h, --help")
    assert f"inlay model {command}" in examples
    assert max(map(len, options.splitlines())) <= 120


@pytest.mark.parametrize("option", ["--style=x", "--steps=2", "--seed=2", "--watch", "--record=x"])
def test_a_replay_takes_no_option_that_it_would_ignore(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What decides a run stands in its record."""
    with pytest.raises(SystemExit) as leaving:
        main(["replay", "run.json", option])
    assert leaving.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
