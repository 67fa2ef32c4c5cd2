from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.application import reader_studies
from inlay_core.domain.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from inlay_core.domain.reader_study import Case, Mark, ReaderStudy, cases_of
from inlay_testkit.core import ADMIN, AUDITOR, COLLEAGUE, MONDAY, RADIOLOGIST, WORKER, Ward
from inlay_testkit.memory import Memory

ARMS = ("tiny", "large")


@pytest.fixture
def ward() -> Ward:
    """An empty ward."""
    return Ward(Memory()())


def pairs(number: int) -> list[dict[str, Any]]:
    """Cases whose drafts differ: the second arm's has two sentences."""
    return [
        {
            "label": f"case {n}",
            "drafts": {"tiny": {"findings": f"Small {n}."}, "large": {"findings": f"Large {n}. More."}},
        }
        for n in range(number)
    ]


def study(ward: Ward, number: int = 3, name: str = "pilot") -> ReaderStudy:
    """A study by the administrator."""
    return reader_studies.create_study(*ward.trio, ADMIN, name, ARMS, pairs(number))


def grade(ward: Ward, made: ReaderStudy, reader: Any, number: int, better: str, **changes: Any) -> Any:
    """A complete grade that prefers an arm, as its reader sees it: 5 to 2, and an error in the other's sentences."""
    place = reader_studies.next_case(ward.uow, reader, made.id, number)
    assert place is not None
    is_better = [any(text.startswith("Large") for text in draft[0][1]) == (better == "large") for draft in place.drafts]
    body = {
        "marks": [
            ["correct" if good else "major-error"] * len(draft[0][1])
            for good, draft in zip(is_better, place.drafts, strict=True)
        ],
        "scores": [5 if good else 2 for good in is_better],
        "choice": "first" if is_better[0] else "second",
    }
    return reader_studies.grade_case(*ward.trio, reader, made.id, number, body | changes)


def test_readers_go_through_all_cases_in_an_order_of_their_own(ward: Ward) -> None:
    """Each case once, complete ones never again; whoever stops goes on where they were."""
    made = study(ward, 6)
    order = []
    for _ in range(6):
        place = reader_studies.next_case(ward.uow, RADIOLOGIST, made.id)
        assert place is not None
        order.append(place.number)
        again = reader_studies.next_case(ward.uow, RADIOLOGIST, made.id)
        assert again == place
        grade(ward, made, RADIOLOGIST, place.number, "large")
    assert sorted(order) == [1, 2, 3, 4, 5, 6]
    assert reader_studies.next_case(ward.uow, RADIOLOGIST, made.id) is None
    assert order != made.sequence(COLLEAGUE.id)


def test_what_is_not_said_yet_is_asked_again(ward: Ward) -> None:
    """A grade without an answer is kept, and its case comes again with what was said."""
    made = study(ward, 1)
    kept = grade(ward, made, RADIOLOGIST, 1, "large", choice=None)
    assert not kept.is_complete
    place = reader_studies.next_case(ward.uow, RADIOLOGIST, made.id)
    assert place is not None
    assert (place.number, place.grade, place.done) == (1, kept, 0)
    assert reader_studies.results(ward.uow, AUDITOR, made.id).grades == 0


@given(st.text(min_size=1, max_size=20), st.integers(0, 2**64))
def test_sides_are_balanced_and_remembered(seed: str, reader: int) -> None:
    """Which draft stands first is the same each time, and either about as often."""
    drafts = ((("findings", ("a",)),), (("findings", ("b",)),))
    made = ReaderStudy("s", "n", ARMS, tuple(Case("", drafts) for _ in range(200)), seed, "x", MONDAY)
    sides = [made.is_swapped(str(reader), number) for number in range(1, 201)]
    assert sides == [made.is_swapped(str(reader), number) for number in range(1, 201)]
    # 200 fair coins leave this range once in a million million times.
    assert 50 <= sum(sides) <= 150
    assert sorted(made.sequence(str(reader))) == list(range(1, 201))


def test_grades_are_turned_back_to_their_arms(ward: Ward) -> None:
    """However the sides fell, what readers liked better has the better figures."""
    made = study(ward, 6)
    for reader in (RADIOLOGIST, COLLEAGUE):
        for number in range(1, 7):
            grade(ward, made, reader, number, "large")
    found = reader_studies.results(ward.uow, AUDITOR, made.id)
    assert (found.readers, found.grades, found.cases) == (2, 12, 6)
    assert found.scores == (2.0, 5.0)
    assert found.choices == (0, 12, 0)
    assert found.marks[0] == {Mark.CORRECT: 0, Mark.MINOR: 0, Mark.MAJOR: 12}
    assert found.marks[1] == {Mark.CORRECT: 24, Mark.MINOR: 0, Mark.MAJOR: 0}
    assert (found.score_test.n, found.score_test.negative, found.score_test.p) == (6, 0, 0.03125)
    assert found.error_test.positive == 0
    assert (found.balance, found.choice_p) == ((0, 6), 0.03125)


