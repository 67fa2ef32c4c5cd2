"""Readers of published data sets, on made-up folders of their layout."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inlay_model.datasets import iu_xray, jsonl, mimic_cxr, slake, vqa_med_2019, vqa_rad
from inlay_model.datasets.items import DatasetProblem
from inlay_model.datasets.report_text import sections_of


def picture(path: Path) -> Path:
    """A small grey picture at this place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rad_pair(qid: int | str, phrase: str, **said: Any) -> dict[str, Any]:
    """A pair with the fields of the published file."""
    return {
        "qid": qid,
        "phrase_type": phrase,
        "image_name": "synpic1.jpg",
        "image_organ": "CHEST",
        "question": "Is there a nodule? ",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
        **said,
    }


def test_vqa_rad_is_split_by_the_phrase_type(tmp_path: Path) -> None:
    """Test questions are those marked so; stray blanks go, numbers become text, open questions are open."""
    pairs = [
        rad_pair("0", "freeform"),
        rad_pair(1, "test_freeform", answer_type="CLOSED "),
        rad_pair(2, "test_para", answer=5, answer_type="OPEN", question="How many?", question_type="COUNT"),
    ]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(pairs))
    image = picture(tmp_path / "VQA_RAD Image Folder" / "synpic1.jpg")
    (trained,) = vqa_rad.questions(tmp_path, "train")
    first, second = vqa_rad.questions(tmp_path, "test")
    assert (trained.id, trained.image) == ("vqa-rad-0", image)
    assert (first.text, first.answer, first.closed) == ("Is there a nodule?", "Yes", True)
    assert (second.answer, second.closed, second.kind) == ("5", False, "count")
    with pytest.raises(DatasetProblem, match=r"validation.*--split train or test"):
        vqa_rad.questions(tmp_path, "validate")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    """Questions without their images are refused with a name and a count, before any model is loaded."""
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps([rad_pair(1, "test_para")]))
    with pytest.raises(DatasetProblem, match=r"1 of the images .*/synpic1\.jpg\)\. Unpack the images"):
        vqa_rad.questions(tmp_path)
    with pytest.raises(DatasetProblem, match=r"no file.*Name the folder"):
        vqa_rad.questions(tmp_path / "VQA_RAD Image Folder")


def test_slake_is_read_in_one_language(tmp_path: Path) -> None:
    """English questions only, with their images under imgs/."""
    common = {"img_name": "xmlab1/source.jpg", "content_type": "Organ", "modality": "CT"}
    pairs = [
        {"qid": 7, "question": "Which organ?", "answer": "Lung", "answer_type": "OPEN", "q_lang": "en", **common},
        {"qid": 8, "question": "这是什么?", "answer": "肺", "answer_type": "OPEN", "q_lang": "zh", **common},
    ]
    (tmp_path / "test.json").write_text(json.dumps(pairs), encoding="utf-8")
    image = picture(tmp_path / "imgs" / "xmlab1" / "source.jpg")
    (only,) = slake.questions(tmp_path)
    assert (only.id, only.image, only.answer, only.kind) == ("slake-7", image, "Lung", "organ")
    assert slake.questions(tmp_path, language="zh")[0].answer == "肺"


SLAKE_PAIR = {
    "qid": 7,
    "img_name": "xmlab1/source.jpg",
    "question": "Which organ?",
    "answer": "Lung",
    "answer_type": "OPEN",
    "content_type": "Organ",
    "q_lang": "en",
}
PUBLISHED = [
    (slake.questions, "test.json", SLAKE_PAIR),
    (vqa_rad.questions, "VQA_RAD Dataset Public.json", rad_pair(1, "test_freeform")),
]


