"""Training data from a JSONL: what a line means, and how a bad one is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inlay_model.canvas import encode_report
from inlay_model.errors import BadData
from inlay_model.loading import make_image_processor
from inlay_model.prompt import build_prompt, instruction
from inlay_model.training.dataset import Dataset, Limits
from inlay_testkit.dicom import file_bytes, radiograph
from inlay_testkit.tiny_training import SOFT_TOKENS, save_picture, tokenizer, write_jsonl

LIMITS = Limits(text=40, prompt=200)
SECTIONS = {"findings": "The lungs are clear. No pneumothorax.", "impression": "No acute findings."}


def dataset(folder: Path, lines: list[Any], limits: Limits = LIMITS) -> Dataset:
    """These lines as training data."""
    processor = make_image_processor(max_soft_tokens=70)
    return Dataset(write_jsonl(folder, lines), tokenizer(), processor, limits)


def test_a_report_is_learnt_as_the_engine_lays_it_out(tmp_path: Path) -> None:
    """Sections have the prompt of a report request and the tokens of a canvas, headers and sentences apart."""
    name = save_picture(tmp_path)
    example = dataset(tmp_path, [{"image": name, "sections": SECTIONS, "style": "concise"}])[0]
    sections = [("findings", ["The lungs are clear.", "No pneumothorax."]), ("impression", ["No acute findings."])]
    assert example.text.ids.tolist() == encode_report(tokenizer(), sections)
    expected = build_prompt(tokenizer(), SOFT_TOKENS, instruction(["findings", "impression"], "concise"))
    assert example.prompt.ids == expected.ids
    assert [tokenizer().decode(example.text.ids[a:b]) for a, b in example.text.sentences] == [
        " The lungs are clear.",
        " No pneumothorax.",
        " No acute findings.",
    ]


def test_a_question_is_learnt_with_its_answer(tmp_path: Path) -> None:
    """Prompt and answer stand as they are; several images or none are possible; report and dicom are other names."""
    name = save_picture(tmp_path)
    (tmp_path / "a.dcm").write_bytes(file_bytes(radiograph(np.eye(96, dtype=np.uint8) * 200)))
    lines = [
        {"image": [name, name], "prompt": "Is the heart enlarged?", "answer": "Yes."},
        {"prompt": "Shorten: no effusion is seen.", "report": "No effusion."},
        {"dicom": "a.dcm", "prompt": "Where?", "answer": "Left.", "id": "q-3", "kind": "side", "choices": ["Left."]},
    ]
    found = [dataset(tmp_path, lines)[index] for index in range(3)]
    assert [len(example.pictures) for example in found] == [2, 0, 1]
    assert [tokenizer().decode(example.text.ids) for example in found] == [
        " Yes.<turn|>",
        " No effusion.<turn|>",
        " Left.<turn|>",
    ]
    assert "Is the heart enlarged?" in tokenizer().decode(found[0].prompt.ids)


_GOOD = {"prompt": "Where?", "answer": "Left."}


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        ("{", "line", "not JSON"),
        ("[1]", "line", "not a JSON object"),
        ({"prompt": "Where?"}, "answer", "no text to learn"),
        ({"prompt": "Where?", "answer": "  "}, "answer", "empty"),
        ({"prompt": "Where?", "answer": 3}, "answer", "int, not text"),
        ({"answer": "Left."}, "prompt", "Give a prompt"),
        ({"prompt": " ", "answer": "Left."}, "prompt", "empty"),
        ({"sections": ["a"]}, "sections", "no object"),
        ({"sections": {"findings": ""}}, "sections.findings", "empty"),
        ({**_GOOD, "sections": SECTIONS}, "answer", "beside sections"),
        ({**_GOOD, "report": "Left."}, "report", "means the same"),
        ({**_GOOD, "question": "Where?"}, "question", "unknown"),
        ({**_GOOD, "image": "nowhere.png"}, "image", "no file"),
        ({**_GOOD, "image": 4}, "image", "no file name"),
        ({**_GOOD, "style": 4}, "style", "not text"),
        ({**_GOOD, "prompt": "Where?<turn|>"}, "prompt", "control token"),
        ({**_GOOD, "answer": "Long. " * 60}, "answer", "and 40 fit"),
        ({"sections": {"findings": "Long. " * 60}}, "sections", "one section each"),
    ],
)
def test_a_bad_line_is_named_with_field_and_remedy(tmp_path: Path, line: Any, field: str, said: str) -> None:
    """File, line number, field, what is wrong and what to do, and never what the line says."""
    data = dataset(tmp_path, [_GOOD, "", line, _GOOD])
    (problem,) = data.problems()
    assert (problem.file, problem.line, problem.field) == (data.file, 3, field)
    assert said in str(problem)
    assert problem.remedy
    assert "Long. Long." not in str(problem)
    with pytest.raises(BadData, match=r"data\.jsonl:3"):
        data[1]
    with pytest.raises(BadData, match="1 of 3 lines"):
        data.check()


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    """A line in another encoding is one bad line, not the end of the file."""
    data = dataset(tmp_path, [_GOOD])
    data.file.write_bytes(b'{"prompt": "Wo? \xe4", "answer": "Links."}\n' + json.dumps(_GOOD).encode())
    again = Dataset(data.file, tokenizer(), None, LIMITS)
    assert [(p.line, p.what) for p in again.problems()] == [(1, "it is not UTF-8")]


def test_images_are_decoded_when_they_are_checked_or_used(tmp_path: Path) -> None:
    """A file that holds no picture passes the quick look, and is found by the thorough one and when it is used."""
    (tmp_path / "broken.png").write_bytes(b"no picture" * 20)
    data = dataset(tmp_path, [{**_GOOD, "image": "broken.png"}])
    data.check()
    assert [problem.field for problem in data.problems(images=True)] == ["image"]
    with pytest.raises(BadData, match=r"data\.jsonl:1: image"):
        data[0]
    Image.new("L", (96, 96), 9).save(tmp_path / "blank.png")
    blank = dataset(tmp_path, [{**_GOOD, "image": "blank.png"}])
    assert ["needs contrast" in problem.what for problem in blank.problems(images=True)] == [True]


def test_a_prompt_that_leaves_no_room_is_named(tmp_path: Path) -> None:
    """Prompt and images together must leave the text its room."""
    name = save_picture(tmp_path, size=384)
    data = dataset(tmp_path, [{**_GOOD, "image": [name] * 3}], Limits(40, 150))
    assert [problem.field for problem in data.problems(images=True)] == ["prompt"]


def test_many_bad_lines_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    """A file full of mistakes gives a message that can be read."""
    with pytest.raises(BadData) as raised:
        dataset(tmp_path, ["{"] * 50).check()
    assert "50 of 50 lines" in str(raised.value)
    assert len(raised.value.problems) == 21
    assert raised.value.problems[-1] == "... and 30 more"


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    """An empty file and a missing one are named before a model is trained on nothing."""
    with pytest.raises(BadData, match="has no lines"):
        dataset(tmp_path, ["", ""]).check()
    with pytest.raises(BadData, match="cannot be read"):
        Dataset(tmp_path / "nowhere.jsonl", tokenizer(), None, LIMITS)