def test_readers_who_disagree_are_one_pair(ward: Ward) -> None:
    """Cases are the pairs: two readers of one case do not make two."""
    made = study(ward, 1)
    grade(ward, made, RADIOLOGIST, 1, "large")
    grade(ward, made, COLLEAGUE, 1, "tiny")
    found = reader_studies.results(ward.uow, AUDITOR, made.id)
    assert (found.score_test.n, found.score_test.equal, found.balance) == (0, 1, (0, 0))


def test_rows_name_the_arms_and_hold_no_text(ward: Ward) -> None:
    """The export is unblinded: which arm stood first, which was preferred."""
    made = study(ward, 4)
    for number in range(1, 5):
        grade(ward, made, RADIOLOGIST, number, "tiny")
    _, rows = reader_studies.export(ward.uow, AUDITOR, made.id)
    assert {row["preferred"] for row in rows} == {"tiny"}
    assert {(row["score_1"], row["score_2"]) for row in rows} == {(5, 2)}
    assert [len(row["marks_2"]) for row in rows] == [2, 2, 2, 2]
    assert Counter(row["shown_first"] for row in rows).keys() <= set(ARMS)
    assert "Large" not in str(rows)


def test_roles_are_kept_apart(ward: Ward) -> None:
    """Administrators make studies and do not grade; readers grade and see no results."""
    made = study(ward)
    refused = [
        lambda: reader_studies.create_study(*ward.trio, RADIOLOGIST, "x", ARMS, pairs(1)),
        lambda: reader_studies.close_study(*ward.trio, AUDITOR, made.id),
        lambda: reader_studies.next_case(ward.uow, ADMIN, made.id),
        lambda: reader_studies.grade_case(*ward.trio, AUDITOR, made.id, 1, {}),
        lambda: reader_studies.results(ward.uow, RADIOLOGIST, made.id),
        lambda: reader_studies.export(ward.uow, RADIOLOGIST, made.id),
        lambda: reader_studies.studies(ward.uow, WORKER),
    ]
    for act in refused:
        with pytest.raises(Forbidden):
            act()


def test_a_closed_study_takes_no_grade(ward: Ward) -> None:
    """After its end nothing is said any more, and it ends once."""
    made = study(ward)
    assert reader_studies.close_study(*ward.trio, ADMIN, made.id).closed_at == MONDAY
    for act in (
        lambda: grade(ward, made, RADIOLOGIST, 1, "large"),
        lambda: reader_studies.close_study(*ward.trio, ADMIN, made.id),
    ):
        with pytest.raises(Conflict):
            act()


def test_names_are_taken_once(ward: Ward) -> None:
    """Two studies of one name would be mixed up."""
    study(ward)
    with pytest.raises(Conflict):
        study(ward)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"marks": [["correct"]], "scores": [1, 2]}, "marks"),
        ({"marks": [["great"], [None, None]], "scores": [1, 2]}, "marks[0]"),
        ({"marks": [[], []], "scores": [1, 2]}, "marks[0]"),
        ({"marks": [[None], [None, None]], "scores": [0, 2]}, None),
        ({"marks": [[None], [None, None]], "scores": [True, 2]}, "scores"),
        ({"marks": [[None], [None, None]], "scores": [1]}, "scores"),
        ({"marks": [[None], [None, None]], "scores": [1, 1], "choice": "both"}, "choice"),
    ],
)
def test_grades_that_do_not_fit_are_refused(ward: Ward, body: dict[str, Any], place: str | None) -> None:
    """A mark per sentence, a score from 1 to 5, one of three choices; the error names the place."""
    made = study(ward, 1)
    if made.is_swapped(RADIOLOGIST.id, 1) and len(body["marks"]) == 2:
        body = body | {"marks": body["marks"][::-1]}
        place = place.replace("marks[0]", "marks[1]") if place and body["marks"][1] == ["great"] else place
    with pytest.raises(Invalid) as refused:
        reader_studies.grade_case(*ward.trio, RADIOLOGIST, made.id, 1, body)
    assert place is None or refused.value.place == place


@pytest.mark.parametrize(
    "cases",
    [
        None,
        [],
        [{}],
        [{"drafts": {"tiny": {"findings": "x"}}}],
        [{"drafts": {"tiny": {"findings": "x"}, "large": {"findings": " "}}, "colour": "red"}],
        [{"drafts": {"tiny": {"findings": "x"}, "large": {}}}],
        [{"drafts": {"tiny": {"lungs": "x"}, "large": {"findings": "x"}}}],
        [{"drafts": {"tiny": {"findings": "a\x00b"}, "large": {"findings": "x"}}}],
        [{"drafts": {"tiny": {"findings": "x" * 20_001}, "large": {"findings": "x"}}}],
    ],
)
def test_cases_that_cannot_be_graded_are_refused(cases: Any) -> None:
    """One draft per arm, of known sections, with something to read."""
    with pytest.raises(DomainError) as refused:
        cases_of(cases, ARMS)
    assert isinstance(refused.value, Invalid)


def test_unknown_cases_are_not_found(ward: Ward) -> None:
    """Neither a study nor a case that is not there."""
    made = study(ward, 1)
    with pytest.raises(NotFound):
        reader_studies.next_case(ward.uow, RADIOLOGIST, made.id, 2)
    with pytest.raises(NotFound):
        reader_studies.grade_case(*ward.trio, RADIOLOGIST, "none", 1, {})
