"""How often each of several texts for a gap is right, and the curve that makes probabilities of their scores.

The cases are those of the suite `phantom`: one sentence of a reference report masked. A text is right if it states all
of the sentence's findings and no others. How far a curve can be trusted is measured on phantoms that it was not fitted
on: each fifth of them is judged by the curve of the other four.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inlay_model.backend import Backend
from inlay_model.calibration import Bin, Curve, expected_error, fitted, probability, reliability
from inlay_model.errors import BadRequest
from inlay_model.evaluation.card import check_writable, state
from inlay_model.evaluation.known_findings import says_the_same
from inlay_model.evaluation.loaded import Placing, diffusion
from inlay_model.evaluation.phantom import masked_request
from inlay_model.evaluation.statistics import wilson
from inlay_model.phantom.grammar import STYLES, write_report
from inlay_model.phantom.render import phantom
from inlay_model.request import GenerationSettings

_TEXTS = 3
_FOLDS = 5
# A curve of fewer phantoms says little: at a hundred, a share of 0.8 is known to within 0.08.
FEWEST_TO_KEEP = 100


@dataclass(frozen=True, slots=True)
class Found:
    """The texts found for the gap of one phantom, best first: score, and whether it is right."""

    seed: int
    texts: tuple[tuple[float, bool], ...]

    def to_json(self) -> dict[str, Any]:
        """The case as JSON has it."""
        return {"seed": self.seed, "texts": [list(text) for text in self.texts]}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Found":
        """The case that `to_json` gave."""
        return cls(int(said["seed"]), tuple((float(score), bool(right)) for score, right in said["texts"]))


def judged(model: str, steps: int, placing: Placing, seeds: Sequence[int]) -> Iterator[Found]:
    """The texts for the gaps of these phantoms, in order, with a checkpoint as the command line names it."""
    engine = diffusion(model, placing)
    for seed in seeds:
        yield judge(engine, seed, steps)


def judge(engine: Backend, seed: int, steps: int) -> Found:
    """Fill the gap of one phantom in several ways."""
    shown, rng = phantom(seed), np.random.default_rng([seed, 1])
    report = write_report(shown.findings, STYLES[seed % len(STYLES)], rng)
    body = dict(report.sections)["findings"]
    masked = int(rng.integers(len(body)))
    settings = GenerationSettings(steps=steps, seed=seed, alternatives=_TEXTS)
    answer = engine.infill([shown.image], masked_request(report, masked), settings=settings)
    return Found(
        seed,
        tuple(
            (one.score, says_the_same(body[masked], one.text, shown.findings))
            for choice in answer.alternatives
            for one in choice.texts
        ),
    )


def scored(found: Sequence[Found]) -> list[tuple[float, bool]]:
    """All texts of all phantoms."""
    return [text for one in found for text in one.texts]


def crossed(found: Sequence[Found]) -> list[tuple[float, bool]]:
    """Every text with the probability that a curve of other phantoms gives it, and whether it is right."""
    said: list[tuple[float, bool]] = []
    for fold in range(_FOLDS):
        curve = fitted(scored([one for at, one in enumerate(found) if at % _FOLDS != fold]))
        if curve:
            said += [(probability(curve, score), right) for score, right in scored(found[fold::_FOLDS])]
    return said


def summary(found: Sequence[Found], seed: int, steps: int) -> dict[str, Any]:
    """Shares of phantoms, how reliable the probabilities of other phantoms' curves are, and the curve of them all."""
    said = crossed(found)
    bins = reliability(said)
    texts = scored(found)
    return {
        "n": len(found),
        "seed": seed,
        "steps": steps,
        "texts": len(texts),
        "texts_right": _share([right for _, right in texts]),
        "first_right": _share([bool(one.texts) and one.texts[0][1] for one in found]),
        "any_right": _share([any(right for _, right in one.texts) for one in found]),
        "calibration_error": round(expected_error(bins), 4),
        "brier": round(sum((p - right) ** 2 for p, right in said) / len(said), 4) if said else None,
        "reliability": [{"n": one.n, "said": round(one.said, 4), "right": round(one.right, 4)} for one in bins],
        "curve": [[round(score, 4), round(p, 4)] for score, p in fitted(texts)],
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, and the reliability of the probabilities as another one."""
    rows = {
        "phantoms whose first text is right": figures["first_right"],
        "phantoms with a right text among those found": figures["any_right"],
        "texts that are right": figures["texts_right"],
        "expected calibration error": figures["calibration_error"],
        "Brier score": figures["brier"],
    }
    about = f"{figures['n']} phantoms, seed {figures['seed']}, {figures['steps']} steps, {figures['texts']} texts"
    lines = [f"| {about} | value |", "|---|---|"]
    lines += [f"| {title} | {'–' if value is None else f'{value:.4f}'} |" for title, value in rows.items()]
    lines += ["", "| said (mean) | right | 95 % | texts |", "|---|---|---|---|"]
    for one in figures["reliability"]:
        low, high = wilson(one["right"], one["n"])
        lines.append(f"| {one['said']:.3f} | {one['right']:.3f} | {low:.3f} to {high:.3f} | {one['n']} |")
    return "\n".join(lines)


def bins_of(figures: Mapping[str, Any]) -> list[Bin]:
    """The bins of a summary."""
    return [Bin(one["n"], one["said"], one["right"]) for one in figures["reliability"]]


def check_kept(folder: Path, cases: int) -> None:
    """Raise `BadRequest`, before the work, where a curve could not be written into this checkpoint after it."""
    check_writable(folder)
    if cases < FEWEST_TO_KEEP:
        raise BadRequest(f"A curve needs at least {FEWEST_TO_KEEP} phantoms; --limit says {cases}.")


def keep(folder: Path, cases: Sequence[tuple[float, bool]]) -> Curve:
    """Fit the curve and write it into the checkpoint's `inlay.json`, whose digest thereby changes."""
    curve = fitted(cases)
    state(folder, "calibration", curve)
    return curve


def _share(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