@pytest.mark.parametrize(("read", "name", "pair"), PUBLISHED, ids=["slake", "vqa_rad"])
def test_a_damaged_list_of_questions_is_named_with_its_place(
    tmp_path: Path, read: Callable[[Path], object], name: str, pair: dict[str, Any]
) -> None:
    """Cut short, of another form, an entry without a key or with a list as a value: file and line or entry are said."""
    file = tmp_path / name
    whole = json.dumps([pair, pair], indent=0)
    file.write_text(whole[:-10])
    with pytest.raises(DatasetProblem, match=rf"{name}, line \d+: no JSON\. Unpack the file again\."):
        read(tmp_path)
    file.write_text(json.dumps({"data": [pair]}))
    with pytest.raises(DatasetProblem, match=rf"{name} is no list of questions\. Take the file"):
        read(tmp_path)
    file.write_bytes(b"[\xff]")
    with pytest.raises(DatasetProblem, match=rf"{name} cannot be read \(UnicodeDecodeError\)\. Unpack"):
        read(tmp_path)
    for wrong in (
        {key: value for key, value in pair.items() if key != "answer"},
        pair | {"answer": ["Lung"]},
        pair | {"answer": None},
    ):
        file.write_text(json.dumps([pair, wrong]))
        with pytest.raises(DatasetProblem, match=rf"{name}, entry 2: answer missing.*Take the file") as refused:
            read(tmp_path)
        assert "Lung" not in str(refused.value)
    file.write_text(json.dumps([pair, "no object"]))
    with pytest.raises(DatasetProblem, match=r"entry 2: qid, "):
        read(tmp_path)


def test_vqa_med_has_a_file_per_category_and_one_for_the_test(tmp_path: Path) -> None:
    """Categories come from the file's name or its second field; an answer may hold the bar."""
    train = tmp_path / "ImageClef-2019-VQA-Med-Training"
    picture(train / "Train_images" / "synpic1.jpg")
    pairs = train / "QAPairsByCategory"
    pairs.mkdir()
    for category in ("C1_Modality", "C2_Plane", "C3_Organ", "C4_Abnormality"):
        (pairs / f"{category}_train.txt").write_text(f"synpic1|what about {category}?|yes\n")
    found = vqa_med_2019.questions(tmp_path, "train")
    assert [question.kind for question in found] == ["modality", "plane", "organ", "abnormality"]
    assert all(question.closed for question in found)
    test = tmp_path / "VQAMed2019Test"
    picture(test / "VQAMed2019_Test_Images" / "synpic2.jpg")
    lines = test / "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    lines.write_text("synpic2|plane|which plane?|axial|coronal\n\n")
    (only,) = vqa_med_2019.questions(tmp_path, "test")
    assert (only.kind, only.answer, only.closed) == ("plane", "axial|coronal", False)
    lines.write_text("synpic2|which plane?\n")
    with pytest.raises(DatasetProblem, match=r"line 1: 2 fields where 4.*Unpack"):
        vqa_med_2019.questions(tmp_path, "test")
    lines.write_text("synpic2|plane|which plane?|\n")
    with pytest.raises(DatasetProblem, match=r"line 1: there is no answer\. Take the file"):
        vqa_med_2019.questions(tmp_path, "test")
    lines.write_bytes(b"synpic2|plane|\xff|axial\n")
    with pytest.raises(DatasetProblem, match=r"cannot be read \(UnicodeDecodeError\)\. Unpack it again"):
        vqa_med_2019.questions(tmp_path, "test")


def test_our_own_form_says_which_line_is_wrong(tmp_path: Path) -> None:
    """A JSONL file reads back; a line that is no JSON or lacks a field is named by its number."""
    picture(tmp_path / "images" / "1.png")
    file = tmp_path / "vqa.jsonl"
    good = {
        "id": "a",
        "image": "images/1.png",
        "prompt": "Is there a nodule?",
        "answer": "no",
        "choices": ["yes", "no"],
    }
    file.write_text(json.dumps(good) + "\n\n")
    (only,) = jsonl.questions(file)
    assert (only.id, only.text, only.closed, only.choices) == ("a", "Is there a nodule?", True, ("yes", "no"))
    file.write_text(json.dumps(good) + "\n{broken\n")
    with pytest.raises(DatasetProblem, match=r"line 2: no JSON\. Each line is one object with image, prompt, answer"):
        jsonl.questions(file)
    file.write_text(json.dumps({"image": "images/1.png", "prompt": "?"}))
    with pytest.raises(DatasetProblem, match=r"line 1: answer is missing.*JSON string"):
        jsonl.questions(file)
    file.write_text(json.dumps(good | {"choices": 2}))
    with pytest.raises(DatasetProblem, match=r"line 1: choices is no list\. Give every answer"):
        jsonl.questions(file)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(DatasetProblem, match="Save it as UTF-8"):
        jsonl.questions(file)
    with pytest.raises(DatasetProblem, match=r"There is no file .* inlay model phantoms --vqa"):
        jsonl.questions(tmp_path / "none.jsonl")


