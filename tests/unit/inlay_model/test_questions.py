"""Questions about phantoms: known answers, balance, and sets of training and of test that never meet."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inlay_model.__main__ import main
from inlay_model.datasets import jsonl
from inlay_model.loading import make_image_processor
from inlay_model.phantom.command import questions, write
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import read_sentences
from inlay_model.phantom.questions import KINDS, PhantomQuestion, ask
from inlay_model.phantom.render import phantom
from inlay_model.phantom.seeds import evaluation_seeds, training_seeds
from inlay_model.study import read_picture
from inlay_model.training.dataset import Dataset, Limits
from inlay_testkit.tiny_training import tokenizer


def drawn(seed: int) -> Findings:
    """Findings of a seed."""
    return Findings.from_indices(draw_findings(1, np.random.default_rng(seed))[0])


def asked(count: int) -> list[PhantomQuestion]:
    """The first question about each of this many phantoms."""
    return [ask(drawn(seed), 1, np.random.default_rng([seed, 2]))[0] for seed in range(count)]


@given(st.integers(0, 2**32 - 1))
def test_every_answer_is_one_of_the_choices_and_no_question_is_asked_twice(seed: int) -> None:
    """An answer can be judged by listing what else could have been said."""
    found = ask(drawn(seed), 6, np.random.default_rng(seed))
    assert 1 <= len(found) <= 6
    assert all(question.answer in question.choices for question in found)
    assert all(question.kind in KINDS for question in found)
    assert len({question.text for question in found}) == len(found)


def test_answers_follow_from_the_findings() -> None:
    """Side, size and place of a phantom with one finding of each, and what it does not have."""
    findings = Findings.normal(
        pneumothorax="large left", nodule="right lower zone", nodule_size="20 mm", heart="mildly enlarged"
    )
    rng = np.random.default_rng(0)
    found = {question.text: question.answer for _ in range(200) for question in ask(findings, 8, rng)}
    expected = {
        "On which side is the pneumothorax?": "left",
        "How large is the pneumothorax?": "large",
        "Is the pneumothorax on the right?": "no",
        "Is the pneumothorax on the left?": "yes",
        "In which zone is the nodule?": "right lower zone",
        "What is the size of the nodule?": "20 mm",
        "How large is the heart?": "mildly enlarged",
        "Is there a lung nodule?": "yes",
        "Is there scoliosis?": "no",
        "Does the image show an enlarged heart?": "yes",
    }
    assert {text: found.get(text) for text in expected} == expected


def test_yes_is_as_often_right_as_no() -> None:
    """Always answering the same is worth a half, whatever the prevalence of findings; half of them are open."""
    found = asked(3000)
    closed = Counter(question.answer for question in found if question.choices == ("yes", "no"))
    assert closed["yes"] / closed.total() == pytest.approx(0.5, abs=0.04)
    assert closed.total() / len(found) == pytest.approx(0.46, abs=0.05)
    assert {question.kind for question in found} == set(KINDS)


def test_a_normal_phantom_is_asked_for_its_heart() -> None:
    """Where nothing is true there is no balanced question of yes or no."""
    (only,) = ask(Findings.normal(), 5, np.random.default_rng(1))
    assert (only.kind, only.answer) == ("size", "normal")


@given(st.integers(1, 999_999), st.integers(1, 999_999), st.integers(1, 1000))
def test_no_training_phantom_is_one_of_evaluation(train: int, test: int, count: int) -> None:
    """Whatever the two seeds, their phantoms are others; and two evaluation seeds share none."""
    own, other = training_seeds(train, count), evaluation_seeds(test, count)
    assert own[0] > max(other[-1], evaluation_seeds(999_999, 1_000_000)[-1])
    if train != test:
        assert not set(evaluation_seeds(train, count)) & set(other)


def test_seeds_beyond_their_range_are_refused() -> None:
    """A seed or a count that would reach into another seed's phantoms is no seed."""
    for seed, count in ((0, 1), (1_000_000, 1), (1, 1_000_001)):
        with pytest.raises(ValueError, match="seed"):
            evaluation_seeds(seed, count)


