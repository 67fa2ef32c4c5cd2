"""Blinded reader studies: two drafts of the same images, in random order, graded by readers who do not know whose.

The order is drawn from the study's seed per reader and case, so that it is random, the same when somebody comes back,
and known afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from inlay_core.domain.errors import Invalid
from inlay_core.domain.fragment import check_section_name
from inlay_core.domain.text import refuse_unstorable, split_sentences

ARMS: Final = 2
MOST_CASES: Final = 1000
LONGEST_TEXT: Final = 20_000
BEST_SCORE: Final = 5


class Mark(StrEnum):
    """What a reader says of a sentence."""

    CORRECT = "correct"
    MINOR = "minor-error"
    """Wrong or missing its point, without consequence for the patient."""
    MAJOR = "major-error"
    """Could lead to the wrong treatment."""


class Choice(StrEnum):
    """Which of the two drafts, as the reader sees them, is the better one to begin with."""

    FIRST = "first"
    SECOND = "second"
    NEITHER = "neither"


Sentences = tuple[tuple[str, tuple[str, ...]], ...]
"""A draft: (section, its sentences) in order."""


@dataclass(frozen=True, slots=True)
class Case:
    """One pair of drafts, in the order of the study's arms. `report_id` names a report whose image they describe."""

    label: str
    drafts: tuple[Sentences, Sentences]
    report_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReaderStudy:
    """A study. `arms` name what is compared (a model, an adapter, a setting); no reader is told them."""

    id: str
    name: str
    arms: tuple[str, str]
    cases: tuple[Case, ...]
    seed: str
    created_by: str
    created_at: datetime
    closed_at: datetime | None = None

    def case(self, number: int) -> Case | None:
        """Case `number`, counted from 1."""
        return self.cases[number - 1] if 1 <= number <= len(self.cases) else None

    def sequence(self, reader_id: str) -> list[int]:
        """The numbers of the cases in the order in which this reader gets them."""
        return sorted(range(1, len(self.cases) + 1), key=lambda number: self._draw(reader_id, number, "order"))

    def is_swapped(self, reader_id: str, number: int) -> bool:
        """Whether this reader sees the second arm's draft first."""
        return bool(self._draw(reader_id, number, "side")[0] & 1)

    def shown(self, reader_id: str, number: int) -> tuple[Sentences, Sentences]:
        """The two drafts of a case as this reader sees them."""
        first, second = self.cases[number - 1].drafts
        return (second, first) if self.is_swapped(reader_id, number) else (first, second)

    def _draw(self, reader_id: str, number: int, what: str) -> bytes:
        return hashlib.sha256("\n".join((self.seed, what, str(number), reader_id)).encode("utf-8")).digest()


