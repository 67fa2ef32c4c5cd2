"""Phantoms: findings that can stand together, images that follow from a seed, reports that can be read back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inlay_model.evaluation.overlap import token_f1
from inlay_model.phantom.findings import COLUMN, MOST_ABNORMAL, NAMES, SLOTS, Findings, draw_findings
from inlay_model.phantom.grammar import STYLES, corpus, read_sentences, split_sentences, write_report
from inlay_model.phantom.render import SIZE, phantom

seeds = st.integers(0, 2**32 - 1)


def test_there_are_at_least_twelve_slots_with_side_and_size() -> None:
    """The task is as wide as promised: twelve slots or more, sides and sizes among their values."""
    values = [value for name in NAMES for value in SLOTS[name]]
    assert len(NAMES) >= 12
    assert any("left" in value for value in values)
    assert any("mm" in value for value in values)


def test_a_phantom_is_drawn_by_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where drawing fails: the number of threads is the process'."""
    before, seen = torch.get_num_threads(), list[int]()

    def failing(*_: object) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        raise ValueError("no paint")

    torch.set_num_threads(3)
    try:
        monkeypatch.setattr("inlay_model.phantom.render.paint", failing)
        with pytest.raises(ValueError, match="no paint"):
            phantom(1)
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


@given(seeds)
def test_a_nodule_has_a_size_and_only_a_nodule_has_one(seed: int) -> None:
    """Size and place of a nodule are both normal or both not, and no report has more findings than fit."""
    drawn = draw_findings(50, np.random.default_rng(seed))
    assert ((drawn[:, COLUMN["nodule"]] > 0) == (drawn[:, COLUMN["nodule size"]] > 0)).all()
    assert ((drawn > 0).sum(axis=1) - (drawn[:, COLUMN["nodule size"]] > 0) <= MOST_ABNORMAL).all()


def test_every_value_of_every_slot_is_drawn() -> None:
    """The rules about what hides what leave every finding possible."""
    drawn = draw_findings(20_000, np.random.default_rng(0))
    for name in NAMES:
        assert set(drawn[:, COLUMN[name]]) == set(range(len(SLOTS[name]))), name


@given(seed=seeds, style=st.sampled_from(STYLES))
def test_what_is_written_is_read_back(*, seed: int, style: str) -> None:
    """Findings says exactly the findings, in every style; Impression says nothing that Findings does not."""
    rng = np.random.default_rng(seed)
    findings = Findings.from_indices(draw_findings(1, rng)[0])
    report = write_report(findings, style, rng)
    body = read_sentences(split_sentences(report.text("findings")))
    conclusion = read_sentences(split_sentences(report.text("impression")))
    assert body.findings() == findings
    assert not body.unknown
    assert not conclusion.unknown
    assert conclusion.abnormal() <= body.abnormal()


def test_a_sentence_of_somebody_else_is_unknown_and_a_contradiction_is_no_finding() -> None:
    """The reader guesses nothing: foreign text is reported, and two values of one slot make no findings."""
    assert read_sentences(["The heart is large."]).unknown == ("The heart is large.",)
    assert read_sentences(["Heart normal.", "Heart mildly enlarged."]).findings() is None


def test_every_sentence_ends_as_a_sentence() -> None:
    """Gaps are judged by whole sentences, so every sentence of the grammar must be one."""
    assert all(sentence[0].isupper() and sentence.endswith(".") and ". " not in sentence for sentence in corpus())


def test_a_seed_gives_one_image_and_another_seed_another() -> None:
    """Phantoms are reproducible, 8 bit, of the stated size, and differ."""
    one, again, other = phantom(5), phantom(5), phantom(6)
    assert one.image.shape == (SIZE, SIZE)
    assert one.image.dtype == np.uint8
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        # The patient's right is on the image's left.
        ({"right_effusion": "large"}, (slice(230, 280), slice(60, 140))),
        ({"left_effusion": "large"}, (slice(230, 280), slice(250, 330))),
        ({"pacemaker": "left"}, (slice(60, 80), slice(265, 285))),
        ({"pacemaker": "right"}, (slice(60, 80), slice(100, 120))),
    ],
)
def test_a_finding_shows_on_its_own_side(changed: dict[str, str], place: tuple[slice, slice]) -> None:
    """Fluid and metal brighten the side that they are on, as a radiograph shows it."""
    without = phantom(7, Findings.normal()).image[place].astype(float).mean()
    shown = phantom(7, Findings.normal(**changed)).image[place].astype(float).mean()
    assert shown > without + 20


def test_an_unknown_slot_or_value_is_named() -> None:
    """A misspelt finding is refused by name rather than drawn as normal."""
    with pytest.raises(ValueError, match="left efusion"):
        Findings.normal(left_efusion="large")


def test_token_f1_counts_words_and_ignores_their_order() -> None:
    """Equal texts score one, disjoint ones zero, half the words a half."""
    assert token_f1("The heart is normal.", "the HEART is normal.") == 1.0
    assert token_f1("No effusion.", "") == 0.0
    assert token_f1("a b", "b c") == pytest.approx(0.5)
