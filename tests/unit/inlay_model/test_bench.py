import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_model import Engine, Gap, Lock
from inlay_model.evaluation.bench import Timing, main, rounds, summary, transformers_generate, with_one_gap
from inlay_testkit.looks import Looks


def test_one_sentence_of_a_draft_becomes_the_gap(engine: Any, image: np.ndarray) -> None:
    """The infill that is timed has exactly one gap, in the first section, and locks everything else."""
    asked = with_one_gap(engine.draft([image]))
    assert sum(isinstance(item, Gap) for section in asked for item in section.items) == 1
    assert any(isinstance(item, Gap) for item in asked[0].items)
    assert all(isinstance(item, Lock) for item in asked[1].items)


def test_ratios_are_of_pairs() -> None:
    """The ratio is the median of each round's own ratio, not the ratio of the medians, within its interval."""
    found = [
        Timing(2.0, 1.0, 4.0, 1.0, 16, 16, 1),
        Timing(1.0, 4.0, 2.0, 1.0, 16, 16, 1),
        Timing(3.0, 2.0, 3.0, 1.5, 8, 16, 1),
    ]
    figures = summary(found)
    ratio = figures["draft_over_generate"]
    assert ratio["median"] == 1.5
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert figures["draft_over_generate_per_step"]["median"] == 2.0
    assert figures["infill_over_draft"]["median"] == 2.0
    assert figures["infill_seen_over_draft"]["median"] == 0.5


def test_both_sides_are_measured_with_the_same_steps(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints one JSON object; with early stop off both sides take all steps."""
    arguments = ["--model", str(checkpoint_folder), "--rounds", "1", "--steps", "2", "--device", "cpu", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["all_steps"]["draft_steps"] == report["all_steps"]["transformers_generate_steps"] == 2
    assert report["all_steps"]["draft_over_generate"]["median"] > 0


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--rounds", "-1"], ["--steps", "0"], ["--seed", "-1"]])
def test_nothing_is_measured_in_no_rounds(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Medians of nothing would be printed as figures."""
    with pytest.raises(SystemExit) as leaving:
        main(wrong)
    assert leaving.value.code == 2
    assert f"argument {wrong[0]}: " in capsys.readouterr().err


def test_the_help_leads_to_the_other_suite(capsys: pytest.CaptureFixture[str]) -> None:
    """The suite of the 26B shape has options of its own."""
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--suite speed26b --help" in capsys.readouterr().out


def test_each_side_looks_at_the_image_in_every_round(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft, generate and infill pay for their looks also at images of rounds before; the infill on a seen study not.

    With and without early stop the same phantoms are measured.
    """
    engine = Engine.load(checkpoint_folder, device="cpu")
    with Looks() as looks:
        monkeypatch.setattr(engine, "draft", looks.of("draft", engine.draft))
        monkeypatch.setattr(engine, "infill", looks.of("infill", engine.infill))
        generate = looks.of("generate", transformers_generate(engine, checkpoint_folder))
        for early_stop in (True, False):
            rounds(engine, generate, 1, 1, 1, early_stop=early_stop)
    ours = [("draft", 1), ("infill", 0), ("infill", 1)]
    assert looks.found == [*ours, ("generate", 1), ("generate", 1), *ours] * 2
