from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.edits import FragmentEdit, SectionEdit, edited, imported_indication
from inlay_core.domain.errors import DomainError, Invalid, Locked
from inlay_core.domain.fragment import Fragment, FragmentWarning, Origin, Section
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


def test_sections_are_known_and_named_once() -> None:
    """A report has the five sections of a report, in their order."""
    with pytest.raises(Invalid):
        edit(FragmentEdit(text="x"), name="gossip")
    with pytest.raises(Invalid):
        edited(REPORT, [SectionEdit("impression", ()), SectionEdit("impression", ())], counting_ids())
    after = edited(REPORT, [SectionEdit("technique", (FragmentEdit(text="PA."),))], counting_ids())
    assert [section.name for section in after] == ["technique", "findings", "impression"]


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