# ── studies ─────────────────────────────────────────────────────────────────────────────────────────────────────────

REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Made up, at 10:30.

 FINDINGS:

 The lungs are clear.  There is no
 effusion.

 IMPRESSION:

 No acute process.
"""


def test_sections_are_found_by_their_headings() -> None:
    """Headings are capitals before a colon at a line's beginning, a time of day is none; blanks become single ones."""
    assert sections_of(REPORT) == {
        "examination": "CHEST (PA AND LAT)",
        "indication": "Made up, at 10:30.",
        "findings": "The lungs are clear. There is no effusion.",
        "impression": "No acute process.",
    }
    assert sections_of("FINDINGS: A.\nCONCLUSION: B.\nFINDINGS: C.") == {"findings": "A. C.", "impression": "B."}
    assert sections_of("no heading at all") == {}


def table(path: Path, rows: list[dict[str, str]], *, packed: bool) -> None:
    """A CSV file, packed with gzip or not."""
    with gzip.open(f"{path}.gz", "wt", newline="") if packed else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def mimic(folder: Path, *, packed: bool) -> None:
    """Three studies of MIMIC-CXR's layout: complete, without report, and with a lateral image alone."""
    shots = [
        ("lat1", "10000032", "50000001", "LATERAL", "test"),
        ("ap1", "10000032", "50000001", "AP", "test"),
        ("pa1", "10000032", "50000001", "PA", "test"),
        ("pa2", "10000032", "50000002", "PA", "test"),
        ("lat3", "10000033", "50000003", "LATERAL", "test"),
        ("pa4", "10000033", "50000004", "PA", "train"),
    ]
    names = ("dicom_id", "subject_id", "study_id", "ViewPosition", "split")
    rows = [dict(zip(names, shot, strict=True)) for shot in shots]
    for name, kept in (("metadata", names[:4]), ("split", (*names[:3], "split"))):
        table(folder / f"mimic-cxr-2.0.0-{name}.csv", [{key: row[key] for key in kept} for row in rows], packed=packed)
    for image, subject, study, *_ in shots:
        place = folder / "files" / f"p{subject[:2]}" / f"p{subject}"
        picture(place / f"s{study}" / f"{image}.jpg")
        if study != "50000002":
            (place / f"s{study}.txt").write_text(REPORT)


@pytest.mark.parametrize("packed", [True, False])
def test_mimic_cxr_gives_studies_with_the_frontal_image_first(tmp_path: Path, *, packed: bool) -> None:
    """PA before AP before the rest; studies without report or frontal image are left out; splits are the table's."""
    mimic(tmp_path, packed=packed)
    (study,) = mimic_cxr.studies(tmp_path, "test")
    assert study.id == "s50000001"
    assert [image.stem for image in study.images] == ["pa1", "ap1", "lat1"]
    assert study.sections["findings"] == "The lungs are clear. There is no effusion."
    assert [study.id for study in mimic_cxr.studies(tmp_path, "train")] == ["s50000004"]
    with pytest.raises(DatasetProblem, match="validate"):
        list(mimic_cxr.studies(tmp_path, "validate"))


def test_mimic_reports_may_stand_in_their_own_folder(tmp_path: Path) -> None:
    """The reports' archive unpacks beside the images; a missing table is named."""
    mimic(tmp_path, packed=False)
    report = tmp_path / "files" / "p10" / "p10000032" / "s50000001.txt"
    moved = tmp_path / "mimic-cxr-reports" / report.relative_to(tmp_path)
    moved.parent.mkdir(parents=True)
    report.rename(moved)
    assert [study.id for study in mimic_cxr.studies(tmp_path)] == ["s50000001"]
    (tmp_path / "mimic-cxr-2.0.0-split.csv").unlink()
    with pytest.raises(DatasetProblem, match=r"mimic-cxr-2\.0\.0-split\.csv"):
        list(mimic_cxr.studies(tmp_path))


