from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.errors import DomainError, Fault, Invalid, Locked
from inlay_core.domain.fragment import Fragment, Origin, Section
from inlay_core.domain.infill import (
    Dispute,
    Fill,
    FreeText,
    Gap,
    InfillRequest,
    InfillSection,
    KeptText,
    LockRef,
    LockText,
    OpenGap,
    resolve,
    splice,
)
from inlay_core.domain.text import sha256_of
from inlay_testkit.core import counting_ids

# What careless code changes: NFC and NFD, combining marks at the start, emoji sequences, right to left, every kind of
# line end, tabs, trailing blanks, nothing at all.
NASTY = [
    "Caf\u00e9 ",
    "Cafe\u0301 ",
    "\u0301starts with a combining mark. ",
    "\U0001f469\u200d\u2695\ufe0f ok.",
    "\u202bבדיקה תקינה\u202c. ",
    "Line one.\r\nLine two.\r",
    "\tTabbed.\t",
    "Trailing blanks.   ",
    "",
    " ",
    "\u2028\u00a0\u3000",
    "1.5 cm nodule",
]
lock_texts = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
)
origins = st.sampled_from([Origin.MODEL, Origin.CLINICIAN])


@st.composite
def sections(draw: st.DrawFn) -> Section:
    """A section of 1 to 12 locked fragments with difficult texts, of any origin."""
    texts = draw(st.lists(lock_texts, min_size=1, max_size=12))
    return Section(
        "findings",
        tuple(Fragment(f"f{n}", text, draw(origins), locked=True, job_id="old") for n, text in enumerate(texts)),
    )


@given(st.data(), sections(), lock_texts)
def test_locked_fragments_come_back_byte_for_byte(data: st.DataObject, section: Section, fill: str) -> None:
    """Whatever the gaps are filled with, locks keep id, text, origin, flag and order, and their digests say so."""
    items: list[Any] = []
    for fragment in section.fragments:
        if data.draw(st.booleans()):
            items.append(data.draw(st.sampled_from([Gap(), FreeText("old words"), Gap(1, 9, "pleura")])))
        items.append(LockRef(fragment.id))
    items += data.draw(st.sampled_from([[], [Gap()]]))
    request = InfillRequest((InfillSection("findings", tuple(items)),))
    gaps = [n for n, item in enumerate(items) if not isinstance(item, LockRef)]
    spliced = splice(
        request, (section,), [Fill("findings", n, fill) for n in gaps], new_id=counting_ids("new"), job_id="j"
    )
    (after,) = spliced.sections
    assert tuple(f for f in after.fragments if f.locked) == section.fragments
    assert [d.sha256 for d in spliced.digests] == [sha256_of(f.text) for f in section.fragments]
    written = [f for f in after.fragments if not f.locked]
    assert all(f.origin is Origin.MODEL and f.job_id == "j" for f in written)
    assert "".join(f.text for f in written).replace(" ", "") == (fill * len(gaps)).replace(" ", "")


@given(sections())
def test_a_whole_report_of_locks_is_unchanged(section: Section) -> None:
    """Where everything is locked, nothing changes."""
    request = InfillRequest((InfillSection("findings", tuple(LockRef(f.id) for f in section.fragments)),))
    assert splice(request, (section,), [], new_id=counting_ids(), job_id="j").sections == (section,)


@given(st.lists(lock_texts, min_size=1, max_size=12), lock_texts)
def test_text_that_the_caller_sends_comes_back_byte_for_byte(texts: list[str], fill: str) -> None:
    """Locked text sent in the request is the clinician's, is locked, and is not touched."""
    items = tuple(item for text in texts for item in (LockText(text), Gap()))
    request = InfillRequest.from_json(
        json.loads(json.dumps(InfillRequest((InfillSection("findings", items),)).to_json()))
    )
    fills = [Fill("findings", n, fill) for n in range(1, len(items), 2)]
    (after,) = splice(request, (), fills, new_id=counting_ids(), job_id="j").sections
    locked = [f for f in after.fragments if f.locked]
    assert [f.text for f in locked] == texts
    assert {f.origin for f in locked} == {Origin.CLINICIAN}


A = Fragment("a", "The heart is normal. ", Origin.MODEL, locked=True, job_id="old")
B = Fragment("b", "No effusion. ", Origin.MODEL, job_id="old")
C = Fragment("c", "Ribs intact.", Origin.CLINICIAN)
REASON = Section("indication", (Fragment("r", "Cough for 3 days", Origin.IMPORTED),))
REPORT = (REASON, Section("findings", (A, B, C)), Section("impression", (Fragment("i", "Normal.", Origin.MODEL),)))


def request_of(*items: Any, name: str = "findings") -> InfillRequest:
    """A request for one section."""
    return InfillRequest((InfillSection(name, items),))


