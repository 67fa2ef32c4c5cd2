from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.application import drafting, editing, oversight, signing
from inlay_core.application.ports import Generated
from inlay_core.domain.edits import FragmentEdit, SectionEdit
from inlay_core.domain.errors import Forbidden, Invalid
from inlay_core.domain.infill import Dispute, Fill, Gap, InfillRequest, InfillSection, LockRef
from inlay_core.domain.report import Report
from inlay_core.domain.usage import (
    Disputes,
    Outcome,
    SectionUse,
    Step,
    Usage,
    section_use,
    spread,
    summaries,
    word_distance,
)
from inlay_testkit.core import ADMIN, AUDITOR, DRAFT, EHR, MONDAY, RADIOLOGIST, WORKER, Ward
from inlay_testkit.memory import Memory

FAR = MONDAY + timedelta(days=365)
RUN = {"model": "tiny", "model_digest": "d1", "adapter_digest": "a1", "seed": 1}


@pytest.fixture
def ward() -> Ward:
    """An empty ward."""
    return Ward(Memory()())


def draft(ward: Ward, number: str = "1") -> Report:
    """An order, its draft ten minutes later, opened after another five."""
    ward.order(number)
    ward.clock.advance(600)
    made = ward.draft(replace(DRAFT, run_record=RUN))
    ward.clock.advance(300)
    return signing_open(ward, made)


def signing_open(ward: Ward, report: Report) -> Report:
    """A radiologist begins to read."""
    return editing.open_report(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)


def rewrite(ward: Ward, report: Report, **texts: list[str]) -> Report:
    """The sections as these sentences."""
    edits = [SectionEdit(name, tuple(FragmentEdit(text=text) for text in of)) for name, of in texts.items()]
    return editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version, edits=edits)


def put(ward: Ward, report: Report, *edits: FragmentEdit) -> Report:
    """The findings as these fragments."""
    sections = [SectionEdit("findings", edits)]
    return editing.put_fragments(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version, edits=sections)


def sign(ward: Ward, report: Report, seconds: float = 120) -> Report:
    """Sign it after a while."""
    ward.clock.advance(seconds)
    return signing.sign(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)


def usage(ward: Ward) -> Usage:
    """What became of the only draft."""
    (one,) = oversight.usages(ward.uow, AUDITOR, MONDAY, FAR)
    return one


def test_a_draft_that_is_signed_as_it_is(ward: Ward) -> None:
    """Everything is kept, nothing differs, and the times are those that passed."""
    sign(ward, draft(ward))
    one = usage(ward)
    assert one.sections == (SectionUse("findings", 3, 0, 0, 0, 0.0), SectionUse("impression", 1, 0, 0, 0, 0.0))
    assert (one.order_to_draft, one.draft_to_open, one.open_to_sign) == (600.0, 300.0, 120.0)
    assert (one.model, one.model_digest, one.adapter_digest) == ("tiny", "d1", "a1")
    assert (one.site, one.modality, one.outcome, one.is_untouched) == ("RIS", "DX", Outcome.SIGNED, True)


def test_sentences_are_kept_edited_deleted_and_added(ward: Ward) -> None:
    """One of each: told apart by their words, whoever cut them how."""
    report = draft(ward)
    findings = ["The heart is normal. ", "Small pleural effusion on the left, new. ", "No pneumothorax is seen.\n"]
    sign(ward, rewrite(ward, report, findings=findings))
    found = usage(ward)
    # "No pleural effusion." shares too little with the new sentence: it was deleted, and another one was added.
    assert found.sections[0] == SectionUse("findings", 1, 1, 1, 1, 7 / 15)
    assert not found.is_untouched


def test_locks_and_cuts_change_no_figure(ward: Ward) -> None:
    """Locking a sentence, or sending the same words as one fragment, is keeping them."""
    report = draft(ward)
    whole = "".join(fragment.text for fragment in report.sections[0].fragments)
    sign(ward, put(ward, report, FragmentEdit(text=whole, locked=True)))
    assert usage(ward).sections[0] == SectionUse("findings", 3, 0, 0, 0, 0.0)


def test_what_was_never_signed_has_no_shares(ward: Ward) -> None:
    """An open report counts as a draft, and says nothing of its sentences yet."""
    draft(ward)
    one = usage(ward)
    assert (one.outcome, one.sections, one.open_to_sign) == (Outcome.OPEN, (), None)
    (row,) = summaries([one], Step.ALL, UTC)
    assert (row.drafts, row.signed, row.share(row.kept)) == (1, 0, None)


