"""The suite of questions: rules, candidates, figures and tables."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inlay_model import CheckpointProblem, Engine
from inlay_model.datasets.items import DatasetProblem, Question
from inlay_model.evaluation.answer_rules import is_right, named
from inlay_model.evaluation.answering import (
    DiffusionCandidate,
    EndpointCandidate,
    SiblingCandidate,
    load_candidate,
)
from inlay_model.evaluation.endpoints import Chat, Endpoint
from inlay_model.evaluation.loaded import Placing, parts_of
from inlay_model.evaluation.vqa import Answered, answers_of, by_judges, by_rule, image_of, load_set, phantoms
from inlay_model.evaluation.vqa_figures import lines_of, summary, table
from inlay_model.phantom.render import phantom
from inlay_testkit.chat_server import chat_server
from inlay_testkit.tiny_sibling import save_tiny_sibling

ZONES = ("right upper zone", "right mid zone", "left upper zone")
HEARTS = ("normal", "mildly enlarged", "markedly enlarged")


def question(answer: str, choices: tuple[str, ...] = (), *, closed: bool = False) -> Question:
    """A question with this answer."""
    return Question("q", Path("x.png"), "What?", answer, closed, "kind", choices)


@pytest.mark.parametrize(
    ("asked", "answer", "right"),
    [
        (question("yes", ("yes", "no")), "Yes.", True),
        (question("yes", ("yes", "no")), "Yes, there is no doubt.", True),
        (question("no", ("yes", "no")), "no", True),
        (question("no", ("yes", "no")), "Findings: No pleural effusion.", False),
        (question("no", ("yes", "no")), "", False),
        (question("Yes", closed=True), "yes", True),
        (question("left", closed=True), "Left.", True),
        (question("right upper zone", ZONES), "The nodule is in the upper zone on the right.", True),
        (question("right upper zone", ZONES), "Right upper zone or left upper zone.", False),
        (question("right upper zone", ZONES), "Right or left, upper or mid zone.", False),
        (question("right upper zone", ZONES), "It is small. Right upper zone.", False),
        (question("normal", HEARTS), "The heart is normal in size.", True),
        (question("mildly enlarged", HEARTS), "Enlarged, mildly.", True),
        (question("mildly enlarged", HEARTS), "enlarged", False),
        (question("20 mm", ("10 mm", "20 mm")), "About 20 mm.", True),
        (question("The left lung."), "left lung", True),
        (question("left lung"), "left lung and heart", False),
    ],
)
def test_an_answer_is_right_by_rule_if_it_commits_to_the_right_choice(
    asked: Question, answer: str, *, right: bool
) -> None:
    """Words may be in any order and more may be said, but not two choices, and not in a later sentence."""
    assert is_right(asked, answer) is right


CPU = Placing("cpu")


def test_a_choice_within_another_is_not_named_by_it() -> None:
    """Of choices that hold each other the longer one is meant."""
    assert named("not enlarged at all", ("enlarged", "not enlarged")) == ["not enlarged"]


# ── sets and candidates ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_phantom_set_has_one_question_about_each_phantom() -> None:
    """So cases are independent; the image is the phantom's, and the choices go along."""
    found = list(phantoms(seed=1, count=20))
    assert len({asked.image for asked in found}) == 20
    assert np.array_equal(np.asarray(image_of(found[3])), phantom(1_000_003).image)
    assert all(asked.answer in asked.choices for asked in found)
    assert {asked.closed for asked in found} == {True, False}


def test_a_published_set_needs_its_folder() -> None:
    """The name alone is not enough, and the error says how it is given."""
    with pytest.raises(DatasetProblem, match="vqa-rad=FOLDER"):
        load_set("vqa-rad", None, "test", 1, None)


def test_checkpoints_of_both_kinds_are_candidates(checkpoint_folder: Path, tmp_path: Path, image: np.ndarray) -> None:
    """The folder says which kind it is; both answer with text, and another kind is refused by name."""
    sibling = save_tiny_sibling(tmp_path / "sibling")
    diffusion, autoregressive = (load_candidate(str(folder), 1, CPU) for folder in (checkpoint_folder, sibling))
    assert isinstance(diffusion, DiffusionCandidate)
    assert isinstance(autoregressive, SiblingCandidate)
    assert isinstance(diffusion(image, "Is there a nodule?"), str)
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointProblem, match="no config"):
        load_candidate(str(tmp_path / "other"), 1)


def test_a_candidate_may_have_an_adapter(tmp_path: Path) -> None:
    """It is named after a plus sign; a folder whose own name has one is taken as it stands."""
    assert parts_of("base") == ("base", None)
    assert parts_of("owner/base+adapters/one") == ("owner/base", "adapters/one")
    odd = tmp_path / "a+b"
    odd.mkdir()
    assert parts_of(str(odd)) == (str(odd), None)
    assert parts_of(f"{odd}+c") == (str(odd), "c")


def test_a_diffusion_answer_depends_on_question_and_seed_alone(engine: Engine, image: np.ndarray) -> None:
    """Asked again it answers the same; the canvas is read up to the end of turn."""
    ask = DiffusionCandidate(engine, steps=2, seed=3)
    first = ask(image, "Is there a nodule?")
    assert ask(image, "Is there a nodule?") == first
    assert "\n" not in first