def test_the_model_sees_strings_gaps_and_the_other_sections() -> None:
    """Ids become texts, unlocked text becomes a gap of its length, unnamed sections are context; the reason is not."""
    findings, impression = resolve(request_of(LockRef("a"), FreeText("No effusion. "), Gap(2, 8, "ribs")), REPORT)
    assert findings.items == (KeptText(A.text, A), OpenGap(replaces="No effusion. "), OpenGap(2, 8, "ribs"))
    assert (impression.name, impression.context) == ("impression", True)


@pytest.mark.parametrize("items", [(Gap(),), (FreeText("Cough for 3 days"),), (LockText("Cough."), Gap())])
def test_imported_text_is_not_written_over(items: tuple[Any, ...]) -> None:
    """What the order said is not the model's to replace, locked or not."""
    with pytest.raises(Locked) as refused:
        resolve(request_of(*items, name="indication"), REPORT)
    assert refused.value.code == "imported-text-missing"


def test_imported_text_reaches_the_model_only_where_the_site_allows_it() -> None:
    """An order's free text is refused as a lock and left out as context, unless the site allows it."""
    with pytest.raises(Invalid) as refused:
        resolve(request_of(LockRef("r"), name="indication"), REPORT)
    assert refused.value.code == "imported-text"
    names = [part.name for part in resolve(request_of(LockRef("a")), REPORT, imported_text_allowed=True)]
    assert names == ["findings", "indication", "impression"]


def test_models_words_sent_back_as_text_stay_the_models() -> None:
    """A lock whose text is already in the section keeps the stored fragment's id and origin."""
    (after,) = [
        s
        for s in splice(
            request_of(LockRef("a"), LockText(B.text), Gap()),
            REPORT,
            [Fill("findings", 2, "Clear.")],
            new_id=counting_ids(),
            job_id="j",
        ).sections
        if s.name == "findings"
    ]
    assert [(f.id, f.origin, f.locked) for f in after.fragments[:2]] == [
        ("a", Origin.MODEL, True),
        ("b", Origin.MODEL, True),
    ]


def test_fills_become_sentences_and_other_sections_stay() -> None:
    """The model's words are cut into sentences of origin model; sections that were not named are untouched."""
    spliced = splice(
        request_of(LockRef("a"), Gap()),
        REPORT,
        [Fill("findings", 1, "Small effusion. Clear lungs.")],
        new_id=counting_ids("n"),
        job_id="j",
    )
    indication, findings, impression = spliced.sections
    assert (indication, impression) == (REPORT[0], REPORT[2])
    assert [(f.id, f.text) for f in findings.fragments] == [
        ("a", A.text),
        ("n-1", "Small effusion. "),
        ("n-2", "Clear lungs."),
    ]


@pytest.mark.parametrize(
    ("before", "fill", "after", "expected"),
    [
        ("Heart normal.", "Lungs clear.", "Ribs intact.", "Heart normal. Lungs clear. Ribs intact."),
        ("Heart normal. ", "Lungs clear. ", "Ribs intact.", "Heart normal. Lungs clear. Ribs intact."),
        ("A nodule", ", 3 mm,", "is seen.", "A nodule, 3 mm, is seen."),
        ("Heart normal.", "", "Ribs intact.", "Heart normal.Ribs intact."),
    ],
)
def test_words_of_the_model_do_not_touch_words_of_a_lock(before: str, fill: str, after: str, expected: str) -> None:
    """A blank is added to the fill where it is missing, never to the lock."""
    request = request_of(LockText(before), Gap(), LockText(after))
    (section,) = splice(request, (), [Fill("findings", 1, fill)], new_id=counting_ids(), job_id="j").sections
    assert section.text == expected
    assert [f.text for f in section.fragments if f.locked] == [before, after]


def test_a_dispute_becomes_a_warning_on_the_lock() -> None:
    """Disagreement is shown on the locked fragment and changes none of its text."""
    dispute = Dispute("findings", 0, 4, 9, "laterality", "The image suggests the other side.")
    spliced = splice(request_of(LockRef("a")), REPORT, [], new_id=counting_ids(), job_id="j", disputes=[dispute])
    (kept,) = spliced.sections[1].fragments
    assert (kept.text, kept.locked) == (A.text, True)
    assert [(w.code, w.start, w.end) for w in kept.warnings] == [("laterality", 4, 9)]


@pytest.mark.parametrize(
    ("items", "kind", "code"),
    [
        ((LockRef("nope"), LockRef("a")), Invalid, "unknown-fragment"),
        ((LockRef("a"), LockRef("a")), Invalid, "unknown-fragment"),
        ((LockRef("i"), LockRef("a")), Invalid, "unknown-fragment"),
        ((LockRef("b"), Gap()), Locked, "locked-fragment-missing"),
        ((FreeText("The heart is normal. "),), Locked, "locked-fragment-missing"),
    ],
)
def test_requests_that_do_not_fit_the_text_are_refused(
    items: tuple[Any, ...], kind: type[DomainError], code: str
) -> None:
    """Unknown or repeated ids, ids of another section, and requests that would drop a locked fragment are refused."""
    with pytest.raises(kind) as refused:
        resolve(request_of(*items), REPORT)
    assert refused.value.code == code


