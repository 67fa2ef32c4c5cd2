"""The suite `disputes`: how much locked sentences are doubted, and which threshold tells false ones from true ones."""

import json
from pathlib import Path

import pytest

from inlay_model.__main__ import main
from inlay_model.evaluation.disputes import Doubt, chosen, keep, summary, table
from inlay_model.loading import read_about
from inlay_model.provenance import FETCHED
from inlay_testkit.tiny_diffusion import save_tiny


def doubt(seed: int, false: float | None, true: float) -> Doubt:
    """One phantom's doubts."""
    return Doubt(seed, "side" if false is not None else None, false, true)


def test_the_threshold_that_tells_both_apart_best_is_chosen() -> None:
    """Between the doubts of the true and of the false; phantoms of which nothing false could be said do not count."""
    doubts = [doubt(seed, 0.97 if seed % 4 else None, 0.3 if seed else 0.85) for seed in range(40)]
    figures = summary(doubts, seed=1, steps=16)
    assert (figures["n"], figures["dispute_true_n"], figures["dispute_false_n"]) == (40, 30, 40)
    # Above 0.85 nothing true is disputed, below 0.97 all that is false: the highest of such thresholds.
    assert figures["chosen"] == 0.95
    row = next(row for row in figures["thresholds"] if row["threshold"] == 0.8)
    assert (row["dispute_true_rate"], row["dispute_false_rate"]) == (1.0, 0.025)
    assert "| **0.95** | 1.000 (" in table(figures)


def test_no_threshold_is_chosen_where_what_is_true_is_doubted_as_much() -> None:
    """A model that was not trained to doubt."""
    figures = summary([doubt(seed, 1.0, 1.0) for seed in range(20)], seed=1, steps=16)
    assert figures["chosen"] is None
    assert chosen([]) is None


def test_the_threshold_is_kept_in_the_card(tmp_path: Path) -> None:
    """All else that the checkpoint says of itself stays."""
    folder = save_tiny(tmp_path)
    before = read_about(folder, "tiny")
    keep(folder, 0.8)
    after = read_about(folder, "tiny")
    assert after.dispute_threshold == 0.8
    assert (after.name, after.kind, after.styles) == (before.name, before.kind, before.styles)


def test_the_suite_measures_a_checkpoint_that_states_no_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From end to end on a tiny model, whose doubts are those of chance."""
    folder = save_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"canvas_length": 256}))
    command = ("eval", "--suite", "disputes", "--model", str(folder), "--limit", "2", "--steps", "1", "--json")
    assert main([*command, "--processes", "1", "--write"]) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert (figures["suite"], figures["n"], figures["dispute_false_n"]) == ("disputes", 2, 2)
    assert figures["thresholds"][0]["dispute_false_rate"] == 1.0
    # Written where one fits, and said where none does.
    assert read_about(folder, "tiny").dispute_threshold == figures["chosen"]
    assert ("corruption.doubt" in printed.err) == (figures["chosen"] is None)


def test_a_threshold_that_could_not_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that was fetched stays as it came, and other suites write none."""
    folder = save_tiny(tmp_path)
    (folder / FETCHED).write_text("{}")
    assert main(["eval", "--suite", "disputes", "--write", "--model", str(folder)]) == 2
    assert "Copy it first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "--suite", "phantom", "--write"])