def test_the_findings_asked_about_are_those_of_the_image() -> None:
    """Questions are drawn without drawing the image, from the same findings."""
    for found in questions(20, seed=2):
        shown = phantom(found.phantom_seed).findings
        again = ask(shown, 1, np.random.default_rng([found.phantom_seed, 2]))
        assert found.question in again


def test_a_set_is_written_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images, relative paths, answers and choices; as many questions as asked for, several of one image."""
    options = ["--vqa", "7", "--seed", "1", "--per-image", "3", "--training", "--processes", "1"]
    assert main(["phantoms", *options, "--out", str(tmp_path)]) == 0
    assert "7 questions" in capsys.readouterr().out
    found = jsonl.questions(tmp_path / "vqa.jsonl")
    assert len(found) == len({question.id for question in found}) == 7
    assert len({question.image for question in found}) < 7
    assert all(question.answer in question.choices for question in found)
    seed = int(found[0].image.stem)
    assert seed in training_seeds(1, 10)
    assert np.array_equal(np.asarray(Image.open(found[0].image)), phantom(seed).image)
    line = json.loads((tmp_path / "vqa.jsonl").read_text().splitlines()[0])
    assert not Path(line["image"]).is_absolute()


def test_phantoms_with_reports_are_files_to_try_and_to_train_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DICOM files that the demonstration takes, and lines that training reads, whose report is that of the phantom."""
    options = ["--reports", "2", "--seed", "3", "--processes", "1", "--out", str(tmp_path)]
    assert main(["phantoms", *options]) == 0
    assert "2 reports" in capsys.readouterr().out
    data = Dataset(tmp_path / "reports.jsonl", tokenizer(), make_image_processor(max_soft_tokens=70), Limits(200, 300))
    assert list(data.problems(images=True)) == []
    for at, seed in enumerate(evaluation_seeds(3, 2)):
        shown = phantom(seed)
        picture = read_picture(tmp_path / "images" / f"{seed}.dcm")
        assert picture.is_phantom
        assert np.array_equal(np.asarray(picture.image), shown.image)
        reading = read_sentences([sentence for _, written in data[at].sections for sentence in written])
        assert not reading.unknown
        assert shown.findings.abnormal().items() <= reading.stated
        assert all(shown.findings[slot] == value for slot, value in reading.stated)
    before = (tmp_path / "images" / "3000000.dcm").read_bytes()
    assert main(["phantoms", *options]) == 0
    assert (tmp_path / "images" / "3000000.dcm").read_bytes() == before


@pytest.mark.slow
def test_a_set_goes_on_where_it_was_broken_off_and_processes_draw_the_same(tmp_path: Path) -> None:
    """Images that are there are kept as they are, the others are drawn, by several processes as by one."""
    asked = list(questions(3, seed=1))
    kept = tmp_path / "images" / f"{asked[0].phantom_seed}.png"
    kept.parent.mkdir()
    kept.write_bytes(b"kept")
    assert write(iter(asked), tmp_path, processes=2) == 3
    assert kept.read_bytes() == b"kept"
    for one in asked[1:]:
        drawn = np.asarray(Image.open(tmp_path / "images" / f"{one.phantom_seed}.png"))
        assert np.array_equal(drawn, phantom(one.phantom_seed).image)
    assert len(list(kept.parent.iterdir())) == 3


def test_the_command_refuses_what_makes_no_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No questions or reports, both, or a seed out of range: said on one line, nothing written."""
    for wrong in (
        ["--vqa", "0"],
        ["--reports", "0"],
        ["--vqa", "1", "--seed", "0"],
        ["--vqa", "1", "--reports", "1"],
        [],
    ):
        with pytest.raises(SystemExit):
            main(["phantoms", *wrong, "--out", str(tmp_path / "set")])
        assert "error" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
