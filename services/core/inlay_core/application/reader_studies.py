"""Blinded reader studies: made by an administrator, graded by radiologists who see no names, read out afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from inlay_core.application.ports import UnitOfWork
from inlay_core.application.transaction import Act, retried
from inlay_core.domain.audit import Kind, Tag
from inlay_core.domain.errors import Conflict, Invalid, NotFound
from inlay_core.domain.identity import Actor, Permission, may, require
from inlay_core.domain.ids import Clock, NewId
from inlay_core.domain.paired import SignedRanks, sign_test, signed_ranks
from inlay_core.domain.reader_study import (
    Case,
    Choice,
    Grade,
    Mark,
    ReaderStudy,
    Sentences,
    cases_of,
    check_arms,
    check_grade,
    grade_of,
)
from inlay_core.domain.text import refuse_unstorable

LONGEST_NAME: Final = 120
# A reader's id is part of a key.
_LONGEST_READER: Final = 255


@dataclass(frozen=True, slots=True)
class Place:
    """A case as its reader sees it: two drafts without names, what they said of it before, and how far they are."""

    study: ReaderStudy
    number: int
    position: int
    drafts: tuple[Sentences, Sentences]
    grade: Grade | None
    done: int

    @property
    def case(self) -> Case:
        """The case itself."""
        return self.study.cases[self.number - 1]


@dataclass(frozen=True, slots=True)
class Results:
    """What a study has shown. Pairs are cases: what several readers said of one is averaged first.

    Of each arm: mean score, and sentences by mark. Differences are the second arm's less the first one's.
    """

    study: ReaderStudy
    readers: int
    grades: int
    cases: int
    scores: tuple[float | None, float | None]
    marks: tuple[Mapping[Mark, int], Mapping[Mark, int]]
    # Complete grades that preferred the first arm, the second, neither.
    choices: tuple[int, int, int]
    score_test: SignedRanks
    # Of the share of sentences with an error.
    error_test: SignedRanks
    # Cases whose readers preferred the first arm on balance, the second; and the sign test of these.
    balance: tuple[int, int]
    choice_p: float


@retried
def create_study(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, name: str, arms: Sequence[str], cases: Any
) -> ReaderStudy:
    """A study of these cases (`domain.reader_study.cases_of`). Raises Invalid, Conflict when the name is taken."""
    require(actor, Permission.MANAGE_READER_STUDIES)
    if not 0 < len(refuse_unstorable(name, "name").strip()) <= LONGEST_NAME:
        raise Invalid("bad-study", f"A name has 1 to {LONGEST_NAME} characters.", "name")
    checked = check_arms(arms)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        study = ReaderStudy(
            new_id(), name.strip(), checked, cases_of(cases, checked), new_id() + new_id(), actor.id, act.now
        )
        if any(other.name == study.name for other in uow.reader_studies.all()):
            raise Conflict("name-taken", "There is a study of that name.", "name")
        uow.reader_studies.add(study)
        act.record(Tag.ADMIN_STUDY_CREATED, (Kind.READER_STUDY, study.id), detail={"cases": len(study.cases)})
        uow.commit()
        return study


@retried
def close_study(uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, study_id: str) -> ReaderStudy:
    """Take no more grades."""
    require(actor, Permission.MANAGE_READER_STUDIES)
    with uow:
        act = Act(uow, clock(), new_id, actor)
        _load_open(uow, study_id)
        uow.reader_studies.close(study_id, act.now)
        act.record(Tag.ADMIN_STUDY_CLOSED, (Kind.READER_STUDY, study_id))
        uow.commit()
    with uow:
        return _load(uow, study_id)


def studies(uow: UnitOfWork, actor: Actor) -> Sequence[tuple[ReaderStudy, int]]:
    """Every study with how many of its cases this reader has graded, the newest first."""
    _may_see(actor)
    with uow:
        return [
            (study, sum(grade.is_complete for grade in uow.reader_studies.grades(study.id, actor.id)))
            for study in uow.reader_studies.all()
        ]


def next_case(uow: UnitOfWork, actor: Actor, study_id: str, number: int | None = None) -> Place | None:
    """The case that this reader grades next (or `number`); None when all are graded. Raises NotFound."""
    require(actor, Permission.GRADE_DRAFTS)
    with uow:
        study = _load(uow, study_id)
        grades = {grade.number: grade for grade in uow.reader_studies.grades(study_id, actor.id)}
    done = {number for number, grade in grades.items() if grade.is_complete}
    sequence = study.sequence(actor.id)
    if number is None:
        number = next((case for case in sequence if case not in done), None)
        if number is None:
            return None
    if study.case(number) is None:
        raise NotFound("unknown-case", "The study has no such case.", "case")
    position = sequence.index(number) + 1
    return Place(study, number, position, study.shown(actor.id, number), grades.get(number), len(done))


@retried
def grade_case(
    uow: UnitOfWork, clock: Clock, new_id: NewId, actor: Actor, study_id: str, number: int, body: Mapping[str, Any]
) -> Grade:
    """Keep what a reader says of a case, in place of what they said before; it may be incomplete, and go on later.

    Raises NotFound, Invalid, Conflict for a study that is closed.
    """
    require(actor, Permission.GRADE_DRAFTS)
    if len(actor.id) > _LONGEST_READER:
        raise Invalid("bad-reader", "This identity is too long for a reader's.", "actor.id")
    with uow:
        act = Act(uow, clock(), new_id, actor)
        study = _load_open(uow, study_id)
        if study.case(number) is None:
            raise NotFound("unknown-case", "The study has no such case.", "case")
        grade = check_grade(study, grade_of(study_id, number, actor.id, act.now, body))
        uow.reader_studies.put_grade(grade)
        detail = {"case": number, "complete": grade.is_complete}
        act.record(Tag.CLINICIAN_STUDY_GRADED, (Kind.READER_STUDY, study_id), detail=detail)
        uow.commit()
        return grade


def results(uow: UnitOfWork, actor: Actor, study_id: str) -> Results:
    """What the complete grades of a study show. Raises NotFound."""
    require(actor, Permission.READ_USAGE)
    with uow:
        study = _load(uow, study_id)
        grades = [grade for grade in uow.reader_studies.grades(study_id) if grade.is_complete]
    return results_of(study, grades)


def export(uow: UnitOfWork, actor: Actor, study_id: str) -> tuple[ReaderStudy, list[dict[str, Any]]]:
    """Every grade as a row, unblinded: what each arm got. Rows hold no text. Raises NotFound."""
    require(actor, Permission.READ_USAGE)
    with uow:
        study = _load(uow, study_id)
        return study, [_row(study, grade) for grade in uow.reader_studies.grades(study_id)]


def results_of(study: ReaderStudy, grades: Sequence[Grade]) -> Results:
    """What these complete grades show."""
    seen = [unblinded(study, grade) for grade in grades]
    by_case: dict[int, list[Unblinded]] = {}
    for grade, open_one in zip(grades, seen, strict=True):
        by_case.setdefault(grade.number, []).append(open_one)
    balance = [sum(one.preference for one in of_case) for of_case in by_case.values()]
    first, second = sum(net < 0 for net in balance), sum(net > 0 for net in balance)
    return Results(
        study,
        readers=len({grade.reader_id for grade in grades}),
        grades=len(grades),
        cases=len(by_case),
        scores=(_mean([one.scores[0] for one in seen]), _mean([one.scores[1] for one in seen])),
        marks=(_counted(seen, 0), _counted(seen, 1)),
        choices=(
            sum(one.preference < 0 for one in seen),
            sum(one.preference > 0 for one in seen),
            sum(one.preference == 0 for one in seen),
        ),
        score_test=signed_ranks([fmean(one.scores[1] - one.scores[0] for one in of) for of in by_case.values()]),
        error_test=signed_ranks([fmean(one.errors(1) - one.errors(0) for one in of) for of in by_case.values()]),
        balance=(first, second),
        choice_p=sign_test(first, second),
    )


@dataclass(frozen=True, slots=True)
class Unblinded:
    """A complete grade in the order of the study's arms. `preference` is -1 for the first, 1 for the second."""

    marks: tuple[tuple[Mark, ...], tuple[Mark, ...]]
    scores: tuple[int, int]
    preference: int

    def errors(self, arm: int) -> float:
        """The share of the arm's sentences that have an error."""
        return fmean(mark is not Mark.CORRECT for mark in self.marks[arm])