def test_imported_text_is_nobodys_draft(ward: Ward) -> None:
    """The Indication that came with the order is neither kept nor added."""
    ward.order("1", reason="Cough for three days.")
    report = signing_open(ward, ward.draft())
    sign(ward, report)
    assert [section.name for section in usage(ward).sections] == ["findings", "impression"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal. ", Disputes(kept=1)),
        ("The lung is normal. ", Disputes(changed=1)),
        (None, Disputes(removed=1)),
    ],
)
def test_disputes_end_in_what_was_signed(ward: Ward, text: str | None, expected: Disputes) -> None:
    """The disputed word stands as it was, was changed, or its sentence is gone."""
    report = draft(ward)
    first = report.sections[0].fragments[0]
    request = InfillRequest((InfillSection("findings", (LockRef(first.id), Gap())),))
    locked = put(ward, report, FragmentEdit(first.id, locked=True))
    drafting.request_infill(*ward.trio, RADIOLOGIST, report.id, expected_version=locked.version, request=request)
    made = Generated(
        RUN,
        fills=(Fill("findings", 1, "No pneumothorax."),),
        disputes=(Dispute("findings", 0, 4, 9, "disputed", "The model disagrees."),),
    )
    infilled = ward.draft(made)
    assert usage(ward).disputes == Disputes(open=1)
    ids = [fragment.id for fragment in infilled.sections[0].fragments]
    unlocked = put(ward, infilled, *(FragmentEdit(one) for one in ids))
    rest = [FragmentEdit(one) for one in ids if one != first.id]
    wanted = [] if text is None else [FragmentEdit(first.id, text)]
    sign(ward, put(ward, unlocked, *wanted, *rest))
    assert usage(ward).disputes == expected
    assert usage(ward).infills == 1


def test_only_those_who_watch_over_it_read_figures(ward: Ward) -> None:
    """Radiologists and systems get none."""
    draft(ward)
    for actor in (RADIOLOGIST, EHR, WORKER):
        with pytest.raises(Forbidden):
            oversight.usages(ward.uow, actor, MONDAY, FAR)
    assert len(list(oversight.usages(ward.uow, ADMIN, MONDAY, FAR))) == 1


def test_figures_are_read_in_batches(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many drafts there are, each is counted once."""
    monkeypatch.setattr(oversight, "_BATCH", 2)
    for number in range(5):
        ward.drafted(str(number))
    found = list(oversight.usages(ward.uow, AUDITOR, MONDAY, FAR))
    assert len({one.report_id for one in found}) == len(found) == 5


def test_rows_hold_no_word_of_a_patient(ward: Ward) -> None:
    """What is exported are figures: no name, number or sentence."""
    sign(ward, draft(ward))
    one = usage(ward)
    text = oversight.csv_text([oversight.usage_row(one)]) + str(
        oversight.summary_row(summaries([one], Step.DAY, UTC)[0])
    )
    for word in ("Testperson", "MRN1", "P1,", "heart", "1.2.826"):
        assert word not in text


def test_a_spreadsheet_gets_no_formula() -> None:
    """A name that a spreadsheet would run is text there."""
    assert oversight.csv_text([{"a": "=1+1", "b": -1}]) == "a,b\r\n'=1+1,-1\r\n"
    assert oversight.csv_text([]) == ""


@pytest.mark.parametrize(
    ("step", "name"), [(Step.DAY, "2026-03-02"), (Step.WEEK, "2026-W10"), (Step.MONTH, "2026-03"), (Step.ALL, "all")]
)
def test_time_is_cut_where_the_site_is(step: Step, name: str) -> None:
    """A draft of Sunday night in UTC is Monday's where the hospital is."""
    sunday_night = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    assert step.of(sunday_night, timezone(timedelta(hours=1))) == name


def test_a_span_is_of_whole_days() -> None:
    """From the beginning of the first to the end of the last; what is no day is refused by name."""
    start, end = oversight.span_of("2026-03-01", "2026-03-02", MONDAY, UTC)
    assert (start, end) == (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))
    assert oversight.span_of(None, None, MONDAY, UTC) == (MONDAY - timedelta(days=90), MONDAY)
    for since, until, place in (
        ("x", None, "since"),
        (None, "2026-13-01", "until"),
        ("2026-03-03", "2026-03-01", "since"),
    ):
        with pytest.raises(Invalid) as refused:
            oversight.span_of(since, until, MONDAY, UTC)
        assert refused.value.place == place


def test_spreads_are_of_observed_times() -> None:
    """The ninth tenth is a time that somebody waited, also among few."""
    assert spread([]) is None
    few = spread([3.0, None, 1.0])
    assert few is not None
    assert (few.number, few.median, few.ninth_tenth) == (2, 2.0, 3.0)
    many = spread(float(number) for number in range(1, 101))
    assert many is not None
    assert many.ninth_tenth == 90.0


words = st.lists(st.sampled_from("abc"), max_size=7)


@given(words, words, words)
def test_the_distance_is_one_of_words(first: list[str], second: list[str], third: list[str]) -> None:
    """Zero for the same, symmetric, at most one, and at most everything is exchanged."""
    distance = word_distance(first, second)
    assert (distance == 0) == (first == second)
    assert distance == word_distance(second, first)
    assert 0 <= distance <= 1
    longest = max(len(first), len(second), len(third), 1)
    edits = distance * max(len(first), len(second), 1)
    through = word_distance(first, third) * max(len(first), len(third), 1)
    through += word_distance(third, second) * max(len(third), len(second), 1)
    assert edits <= through + 1e-9 * longest


@given(st.lists(st.sampled_from(["One two. ", "Three four five. ", "Six. "]), max_size=6), st.integers(0, 99))
def test_every_drafted_sentence_has_one_fate(sentences: list[str], seed: int) -> None:
    """Kept, edited and deleted make up the draft; kept, edited and added the signed text; order is no matter."""
    final = [*sentences, "Seven eight. "]
    random.Random(seed).shuffle(final)
    one = section_use("findings", "".join(sentences), "".join(final))
    assert one.kept == len(sentences)
    assert (one.edited, one.deleted, one.added) == (0, 0, 1)
