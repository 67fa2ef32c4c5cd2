"""The infill suite: which sentence is missing, what each cell of the design is shown, and the figures made of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inlay_model import Engine, Filled, FilledSection, Gap, Lock, Piece, Section
from inlay_model.answer import spliced
from inlay_model.datasets.items import ReportedStudy
from inlay_model.evaluation.infill import (
    MODELS,
    SIDES,
    Case,
    Filling,
    fill,
    load_backends,
    masked,
    phantom_case,
    scored,
    study_case,
)
from inlay_model.evaluation.infill_figures import effects, judged_effects, summary, table
from inlay_model.evaluation.loaded import Placing
from inlay_model.phantom.grammar import read_sentences, split_sentences
from inlay_testkit.tiny_diffusion import save_tiny
from inlay_testkit.tiny_sibling import save_tiny_sibling

BENCHMARKS = Path(__file__).parents[3] / "docs" / "benchmarks"
RUNS = ("table-3-run-1", "table-3-run-2", "table-3-run-3", "table-3")
CASE = Case("c", 1, "The heart is large.", "No effusion.", "The bones are intact.", "Large heart.", None)


class Listener:
    """A backend that remembers what it was asked and says its own sentence into every gap."""

    name = digest = "listener"
    is_demonstration = False
    styles: tuple[str, ...] = ()

    def __init__(self, says: str) -> None:
        self.says = says
        self.drafts: list[dict[str, Any]] = []
        self.infills: list[Sequence[Section]] = []

    def draft(self, images: Any, **said: Any) -> Any:  # noqa: ARG002 (the port names it)
        """The beginning, its sentence, and another one."""
        self.drafts.append(said)
        text = f"{said['begin']} {self.says} And more."
        return Filled((FilledSection("findings", (Piece(text, "fill", 0),)),), run=None)  # type: ignore[arg-type]

    def infill(self, images: Any, sections: Sequence[Section], **_: Any) -> Any:  # noqa: ARG002
        """Its sentence in the gap."""
        self.infills.append(sections)
        return Filled(spliced(sections, [self.says]), run=None)  # type: ignore[arg-type]


# ── the case ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_missing_sentence_has_others_on_both_sides_and_all_are_equally_likely() -> None:
    """First and last sentences are never chosen; with fewer than three there is none to choose."""
    body = ["A.", "B.", "C.", "D.", "E."]
    rng = np.random.default_rng(0)
    chosen = [masked("x", body, "", rng, 0) for _ in range(3000)]
    counts = [sum(case is not None and case.missing == text for case in chosen) for text in body]
    assert counts[0] == counts[-1] == 0
    assert all(count == pytest.approx(1000, abs=100) for count in counts[1:-1])
    assert masked("x", ["A.", "B."], "", rng, 0) is None


def test_a_phantoms_case_is_its_report_and_follows_from_the_seed() -> None:
    """Before, missing and after make the Findings of the phantom."""
    case, again = phantom_case(1_000_000), phantom_case(1_000_000)
    assert case == again
    assert case.truth is not None
    whole = f"{case.before} {case.missing} {case.after}"
    assert read_sentences(split_sentences(whole)).findings() == case.truth


def test_a_studys_case_follows_from_its_id_alone() -> None:
    """Other studies do not change which sentence is missing; a short report has no case."""
    sections = {"findings": "One. Two. Three. Four.", "impression": "Five."}
    one = study_case(ReportedStudy("s1", (Path("x.png"),), sections))
    assert one == study_case(ReportedStudy("s1", (Path("y.png"),), sections))
    assert one is not None
    assert (one.impression, one.truth) == ("Five.", None)
    assert study_case(ReportedStudy("s1", (), {"findings": "One. Two."})) is None
    assert study_case(ReportedStudy("s1", (), {"impression": "One. Two. Three."})) is None


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_sides_see_all_around_and_left_sees_what_is_before(image: np.ndarray) -> None:
    """The gap has no length given; the left cell is one sentence, gone on with from the beginning."""
    model = Listener("No effusion.")
    filling = fill({"diffusion": model}, image, CASE, steps=4)
    (sections,) = model.infills
    assert sections == (
        Section("findings", (Lock(CASE.before), Gap(), Lock(CASE.after))),
        Section("impression", (Lock(CASE.impression),)),
    )
    (draft,) = model.drafts
    assert (draft["begin"], draft["sections"]) == (CASE.before, ("findings", "impression"))
    assert CASE.after not in str(draft)
    assert filling.texts == {("diffusion", "both"): "No effusion.", ("diffusion", "left"): "No effusion."}
    assert filling.f1 == {("diffusion", "both"): 1.0, ("diffusion", "left"): 1.0}
    assert filling.right is None


def test_locked_text_is_not_repeated_in_the_diffusion_models_prompt(tmp_path: Path, image: np.ndarray) -> None:
    """For this comparison even a checkpoint that lists locks in its prompt does not: the prompt is that of a draft."""
    folder = save_tiny(tmp_path, locked_in_prompt=True)
    (backend,) = load_backends(str(folder), None, Placing("cpu")).values()
    sections = (
        Section("findings", (Lock("The lungs are clear."), Gap(max_tokens=2))),
        Section("impression", (Gap(max_tokens=2),)),
    )
    drafted, filled = backend.draft([image]), backend.infill([image], sections)
    assert filled.run.prompt_digest == drafted.run.prompt_digest
    listing = Engine.load(folder, device="cpu").infill([image], sections)
    assert listing.run.prompt_digest != drafted.run.prompt_digest


def test_the_matched_pair_fills_one_case(tmp_path: Path, image: np.ndarray) -> None:
    """All four cells hold text of the two real models."""
    folders = save_tiny(tmp_path / "d"), save_tiny_sibling(tmp_path / "a")
    backends = load_backends(str(folders[0]), str(folders[1]), Placing("cpu"))
    filling = fill(backends, image, CASE, steps=1)
    assert set(filling.texts) == {(m, s) for m in ("diffusion", "autoregressive") for s in ("both", "left")}
    line = filling.to_json()
    assert line["reference"] == "No effusion."
    assert {"diffusion_both", "autoregressive_left", "f1_autoregressive_both"} <= set(line)


# ── the figures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(cells: dict[tuple[str, str], list[float]]) -> list[dict[tuple[str, str], float]]:
    """One row per case."""
    return [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]


def design(gain_one: float, gain_other: float, n: int = 60) -> list[dict[tuple[str, str], float]]:
    """Scores with these gains by the right-hand side, and some noise."""
    rng = np.random.default_rng(5)

    def noisy(mean: float) -> list[float]:
        drawn: list[float] = rng.normal(mean, 0.05, n).tolist()
        return drawn

    return rows_of(
        {
            ("diffusion", "both"): noisy(0.5 + gain_one),
            ("diffusion", "left"): noisy(0.5),
            ("autoregressive", "both"): noisy(0.4 + gain_other),
            ("autoregressive", "left"): noisy(0.4),
        }
    )


def test_the_interaction_is_found_where_it_is_and_not_where_it_is_not() -> None:
    """Gains of 0.2 and 0.05 differ; gains of 0.1 and 0.1 do not."""
    found = effects(design(0.20, 0.05))
    assert found["interaction"]["mean"] == pytest.approx(0.15, abs=0.03)
    assert found["interaction"]["p"] < 1e-6
    assert found["interaction"]["low"] > 0 < found["interaction"]["bootstrap_low"]
    assert found["diffusion"]["gain"]["mean"] == pytest.approx(0.20, abs=0.02)
    same = effects(design(0.10, 0.10))
    assert same["interaction"]["p"] > 0.01
    assert same["interaction"]["low"] < 0 < same["interaction"]["high"]
    for found_one in (found, same):
        gains = [found_one[name]["gain"]["mean"] for name in ("diffusion", "autoregressive")]
        assert found_one["interaction"]["mean"] == pytest.approx(gains[0] - gains[1], abs=1e-5)


def test_contrasts_of_the_models_stand_beside_the_gains() -> None:
    """Per side, diffusion less sibling; p values of the two gains are adjusted for being two."""
    found = effects(design(0.20, 0.05))
    assert found["diffusion_less_autoregressive_left"]["mean"] == pytest.approx(0.10, abs=0.03)
    for name in ("diffusion", "autoregressive"):
        gain = found[name]["gain"]
        assert gain["p"] <= gain["p_holm"] <= 2 * gain["p"] + 1e-12


def test_verdicts_get_exact_tests_and_wilsons_intervals() -> None:
    """Right and wrong are shares, and both sides against left is McNemar's test."""
    both = [1.0] * 18 + [0.0] * 2
    left = [1.0] * 8 + [0.0] * 12
    rows: list[Any] = [
        {c: bool(v) for c, v in row.items()}
        for row in rows_of({("diffusion", "both"): both, ("diffusion", "left"): left})
    ]
    found = judged_effects(rows)["diffusion"]
    assert (found["both"], found["left"]) == (0.9, 0.4)
    assert (found["mcnemar"]["first_only"], found["mcnemar"]["second_only"]) == (10, 0)
    assert found["mcnemar"]["p"] == pytest.approx(2 / 2**10, rel=1e-3)
    assert found["both_95"][0] < 0.9 < found["both_95"][1]