def test_answers_come_back_with_their_names(checkpoint_folder: Path) -> None:
    """Processes answer in no particular order, so each answer knows its question."""
    cases = [(asked.id, asked) for asked in phantoms(seed=1, count=2)][::-1]
    assert [name for name, _ in answers_of(str(checkpoint_folder), 1, CPU, cases)] == ["test-1-1", "test-1-0"]


def test_an_endpoint_is_sent_the_image_itself(image: np.ndarray) -> None:
    """As a PNG in the request, byte for byte the picture; its answer is taken as it is."""
    with chat_server(lambda _: "No.") as server:
        candidate = EndpointCandidate(Chat(Endpoint("vision", server.url, "v")))
        assert candidate(image, "Is there a nodule?") == "No."
    picture, text = server.bodies[0]["messages"][1]["content"]
    packed = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(packed)))), image)
    assert text["text"] == "Is there a nodule?"


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

QUESTIONS = [
    *[question("yes", ("yes", "no"), closed=True) for _ in range(12)],
    *[question("right upper zone", ZONES) for _ in range(8)],
]
ANSWERS = {
    "base": [*["yes"] * 6, *["no"] * 6, *["left upper zone"] * 8],
    "finetuned": [*["yes"] * 12, *["right upper zone"] * 7, "left upper zone"],
}


def test_accuracy_is_by_form_of_question_and_pairs_are_tested() -> None:
    """Closed and open apart, with Wilson's intervals; McNemar on what only one of two has right."""
    figures = summary(QUESTIONS, by_rule(QUESTIONS, ANSWERS))
    base, finetuned = figures["candidates"]["base"], figures["candidates"]["finetuned"]
    assert (base["all"]["accuracy"], base["closed"]["accuracy"], base["open"]["accuracy"]) == (0.3, 0.5, 0.0)
    assert finetuned["all"] == {"n": 20, "accuracy": 0.95, "wilson_95": finetuned["all"]["wilson_95"]}
    assert finetuned["open"]["n"] == 8
    (test,) = figures["mcnemar"]
    assert (test["first"], test["second"], test["first_only"], test["second_only"]) == ("base", "finetuned", 0, 13)
    assert test["p"] == pytest.approx(2 / 2**13, rel=1e-3)


def test_the_table_has_a_column_per_candidate_and_a_row_per_form() -> None:
    """Laid out like the paper's, each share with its interval, and the pairs below."""
    text = table({"phantom": summary(QUESTIONS, by_rule(QUESTIONS, ANSWERS))})
    lines = text.splitlines()
    assert lines[0] == "| accuracy | n | base | finetuned |"
    assert lines[2].startswith("| **phantom** | 20 | 0.300 (")
    assert [line.split(" |")[0] for line in lines[3:5]] == ["| phantom, closed", "| phantom, open"]
    assert lines[-1].startswith("| phantom | base | finetuned | 0 | 13 | < 0.001 |")


def test_several_candidates_are_adjusted_for_their_pairs() -> None:
    """Three candidates make three pairs, whose p values are adjusted together."""
    answered = by_rule(QUESTIONS, {**ANSWERS, "third": ANSWERS["base"]})
    tests = summary(QUESTIONS, answered)["mcnemar"]
    assert len(tests) == 3
    assert all(test["p_holm"] >= test["p"] for test in tests)
    assert tests[1]["p"] == 1.0


def test_both_judges_must_say_right() -> None:
    """What only one judge accepts is wrong; agreement and controls are reported beside the accuracy."""

    def strict(body: dict[str, Any]) -> str:
        return json.dumps({"facts": ["\nno\n" in body["messages"][1]["content"]]})

    def lenient(_: dict[str, Any]) -> str:
        return '{"facts": [true]}'

    questions = [question("no"), question("yes"), question("no")]
    with chat_server(strict) as one, chat_server(lenient) as other:
        chats = [Chat(Endpoint("strict", one.url, "m")), Chat(Endpoint("lenient", other.url, "m"))]
        (answered,), about = by_judges(questions, {"ours": ["no", "no", "yes"]}, chats, most_controls=2)
    assert answered.right == (True, True, False)
    assert about["judges"]["lenient"]["right"] == 1.0
    assert about["judges"]["agreement"]["share"] == pytest.approx(2 / 3, abs=1e-6)
    # The only wrong answer to put in another's place is the one that lacks the word yes.
    assert about["controls"]["n"] == 1
    assert about["controls"]["lenient"] == 1.0


def test_every_case_can_be_scored_elsewhere() -> None:
    """A line per question with reference, answers and verdicts, and no path of this machine."""
    place = Question("q", Path("/data/of/somebody/1.png"), "What?", "yes", closed=True, kind="k")
    (line,) = lines_of([place], [Answered("ours", ("no",), (False,))])
    assert line == {
        "id": "q",
        "image": "1.png",
        "question": "What?",
        "reference": "yes",
        "kind": "k",
        "answers": {"ours": "no"},
        "right": {"ours": False},
    }