@pytest.mark.parametrize("items", [(), (Gap(),), (FreeText(" \n"), Gap(hint="pleura")), (LockText("Clear. "),)])
def test_a_rewriting_needs_a_text_to_say_again(items: tuple[Any, ...]) -> None:
    """Nothing is made up where there is nothing to be said again; the same request is an infill like others without."""
    asked = request_of(LockRef("a"), *items)
    assert resolve(asked, REPORT)
    with pytest.raises(Invalid) as refused:
        resolve(replace(asked, rewrite=True), REPORT)
    assert (refused.value.code, refused.value.place) == ("nothing-to-rewrite", "sections")
    said = replace(request_of(LockRef("a"), FreeText("No effusion. "), *items), rewrite=True)
    assert resolve(said, REPORT)


@pytest.mark.parametrize(
    ("fills", "code"),
    [
        ([], "gap-without-fill"),
        ([Fill("findings", 1, "x"), Fill("findings", 1, "y")], "gap-filled-twice"),
        ([Fill("findings", 1, "x"), Fill("findings", 0, "y")], "fill-without-gap"),
        ([Fill("findings", 1, "x"), Fill("impression", 0, "y")], "fill-without-gap"),
    ],
)
def test_results_that_do_not_fit_the_gaps_are_faults(fills: list[Fill], code: str) -> None:
    """A result must fill every gap once, and nothing else: a lock above all."""
    with pytest.raises(Fault) as refused:
        splice(request_of(LockRef("a"), Gap()), REPORT, fills, new_id=counting_ids(), job_id="j")
    assert refused.value.code == code


BODY: dict[str, Any] = {
    "sections": [
        {"name": "findings", "items": [{"lock": "a"}, {"text": "t", "locked": True}, {"text": "u"}, {"gap": {}}]}
    ]
}


def test_the_request_survives_rest() -> None:
    """What the API sends is what the worker resolves."""
    request = InfillRequest.from_json(
        BODY | {"seed": 7, "steps": 16, "alternatives": 5, "rewrite": True, "warm_start": 0.5}
    )
    assert request.sections[0].items == (LockRef("a"), LockText("t"), FreeText("u"), Gap())
    assert InfillRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def _with_item(item: Any) -> dict[str, Any]:
    return {"sections": [{"name": "findings", "items": [item]}]}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "sections"),
        ({"sections": []}, "sections"),
        ({"sections": "findings"}, "sections"),
        ({"sections": BODY["sections"] * 2}, "sections"),
        ({"sections": [{"items": []}]}, "sections[0]"),
        ({"sections": [{"name": "gossip", "items": []}]}, "sections[0].name"),
        ({"sections": [{"name": "findings"}]}, "sections[0].items"),
        (_with_item({}), "sections[0].items[0]"),
        (_with_item({"lock": "a", "gap": {}}), "sections[0].items[0]"),
        (_with_item({"lock": 3}), "sections[0].items[0].lock"),
        (_with_item({"text": 3}), "sections[0].items[0].text"),
        (_with_item({"text": "x", "locked": "yes"}), "sections[0].items[0].text"),
        (_with_item({"text": "a\x00"}), "sections[0].items[0].text"),
        (_with_item({"gap": {"max_tokens": 0}}), "sections[0].items[0].gap.max_tokens"),
        (_with_item({"gap": {"max_tokens": True}}), "sections[0].items[0].gap.max_tokens"),
        (_with_item({"gap": {"min_tokens": 9, "max_tokens": 3}}), "sections[0].items[0].gap"),
        (_with_item({"gap": {"hint": "x" * 201}}), "sections[0].items[0].gap.hint"),
        (BODY | {"steps": 0}, "steps"),
        (BODY | {"alternatives": 6}, "alternatives"),
        (BODY | {"alternatives": 0}, "alternatives"),
        (BODY | {"rewrite": 1}, "rewrite"),
        (BODY | {"warm_start": 0}, "warm_start"),
        (BODY | {"warm_start": True}, "warm_start"),
        (BODY | {"warm_start": "0.5"}, "warm_start"),
        (BODY | {"seed": "7"}, "seed"),
    ],
)
def test_malformed_requests_name_the_place(body: dict[str, Any], place: str) -> None:
    """A malformed request is refused with the path to what is wrong."""
    with pytest.raises(Invalid) as refused:
        InfillRequest.from_json(body)
    assert refused.value.place == place