def filling(f1: dict[tuple[str, str], float], right: dict[tuple[str, str], bool] | None) -> Filling:
    """A filling with these scores."""
    return Filling(CASE, dict.fromkeys(f1, "x"), f1, right)


def test_the_table_has_a_row_per_model_and_one_for_the_interaction() -> None:
    """Laid out like the paper's: both sides, left only, gain with its intervals and p; without a sibling it says so."""
    rows = design(0.20, 0.05)
    text = table(summary([filling(row, None) for row in rows]))
    assert text.splitlines()[0].startswith(
        "| token-F1 of the missing sentence, n = 60 | both sides | left only | gain |"
    )
    assert [line.split(" |")[0] for line in text.splitlines()[2:]] == [
        "| diffusion",
        "| autoregressive sibling",
        "| **interaction**",
    ]
    assert all(line.count("|") == 8 for line in text.splitlines())
    alone = [filling({cell: v for cell, v in row.items() if cell[0] == "diffusion"}, None) for row in rows]
    assert "Without --sibling" in table(summary(alone))


def test_judged_figures_need_a_verdict_on_every_case() -> None:
    """Cases without a verdict are not left out in silence: then there are no judged figures."""
    cell = {("diffusion", "both"): 1.0, ("diffusion", "left"): 0.5}
    right = {("diffusion", "both"): True, ("diffusion", "left"): False}
    assert "judged" in summary([filling(cell, right)] * 3)
    assert "judged" not in summary([filling(cell, right), filling(cell, None)])