def unblinded(study: ReaderStudy, grade: Grade) -> Unblinded:
    """A complete grade, turned back to the arms."""
    swapped = study.is_swapped(grade.reader_id, grade.number)
    preference = {Choice.FIRST: -1, Choice.SECOND: 1, Choice.NEITHER: 0}[grade.choice or Choice.NEITHER]
    marks = [tuple(mark for mark in of_one if mark is not None) for of_one in grade.marks]
    scores = [score or 0 for score in grade.scores]
    if swapped:
        marks.reverse()
        scores.reverse()
    return Unblinded((marks[0], marks[1]), (scores[0], scores[1]), -preference if swapped else preference)


def _row(study: ReaderStudy, grade: Grade) -> dict[str, Any]:
    case, swapped = study.cases[grade.number - 1], study.is_swapped(grade.reader_id, grade.number)
    sides = (1, 0) if swapped else (0, 1)
    preferred = {Choice.FIRST: study.arms[sides[0]], Choice.SECOND: study.arms[sides[1]], Choice.NEITHER: "neither"}
    row: dict[str, Any] = {
        "case": grade.number,
        "label": case.label,
        "reader": grade.reader_id,
        "graded_at": grade.graded_at.isoformat(),
        "complete": grade.is_complete,
        "shown_first": study.arms[sides[0]],
        "preferred": preferred[grade.choice] if grade.choice else None,
    }
    for arm in (0, 1):
        side = sides.index(arm)
        marks = [str(mark) if mark else None for mark in grade.marks[side]]
        row[f"score_{arm + 1}"] = grade.scores[side]
        row[f"marks_{arm + 1}"] = marks
    return row


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _counted(seen: Sequence[Unblinded], arm: int) -> Mapping[Mark, int]:
    return {mark: sum(one.marks[arm].count(mark) for one in seen) for mark in Mark}


def _may_see(actor: Actor) -> None:
    """Whoever grades, manages or reads out studies knows which there are."""
    if not may(actor, Permission.GRADE_DRAFTS):
        require(actor, Permission.READ_USAGE)


def _load(uow: UnitOfWork, study_id: str) -> ReaderStudy:
    study = uow.reader_studies.get(study_id)
    if study is None:
        raise NotFound("unknown-reader-study", "No such reader study.", "reader-study.id")
    return study


def _load_open(uow: UnitOfWork, study_id: str) -> ReaderStudy:
    study = _load(uow, study_id)
    if study.closed_at is not None:
        raise Conflict("reader-study-closed", "The study is closed.", "reader-study.closed_at")
    return study
