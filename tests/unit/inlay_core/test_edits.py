from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inlay_core.domain.edits import FragmentEdit, Offered, SectionEdit, Sources, edited, imported_indication
from inlay_core.domain.errors import DomainError, Invalid, Locked
from inlay_core.domain.fragment import Fragment, FragmentWarning, Origin, PlacedGap, Section
from inlay_testkit.core import counting_ids

WARNED = (FragmentWarning("side", "", 0, 1),)
A = Fragment("a", "Heart normal. ", Origin.MODEL, locked=True, warnings=WARNED, job_id="j")
B = Fragment("b", "No effusion. ", Origin.MODEL, job_id="j")
REPORT = (Section("findings", (A, B)), Section("impression", (Fragment("i", "Normal.", Origin.MODEL),)))


def edit(*fragments: FragmentEdit, name: str = "findings") -> tuple[Section, ...]:
    """The report after an edit of one section."""
    return edited(REPORT, [SectionEdit(name, fragments)], counting_ids("new"))


def test_unchanged_fragments_keep_origin_and_warnings() -> None:
    """A fragment named by id, without text or with the same text, stays what it is; only its lock may change."""
    findings, impression = edit(FragmentEdit("b", B.text, locked=True), FragmentEdit("a", locked=True))
    assert findings.fragments == (Fragment("b", B.text, Origin.MODEL, locked=True, job_id="j"), A)
    assert impression == REPORT[1]


def test_changed_and_new_text_is_the_clinicians() -> None:
    """Edited text keeps its id and becomes the clinician's; new text gets a new id."""
    findings, _ = edit(FragmentEdit("a", locked=True), FragmentEdit("b", "Effusion. "), FragmentEdit(text="New."))
    assert findings.fragments[1:] == (
        Fragment("b", "Effusion. ", Origin.CLINICIAN),
        Fragment("new-1", "New.", Origin.CLINICIAN),
    )


def test_models_words_pasted_back_stay_the_models() -> None:
    """Sending a stored text without its id does not launder it into a clinician's."""
    findings, _ = edit(FragmentEdit("a", locked=True), FragmentEdit(text=B.text))
    assert findings.fragments[1] == B


def test_gaps_keep_their_places_where_an_edit_becomes_several_fragments() -> None:
    """The places of an edit count its items; those of the section count its fragments."""
    offers = Sources(lambda _: (), lambda _: [{"section": "findings", "item": 1, "texts": [{"text": "One. Two."}]}])
    fragments = (FragmentEdit("a", locked=True), FragmentEdit(offered=Offered("j", 1, 0)), FragmentEdit(text="End."))
    gaps = tuple(PlacedGap(at, f"hint {at}") for at in (3, 2, 1, 0))
    (findings, _) = edited(REPORT, [SectionEdit("findings", fragments, gaps=gaps)], counting_ids("new"), offers)
    assert [one.text for one in findings.fragments] == [A.text, "One. ", "Two. ", "End."]
    assert findings.gaps == tuple(PlacedGap(at, f"hint {was}") for was, at in ((0, 0), (1, 1), (2, 3), (3, 4)))
    (findings, _) = edit(FragmentEdit("a", locked=True))
    assert findings.gaps == ()


@pytest.mark.parametrize("at", [-1, 2])
def test_a_gap_outside_of_its_section_is_refused(at: int) -> None:
    """Its place is named."""
    change = SectionEdit("findings", (FragmentEdit("a", locked=True),), gaps=(PlacedGap(0), PlacedGap(at)))
    with pytest.raises(Invalid) as caught:
        edited(REPORT, [change], counting_ids("new"))
    assert (caught.value.code, caught.value.place) == ("bad-gap", "sections[0].gaps[1].at")


def test_an_unlocked_fragment_may_be_changed_in_the_same_call() -> None:
    """Lifting the lock and changing the text is one act."""
    findings, _ = edit(FragmentEdit("a", "Heart enlarged. ", locked=False))
    assert findings.fragments == (Fragment("a", "Heart enlarged. ", Origin.CLINICIAN),)


@pytest.mark.parametrize(
    ("fragments", "kind", "code"),
    [
        ((FragmentEdit("a", "Changed.", locked=True),), Locked, "fragment-locked"),
        ((FragmentEdit("b"),), Locked, "locked-fragment-missing"),
        ((), Locked, "locked-fragment-missing"),
        ((FragmentEdit("zz"),), Invalid, "unknown-fragment"),
        ((FragmentEdit("a", locked=True), FragmentEdit("a")), Invalid, "unknown-fragment"),
        ((FragmentEdit("i"),), Invalid, "unknown-fragment"),
        ((FragmentEdit("a", locked=True), FragmentEdit()), Invalid, "text-missing"),
        ((FragmentEdit("a", locked=True), FragmentEdit(text="\x00")), Invalid, "nul-character"),
    ],
)
def test_edits_that_do_not_fit_are_refused(
    fragments: tuple[FragmentEdit, ...], kind: type[DomainError], code: str
) -> None:
    """Locked text cannot change or vanish by the way, and ids must be of this section, once."""
    with pytest.raises(kind) as refused:
        edit(*fragments)
    assert refused.value.code == code


def test_a_sentence_may_be_cut_without_becoming_the_clinicians() -> None:
    """Each piece keeps the words' origin; the first keeps the id, and what no piece covers is gone."""
    pieces = FragmentEdit("b", span=(0, 3), locked=True), FragmentEdit("b", span=(3, 11))
    findings, _ = edit(FragmentEdit("a", locked=True), *pieces)
    assert findings.fragments[1:] == (
        Fragment("b", "No ", Origin.MODEL, locked=True, job_id="j"),
        Fragment("new-1", "effusion", Origin.MODEL, job_id="j"),
    )