def test_a_table_of_mimic_that_lacks_a_column_or_an_end_is_named_with_its_line(tmp_path: Path) -> None:
    """Without a header, or cut within a row: the first line that lacks something."""
    mimic(tmp_path, packed=False)
    for name, column in (("split", "study_id"), ("metadata", "ViewPosition")):
        file = tmp_path / f"mimic-cxr-2.0.0-{name}.csv"
        whole = file.read_text()
        file.write_text(whole.replace(column, "other", 1))
        with pytest.raises(DatasetProblem, match=rf"{name}\.csv, line 2: {column} missing\. Fetch the table again"):
            list(mimic_cxr.studies(tmp_path))
        file.write_text(whole[: whole.index("pa2") + 3])
        with pytest.raises(DatasetProblem, match=rf"{name}\.csv, line 5: .* missing\. Fetch the table again"):
            list(mimic_cxr.studies(tmp_path))
        file.write_bytes(whole.encode() + b"\xff")
        with pytest.raises(DatasetProblem, match=rf"{name}\.csv, after line \d: .*UnicodeDecodeError"):
            list(mimic_cxr.studies(tmp_path))
        file.write_text(whole)
    report = tmp_path / "files" / "p10" / "p10000032" / "s50000001.txt"
    report.write_bytes(b"FINDINGS: \xff")
    with pytest.raises(DatasetProblem, match=r"s50000001\.txt cannot be read"):
        list(mimic_cxr.studies(tmp_path))


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: packed[:40], lambda _: b"no gzip"])
def test_a_packed_table_of_mimic_that_is_damaged_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Cut short in a download, or a page of an error in its place."""
    mimic(tmp_path, packed=True)
    file = tmp_path / "mimic-cxr-2.0.0-split.csv.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DatasetProblem, match=r"split\.csv\.gz, after line \d: .* cut short or damaged"):
        list(mimic_cxr.studies(tmp_path))


def test_a_missing_frontal_image_is_not_replaced_by_the_lateral_one(tmp_path: Path) -> None:
    """What the tables call frontal and the folder lacks leaves the study out."""
    mimic(tmp_path, packed=False)
    for image in ("pa1", "ap1"):
        (tmp_path / "files" / "p10" / "p10000032" / "s50000001" / f"{image}.jpg").unlink()
    with pytest.raises(DatasetProblem):
        list(mimic_cxr.studies(tmp_path))


def iu_report(folder: Path, number: int, findings: str, images: list[str]) -> None:
    """One report in Open-i's XML."""
    parents = "".join(f'<parentImage id="{image}"><caption>x</caption></parentImage>' for image in images)
    (folder / f"{number}.xml").write_text(
        f"<eCitation><MedlineCitation><Article><Abstract>"
        f'<AbstractText Label="INDICATION">Cough</AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">Normal chest.</AbstractText>'
        f"</Abstract></Article></MedlineCitation>{parents}</eCitation>"
    )


def test_iu_xray_gives_every_complete_study_in_one_split(tmp_path: Path) -> None:
    """Sections by their labels, images in the report's order; each study is in exactly one split, by its id alone."""
    reports = tmp_path / "ecgen-radiology"
    reports.mkdir()
    for number in range(1, 31):
        names = [f"CXR{number}_IM-0001-3001", f"CXR{number}_IM-0001-4001"]
        for name in names:
            picture(tmp_path / "NLMCXR_png" / f"{name}.png")
        iu_report(reports, number, "The lungs are clear.", names)
    iu_report(reports, 31, "No image.", ["CXR31_IM-0001-3001"])
    found = {split: list(iu_xray.studies(tmp_path, split)) for split in ("train", "validate", "test")}
    ids = [study.id for studies in found.values() for study in studies]
    assert sorted(ids) == sorted(f"CXR{number}" for number in range(1, 31))
    assert len(found["train"]) > len(found["test"]) > 0
    study = found["test"][0]
    assert study.sections == {"indication": "Cough", "findings": "The lungs are clear.", "impression": "Normal chest."}
    assert [image.stem[-4:] for image in study.images] == ["3001", "4001"]
    (reports / "1.xml").write_text("<broken")
    with pytest.raises(DatasetProblem, match=r"1\.xml is no XML"):
        list(iu_xray.studies(tmp_path))
