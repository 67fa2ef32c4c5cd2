"""Locks that contradict the image, and locks that say the truth in other words: which of them the model disputes.

Both cases are one request: a complete Findings section, locked sentence by sentence, of which exactly one is under
test, and an open Impression, so that nothing but the image can tell which sentence is wrong. The suite `disputes` asks
how much the model doubts each, and finds the threshold that tells one from the other.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inlay_model.backend import Backend
from inlay_model.evaluation.card import state
from inlay_model.evaluation.loaded import Placing, diffusion
from inlay_model.evaluation.statistics import wilson
from inlay_model.phantom.contradiction import false_report, findings_of, reword_one
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import PhantomReport, reference_report
from inlay_model.phantom.render import Phantom, phantom
from inlay_model.request import Filled, Gap, GenerationSettings, Lock, Section

# What may be disputed of what is true (docs/model-card.md).
_MOST_FALSE = 0.05
_THRESHOLDS = (0.01, 0.02, 0.05, *(round(0.1 * n, 1) for n in range(1, 10)), 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


@dataclass(frozen=True, slots=True)
class Trial:
    """A request with one sentence under test, and what is the matter with it.

    `kind` is `side`, `degree`, `denied` or `invented` for a lock that contradicts the image, `reworded` for one that
    does not. `item` counts the items of the first section.
    """

    sections: tuple[Section, ...]
    item: int
    kind: str


def contradicting(truth: Findings, style: str, rng: np.random.Generator) -> Trial | None:
    """A report of which one sentence contradicts the image; None where no other finding could stand in it."""
    false = false_report(truth, style, rng)
    return Trial(_locked(false.body), false.position, false.kind) if false else None


def reworded(report: PhantomReport, rng: np.random.Generator) -> Trial:
    """A true report of which one sentence is said in another phrasing, of any style."""
    body, position = reword_one(findings_of(report), rng)
    return Trial(_locked(body), position, "reworded")


def is_disputed(answer: Filled, trial: Trial) -> bool | None:
    """Whether the model disputes any word of the sentence under test; None where the engine reports no disputes."""
    disputes = getattr(answer, "disputes", None)
    if disputes is None:
        return None
    name = trial.sections[0].name
    return any(dispute.section == name and dispute.item == trial.item for dispute in disputes)


@dataclass(frozen=True, slots=True)
class Doubt:
    """How much the model doubts the sentence under test of one phantom: the largest 1 − p of its words.

    `false` is that of a lock that contradicts the image in the way of `kind` (None: none could), `true` that of a true
    one in other words.
    """

    seed: int
    kind: str | None
    false: float | None
    true: float


def trials(shown: Phantom, report: PhantomReport) -> tuple[Trial | None, Trial]:
    """The two requests of a phantom, always the same ones: with a false lock, and with a true one in other words."""
    # A generator of its own, so that the other verdicts on a phantom do not depend on whether this was tried.
    rng = np.random.default_rng([shown.seed, 4])
    return contradicting(shown.findings, report.style, rng), reworded(report, rng)


def doubted(model: str, steps: int, placing: Placing, seeds: Sequence[int]) -> Iterator[Doubt]:
    """How much is doubted with the phantoms of these seeds, in order."""
    # With a threshold of none, all words of which the model is not certain are disputed.
    engine = diffusion(model, placing, dispute_threshold=0.0)
    for seed in seeds:
        shown = phantom(seed)
        report = reference_report(seed, shown.findings)
        settings = GenerationSettings(steps=steps, seed=seed)
        false, true = trials(shown, report)
        yield Doubt(
            seed,
            false.kind if false else None,
            _doubt(engine, shown, false, settings) if false else None,
            _doubt(engine, shown, true, settings),
        )


def _doubt(engine: Backend, shown: Phantom, trial: Trial, settings: GenerationSettings) -> float:
    answer = engine.infill([shown.image], trial.sections, settings=settings)
    name = trial.sections[0].name
    found = [one for one in answer.disputes or () if (one.section, one.item) == (name, trial.item)]
    return max((1 - one.probability for one in found), default=0.0)


def summary(doubts: Sequence[Doubt], seed: int, steps: int) -> dict[str, Any]:
    """At every threshold the share of false and of true locks that it disputes, and the threshold to choose."""
    false = [doubt.false for doubt in doubts if doubt.false is not None]
    true = [doubt.true for doubt in doubts]
    rows = [
        {
            "threshold": threshold,
            "dispute_true_rate": round(sum(one > threshold for one in false) / max(1, len(false)), 4),
            "dispute_false_rate": round(sum(one > threshold for one in true) / max(1, len(true)), 4),
        }
        for threshold in _THRESHOLDS
    ]
    return {
        "n": len(doubts),
        "seed": seed,
        "steps": steps,
        "dispute_true_n": len(false),
        "dispute_false_n": len(true),
        "thresholds": rows,
        "chosen": chosen(rows),
    }


def chosen(rows: Sequence[dict[str, float]]) -> float | None:
    """The threshold that tells both apart best and disputes little enough of what is true; of equals the highest."""
    fit = [row for row in rows if row["dispute_false_rate"] <= _MOST_FALSE]
    apart = [(row["dispute_true_rate"] - row["dispute_false_rate"], row["threshold"]) for row in fit]
    return max(apart)[1] if apart else None


def table(figures: dict[str, Any]) -> str:
    """The figures of `summary` as Markdown; the line of the chosen threshold is bold."""
    n_false, n_true = figures["dispute_true_n"], figures["dispute_false_n"]
    lines = [
        f"| disputed where 1 − p is above | false locks (n = {n_false}) | true ones in other words (n = {n_true}) |",
        "|---|---|---|",
    ]
    for row in figures["thresholds"]:
        mark = "**" if row["threshold"] == figures["chosen"] else ""
        cells = [_with_interval(row["dispute_true_rate"], n_false), _with_interval(row["dispute_false_rate"], n_true)]
        lines.append(f"| {mark}{row['threshold']}{mark} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _with_interval(share: float, n: int) -> str:
    if not n:
        return "—"
    low, high = wilson(share, n)
    return f"{share:.3f} ({low:.3f} to {high:.3f})"


def keep(folder: Path, threshold: float) -> None:
    """Write the threshold into the checkpoint's `inlay.json`, whose digest thereby changes."""
    state(folder, "dispute_threshold", threshold)


def _locked(body: Sequence[str]) -> tuple[Section, ...]:
    return Section("findings", tuple(Lock(sentence) for sentence in body)), Section("impression", (Gap(),))


def swapped_side(sentence: str) -> str:
    """The sentence with every right a left and every left a right."""
    swap = {"right": "left", "left": "right", "Right": "Left", "Left": "Right"}
    return re.sub(r"\b(right|left)\b", lambda found: swap[found[0]], sentence, flags=re.IGNORECASE)