@given(st.lists(st.tuples(st.integers(-1, 14), st.integers(-1, 14)), max_size=4))
@example([(0, 2), (1, 1)])
def test_no_character_is_kept_twice(spans: list[tuple[int, int]]) -> None:
    """Pieces that leave the sentence or overlap are refused; others are exactly the characters that they name."""
    edits = [FragmentEdit("a", locked=True), *(FragmentEdit("b", span=span) for span in spans)]
    inside = all(0 <= start <= end <= len(B.text) for start, end in spans)
    counts = [sum(start <= at < end for start, end in spans) for at in range(len(B.text))]
    try:
        findings, _ = edit(*edits)
    except Invalid:
        assert not inside or max(counts) > 1
    else:
        assert inside
        assert max(counts) <= 1
        assert [f.text for f in findings.fragments[1:]] == [B.text[start:end] for start, end in spans]
        assert len({f.id for f in findings.fragments}) == len(findings.fragments)


def test_locks_named_as_lifted_do_not_hold() -> None:
    """A locked sentence may be removed or cut when the edit says that its lock is lifted, and only then."""
    (lifted, _) = edited(REPORT, [SectionEdit("findings", (FragmentEdit("b"),), unlocked=("a",))], counting_ids())
    assert lifted.fragments == (B,)
    with pytest.raises(Locked):
        edit(FragmentEdit("a", span=(0, 5), locked=True), FragmentEdit("b"))
    with pytest.raises(Invalid):
        edited(REPORT, [SectionEdit("findings", (FragmentEdit("b"),), unlocked=("i",))], counting_ids())


def earlier(version: int) -> tuple[Section, ...]:
    """Version 1 had one sentence that is gone, and another text under the id b."""
    assert version == 1
    gone = Fragment("gone", "Old. ", Origin.MODEL, job_id="j0")
    return (Section("findings", (gone, Fragment("b", "Large effusion. ", Origin.MODEL, job_id="j0"))),)


OFFERS = (
    {"section": "findings", "item": 1, "texts": [{"text": "One.", "score": 0}, {"text": "Two. Three.", "score": 0}]},
)
SOURCES = Sources(earlier, lambda job_id: OFFERS if job_id == "j" else ())


def brought(*fragments: FragmentEdit) -> tuple[Fragment, ...]:
    """The findings after an edit that may look into earlier versions and offers."""
    return edited(REPORT, [SectionEdit("findings", fragments)], counting_ids("new"), SOURCES)[0].fragments


def test_undo_brings_words_back_with_their_origin() -> None:
    """A fragment of an earlier version is named by id and version; it is still the model's."""
    first, second, _ = brought(
        FragmentEdit("gone", version=1), FragmentEdit("b", version=1), FragmentEdit("a", locked=True)
    )
    assert first == Fragment("gone", "Old. ", Origin.MODEL, job_id="j0")
    assert second == Fragment("b", "Large effusion. ", Origin.MODEL, job_id="j0")


def test_what_the_model_offered_stays_the_models() -> None:
    """Another text for a gap comes from the job, in sentences, with a blank where it would touch its neighbours."""
    first, second, third, last = brought(
        FragmentEdit("a", locked=True), FragmentEdit(offered=Offered("j", 1, 1)), FragmentEdit(text="End.")
    )
    assert [first.text, second.text, third.text, last.text] == ["Heart normal. ", "Two. ", "Three. ", "End."]
    assert {second.origin, third.origin} == {Origin.MODEL}
    assert {second.job_id, third.job_id} == {"j"}


@pytest.mark.parametrize(
    "wanted",
    [
        FragmentEdit("missing", version=1),
        FragmentEdit("b", version=1, text="Mine."),
        FragmentEdit("b", span=(0, 2), text="No"),
        FragmentEdit(offered=Offered("j", 0, 0)),
        FragmentEdit(offered=Offered("j", 1, 2)),
        FragmentEdit(offered=Offered("other", 1, 0)),
        FragmentEdit("b", offered=Offered("j", 1, 0)),
    ],
)
def test_words_that_are_nowhere_cannot_be_brought_back(wanted: FragmentEdit) -> None:
    """Neither unknown places nor places together with a text of the caller's own."""
    with pytest.raises(Invalid):
        brought(FragmentEdit("a", locked=True), wanted)


def test_sections_are_known_and_named_once() -> None:
    """A report has the five sections of a report, in their order."""
    with pytest.raises(Invalid):
        edit(FragmentEdit(text="x"), name="gossip")
    with pytest.raises(Invalid):
        edited(REPORT, [SectionEdit("impression", ()), SectionEdit("impression", ())], counting_ids())
    after = edited(REPORT, [SectionEdit("technique", (FragmentEdit(text="PA."),))], counting_ids())
    assert [section.name for section in after] == ["findings", "impression", "technique"]


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), st.booleans())))
def test_a_section_is_the_concatenation_of_what_was_sent(parts: list[tuple[str, bool]]) -> None:
    """The section's text is exactly the texts in the order sent, whatever they contain."""
    edits = tuple(FragmentEdit(text=text, locked=locked) for text, locked in parts)
    (section,) = edited((), [SectionEdit("findings", edits)], counting_ids())
    assert section.text == "".join(text for text, _ in parts)
    assert [fragment.locked for fragment in section.fragments] == [locked for _, locked in parts]


def test_the_orders_reason_is_imported_text() -> None:
    """The Indication section carries the order's free text as imported, and is absent without it."""
    assert imported_indication(None, counting_ids()) == ()
    (section,) = imported_indication("Cough", counting_ids())
    assert (section.name, section.fragments[0].origin) == ("indication", Origin.IMPORTED)