# ── the runs that are kept ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("run", RUNS)
def test_the_figures_of_a_kept_run_follow_from_its_cases(run: str) -> None:
    """Every case is the phantom's, every score that of its texts, and the figures are those of all cases."""
    fillings = []
    for line in (BENCHMARKS / f"{run}.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        case = phantom_case(int(said["id"].removeprefix("phantom-")))
        found = scored(case, {(model, side): said[f"{model}_{side}"] for model in MODELS for side in SIDES})
        assert found.to_json() == said
        fillings.append(found)
    figures = json.loads((BENCHMARKS / f"{run}.json").read_text(encoding="utf-8"))
    assert figures == {**figures, **summary(fillings)}


def test_the_protocol_lists_every_run_that_is_kept() -> None:
    """Each with the checkpoint and the interaction of its figures; the last one's table is that of its figures."""
    protocol = (BENCHMARKS / "protocol-infill.md").read_text(encoding="utf-8")
    assert {file.stem for file in BENCHMARKS.glob("table-3*.jsonl")} == set(RUNS)
    for run in RUNS:
        figures = json.loads((BENCHMARKS / f"{run}.json").read_text(encoding="utf-8"))
        (row,) = (line for line in protocol.splitlines() if f"({run}.json)" in line)
        assert f"`{figures['diffusion']['digest'][:12]}`" in row
        assert f"[cases]({run}.jsonl)" in row
        for measure in ("token_f1", "judged"):
            found = figures[measure]["interaction"]
            low, high = (f"{found[bound]:+.3f}" for bound in ("low", "high"))
            said = f"{found['mean']:+.3f} ({low} to {high}), p = {found['p']:.3f}"
            assert said.replace("-", "−") in row
    assert table(figures) == (BENCHMARKS / "table-3.md").read_text(encoding="utf-8").rstrip("\n")