@dataclass(frozen=True, slots=True)
class Grade:
    """What one reader said of one case, the two drafts as they saw them. What is not said yet is None."""

    study_id: str
    number: int
    reader_id: str
    graded_at: datetime
    marks: tuple[tuple[Mark | None, ...], tuple[Mark | None, ...]] = ((), ())
    scores: tuple[int | None, int | None] = (None, None)
    choice: Choice | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything has been said."""
        marks = [mark for of_one in self.marks for mark in of_one]
        return self.choice is not None and None not in self.scores and None not in marks

    def to_json(self) -> dict[str, Any]:
        """What was said, at rest."""
        return {"marks": [list(of_one) for of_one in self.marks], "scores": list(self.scores), "choice": self.choice}


def check_grade(study: ReaderStudy, grade: Grade) -> Grade:
    """Return the grade; raise Invalid where it does not fit the case."""
    for side, (draft, marks) in enumerate(zip(study.shown(grade.reader_id, grade.number), grade.marks, strict=True)):
        if len(marks) != sum(len(sentences) for _, sentences in draft):
            raise Invalid("bad-grade", "Each sentence has one mark, or null.", f"marks[{side}]")
    for side, score in enumerate(grade.scores):
        if score is not None and not 1 <= score <= BEST_SCORE:
            raise Invalid("bad-grade", f"A score is a number from 1 to {BEST_SCORE}.", f"scores[{side}]")
    return grade


def grade_of(study_id: str, number: int, reader_id: str, graded_at: datetime, body: Mapping[str, Any]) -> Grade:
    """The grade that a body (`to_json`, or of a request) states. Raises Invalid, naming the place."""
    marks: Any = body.get("marks")
    scores: Any = body.get("scores")
    if not _is_pair(marks) or not all(isinstance(of_one, list) for of_one in marks):
        raise Invalid("bad-grade", "Expected two lists of marks.", "marks")
    if not _is_pair(scores) or not all(score is None or type(score) is int for score in scores):
        raise Invalid("bad-grade", "Expected two scores.", "scores")
    choice = body.get("choice")
    return Grade(
        study_id,
        number,
        reader_id,
        graded_at,
        (
            tuple(None if mark is None else _word(Mark, mark, "marks[0]") for mark in marks[0]),
            tuple(None if mark is None else _word(Mark, mark, "marks[1]") for mark in marks[1]),
        ),
        (scores[0], scores[1]),
        None if choice is None else _word(Choice, choice, "choice"),
    )


def cases_of(body: Any, arms: tuple[str, str]) -> tuple[Case, ...]:
    """The cases that a body states: `[{"label", "report_id", "drafts": {arm: {section: text}}}]`. Raises Invalid."""
    if not isinstance(body, list) or not 1 <= len(body) <= MOST_CASES:
        raise Invalid("bad-study", f"Expected a list of 1 to {MOST_CASES} cases.", "cases")
    return tuple(_case(one, arms, f"cases[{number}]") for number, one in enumerate(body))


def check_arms(names: Sequence[str]) -> tuple[str, str]:
    """The two arms' names. Raises Invalid unless they are two different texts."""
    if len(names) != ARMS or len(set(names)) != ARMS or not all(0 < len(name) <= 120 for name in names):
        raise Invalid("bad-study", "A study compares two arms of different names (1 to 120 characters).", "arms")
    for name in names:
        refuse_unstorable(name, "arms")
    return names[0], names[1]


def _case(body: Any, arms: tuple[str, str], place: str) -> Case:
    if not isinstance(body, dict) or not body.keys() <= {"label", "report_id", "drafts"}:
        raise Invalid("bad-study", "A case has drafts, and perhaps label and report_id.", place)
    drafts, report_id, label = body.get("drafts"), body.get("report_id"), body.get("label", "")
    if not isinstance(drafts, dict) or set(drafts) != set(arms):
        raise Invalid("bad-study", "A case has one draft per arm.", f"{place}.drafts")
    if not isinstance(label, str) or len(label) > 120 or not (report_id is None or isinstance(report_id, str)):
        raise Invalid("bad-study", "A label or a report's id does not fit.", place)
    first, second = (_draft(drafts[arm], f"{place}.drafts") for arm in arms)
    return Case(refuse_unstorable(label, f"{place}.label"), (first, second), report_id)


def _draft(body: Any, place: str) -> Sentences:
    if not isinstance(body, dict) or not all(isinstance(text, str) for text in body.values()):
        raise Invalid("bad-study", "A draft has a text per section.", place)
    if sum(map(len, body.values())) > LONGEST_TEXT:
        raise Invalid("bad-study", f"A draft has at most {LONGEST_TEXT} characters.", place)
    read = tuple(
        (check_section_name(name, place), tuple(split_sentences(refuse_unstorable(text, place))))
        for name, text in body.items()
    )
    if not any(sentences for _, sentences in read):
        raise Invalid("bad-study", "A draft without a sentence cannot be graded.", place)
    return read


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == ARMS


def _word(words: Any, value: Any, place: str) -> Any:
    known = {str(word): word for word in words}
    if not isinstance(value, str) or value not in known:
        raise Invalid("bad-grade", f"Expected one of {', '.join(known)}.", place)
    return known[value]
