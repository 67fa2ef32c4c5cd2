"""The suite `vqa`: questions about images, answered by any number of candidates, judged by rule or by language models.

Every candidate gets the same questions, so candidates are compared in pairs (exact McNemar test). A question is right
or wrong: by rule where all possible answers are known, else by the judges of an endpoints file, both of which must
agree that it is right (arXiv 2607.01436, Table 1, whose judge was one model).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay_model.datasets import jsonl, slake, vqa_med_2019, vqa_rad
from inlay_model.datasets.items import DatasetProblem, Question, Split
from inlay_model.engine import RadiographLike
from inlay_model.evaluation.answer_rules import is_right
from inlay_model.evaluation.answering import load_candidate
from inlay_model.evaluation.endpoints import Chat
from inlay_model.evaluation.judge import Task, agreement, controls, judge_all
from inlay_model.evaluation.loaded import Placing
from inlay_model.phantom.command import questions as phantom_questions
from inlay_model.phantom.render import phantom
from inlay_model.study import read_picture

PHANTOM = "phantom"
SETS = (PHANTOM, "vqa-rad", "slake", "vqa-med-2019", "jsonl")
# A phantom's image is drawn when it is needed; this stands where a path would.
_DRAWN = Path("phantom")


@dataclass(frozen=True, slots=True)
class Answered:
    """One candidate's answers to all questions, in their order, with the verdicts."""

    candidate: str
    answers: tuple[str, ...]
    right: tuple[bool, ...]


def load_set(name: str, place: Path | None, split: Split, seed: int, limit: int | None) -> list[Question]:
    """The questions of a set, the first `limit` of a published one, so that every run asks the same ones."""
    if name == PHANTOM:
        return list(phantoms(seed, limit or 360))
    if place is None:
        raise DatasetProblem(f"The set {name} needs its folder: --set {name}=FOLDER.")
    readers = {"vqa-rad": vqa_rad.questions, "slake": slake.questions, "vqa-med-2019": vqa_med_2019.questions}
    found = jsonl.questions(place) if name == "jsonl" else readers[name](place, split)
    return found[:limit]


def phantoms(seed: int, count: int) -> Iterator[Question]:
    """Questions about phantoms of an evaluation seed, one about each, so that the cases are independent."""
    for asked in phantom_questions(count, seed):
        question = asked.question
        yield Question(
            id=asked.id,
            image=_DRAWN / str(asked.phantom_seed),
            text=question.text,
            answer=question.answer,
            closed=question.choices == ("yes", "no"),
            kind=question.kind,
            choices=question.choices,
        )


def image_of(question: Question) -> RadiographLike:
    """The image that a question is about."""
    if question.image.parent == _DRAWN:
        return phantom(int(question.image.name)).image
    return read_picture(question.image).image


def answers_of(
    model: str, steps: int, placing: Placing, cases: Sequence[tuple[str, Question]]
) -> Iterator[tuple[str, str]]:
    """The answers of a checkpoint to named questions, each with its name (ids of a set need not be unique)."""
    candidate = load_candidate(model, steps, placing)
    for name, question in cases:
        yield name, candidate(image_of(question), question.text)


def by_rule(questions: Sequence[Question], answers: Mapping[str, Sequence[str]]) -> list[Answered]:
    """The verdicts of the offline judge on every candidate."""
    return [
        Answered(name, tuple(given), tuple(is_right(q, answer) for q, answer in zip(questions, given, strict=True)))
        for name, given in answers.items()
    ]


def by_judges(
    questions: Sequence[Question], answers: Mapping[str, Sequence[str]], chats: Sequence[Chat], most_controls: int
) -> tuple[list[Answered], dict[str, Any]]:
    """The verdicts of language models on every candidate, right where all of them say so, and figures of the judges."""
    names = [chat.endpoint.name for chat in chats]
    found = []
    everything: list[list[Any]] = [[] for _ in chats]
    tasks: list[Task] = []
    for candidate, given in answers.items():
        asked = [Task(q.text, q.answer, answer) for q, answer in zip(questions, given, strict=True)]
        verdicts = judge_all(chats, asked)
        right = tuple(all(row[at].right for row in verdicts) for at in range(len(asked)))
        found.append(Answered(candidate, tuple(given), right))
        tasks += asked
        for row, more in zip(everything, verdicts, strict=True):
            row.extend(more)
    about: dict[str, Any] = {"judges": agreement(everything, names)}
    false = controls(tasks, most_controls)
    if false:
        accepted = judge_all(chats, false)
        about["controls"] = {
            "n": len(false),
            **{
                name: round(sum(verdict.right for verdict in row) / len(false), 6)
                for name, row in zip(names, accepted, strict=True)
            },
        }
    return found, about
