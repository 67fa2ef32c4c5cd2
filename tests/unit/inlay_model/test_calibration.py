"""From scores to probabilities: the curve rises, is near the shares that were right, and keeps the order of texts."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_model import CheckpointProblem, Engine, Filled, Gap, GenerationSettings, Lock, PromptContext, Section
from inlay_model.calibration import Bin, expected_error, fitted, probability, reliability
from inlay_model.evaluation.alternatives import Found, crossed, judge, keep, scored, summary, table
from inlay_model.loading import read_about
from inlay_model.request import Alternative, Choice
from inlay_testkit.engine import run_record

CASES = st.lists(st.tuples(st.floats(-9, 0).map(lambda score: round(score, 3)), st.booleans()), min_size=1, max_size=60)


@given(CASES)
def test_the_curve_rises_and_its_ends_hold_beyond_it(cases: list[tuple[float, bool]]) -> None:
    """Probabilities strictly between 0 and 1, never falling with the score, the same beyond the ends."""
    curve = fitted(cases)
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(curve))
    said = [probability(curve, score) for score in np.linspace(-12, 3, 61)]
    assert all(0 < p < 1 for p in said)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(said))
    assert (said[0], said[-1]) == (curve[0][1], curve[-1][1])


def test_a_fitted_curve_is_reliable_on_other_cases_of_its_kind() -> None:
    """Scores whose probability is known: what is said on fresh cases is within a few hundredths of what is right."""
    rng = np.random.default_rng(3)

    def drawn(count: int) -> list[tuple[float, bool]]:
        scores = rng.uniform(-6, 0, count)
        return [(float(score), bool(rng.random() < 1 / (1 + np.exp(-2 * (score + 3))))) for score in scores]

    curve = fitted(drawn(3000))
    found = reliability([(probability(curve, score), right) for score, right in drawn(3000)])
    assert expected_error(found) < 0.04
    assert sum(one.n for one in found) == 3000


def test_bins_count_what_falls_into_them() -> None:
    """A certain case is in the last bin; empty bins are left out; without cases there is no error."""
    assert reliability([(1.0, True), (0.95, False), (0.1, False)]) == [Bin(1, 0.1, 0.0), Bin(2, 0.975, 0.5)]
    assert expected_error([]) == 0.0


def test_alternatives_have_probabilities_where_the_checkpoint_has_a_curve(engine: Any) -> None:
    """The order is that of the scores; a checkpoint without a curve says none."""
    asked = (Section("findings", (Lock("The heart is normal. "), Gap(max_tokens=6), Lock("No pneumothorax. "))),)
    settings = GenerationSettings(steps=2, alternatives=2)
    about = replace(engine.checkpoint.about, calibration=((-8.0, 0.2), (-1.0, 0.9)))
    told = Engine(replace(engine.checkpoint, about=about)).infill(None, asked, settings=settings)
    silent = engine.infill(None, asked, settings=settings)
    (choice,), (other,) = told.alternatives, silent.alternatives
    assert [one.probability for one in choice.texts] == [
        probability(about.calibration, one.score) for one in choice.texts
    ]
    assert [one.probability for one in other.texts] == [None] * len(other.texts)
    assert [one.text for one in choice.texts] == [one.text for one in other.texts]


def test_a_text_that_says_one_again_has_no_probability(engine: Any) -> None:
    """The curve is of sentences that were masked: what is rewritten is ranked, and nothing is claimed of it."""
    gap = Gap(max_tokens=6, replaces="There is no effusion. ")
    asked = (Section("findings", (Lock("The heart is normal. "), gap, Lock("No pneumothorax. "))),)
    about = replace(engine.checkpoint.about, calibration=((-8.0, 0.2), (-1.0, 0.9)), rewrites=True)
    told = Engine(replace(engine.checkpoint, about=about)).infill(
        None,
        asked,
        settings=GenerationSettings(steps=2, alternatives=2),
        context=PromptContext("concise", rewrite=True),
    )
    (choice,) = told.alternatives
    assert choice.texts
    assert {one.probability for one in choice.texts} == {None}


class Says:
    """Finds two texts for every gap, of which it thinks the better one right."""

    def infill(self, _images: Any, sections: tuple[Section, ...], **_: Any) -> Filled:
        """The same texts everywhere."""
        texts = (Alternative("The heart is normal in size.", -0.1), Alternative("", -2.0))
        return Filled((), run_record("infill"), alternatives=(Choice(sections[0].name, 0, texts),))


def test_a_curve_is_kept_in_the_checkpoint(tmp_path: Path) -> None:
    """Cases are judged by the grammar, fitted, written into `inlay.json` and read from there."""
    found = [judge(Says(), seed, 16) for seed in range(1_000_000, 1_000_006)]  # type: ignore[arg-type]
    assert [Found.from_json(json.loads(json.dumps(one.to_json()))) for one in found] == found
    cases = scored(found)
    assert [score for score, _ in cases] == [-0.1, -2.0] * 6
    assert not any(right for score, right in cases if score == -2.0)
    (tmp_path / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    (tmp_path / "inlay.json").write_text('{"name": "x"}')
    curve = keep(tmp_path, cases)
    assert read_about(tmp_path, "x").calibration == curve


def test_a_phantom_has_no_say_in_its_own_probability() -> None:
    """Its texts are judged by a curve of others: whether right or wrong, what is said of them is the same."""
    rng = np.random.default_rng(5)
    found = [Found(n, ((float(rng.uniform(-3, 0)), bool(rng.integers(2))),)) for n in range(20)]
    ((score, right),) = found[0].texts
    turned = [replace(found[0], texts=((score, not right),)), *found[1:]]
    said, again = ([p for p, _ in crossed(cases)] for cases in (found, turned))
    # The first fold: phantoms 0, 5, 10 and 15.
    assert said[:4] == again[:4]
    assert said[4:] != again[4:]


def test_the_figures_say_how_reliable_the_probabilities_are() -> None:
    """Texts right in proportion to their scores: a small error, a table with every bin and its interval."""
    rng = np.random.default_rng(4)

    def texts(number: int) -> Found:
        scores = sorted(rng.uniform(-4, 0, 2), reverse=True)
        return Found(number, tuple((float(score), bool(rng.random() < 1 + score / 4)) for score in scores))

    figures = summary([texts(number) for number in range(600)], 1, 16)
    assert (figures["n"], figures["texts"]) == (600, 1200)
    assert figures["calibration_error"] < 0.06
    assert 0.1 < figures["brier"] < 0.2
    assert figures["first_right"] > figures["texts_right"]
    assert sum(one["n"] for one in figures["reliability"]) == 1200
    shown = table(figures)
    assert f"| expected calibration error | {figures['calibration_error']:.4f} |" in shown
    assert shown.count("\n") == 8 + 2 + len(figures["reliability"]) - 1


@pytest.mark.parametrize("said", [[[0, 2]], [[0, 0.5], [1, 0.4]], [[0, 0.5], [0, 0.6]], [1], "high"])
def test_a_curve_that_is_none_is_refused(tmp_path: Path, said: object) -> None:
    """A falling curve, probabilities beyond 1 and what is no list of pairs are named errors."""
    (tmp_path / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    (tmp_path / "inlay.json").write_text(json.dumps({"calibration": said}))
    with pytest.raises(CheckpointProblem, match="calibration"):
        read_about(tmp_path, "x")
