"""How often each of several texts for a gap is right, and the curve that makes probabilities of their scores.

The cases are those of the suite `phantom`: one sentence of a reference report masked. A text is right if it states all
of the sentence's findings and no others.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inlay_model.backend import Backend
from inlay_model.calibration import Curve, fitted
from inlay_model.evaluation.known_findings import says_the_same
from inlay_model.evaluation.phantom import masked_request
from inlay_model.phantom.grammar import STYLES, write_report
from inlay_model.phantom.render import phantom
from inlay_model.request import GenerationSettings

_TEXTS = 3


def judged(engine: Backend, seeds: Sequence[int], steps: int = 16) -> Iterator[list[tuple[float, bool]]]:
    """For each phantom the texts found for its gap, best first: score, and whether it is right."""
    for seed in seeds:
        shown, rng = phantom(seed), np.random.default_rng([seed, 1])
        report = write_report(shown.findings, STYLES[seed % len(STYLES)], rng)
        body = dict(report.sections)["findings"]
        masked = int(rng.integers(len(body)))
        settings = GenerationSettings(steps=steps, seed=seed, alternatives=_TEXTS)
        answer = engine.infill([shown.image], masked_request(report, masked), settings=settings)
        yield [
            (one.score, says_the_same(body[masked], one.text, shown.findings))
            for choice in answer.alternatives
            for one in choice.texts
        ]


def keep(folder: Path, cases: Sequence[tuple[float, bool]]) -> Curve:
    """Fit the curve and write it into the checkpoint's `inlay.json`, whose digest thereby changes."""
    curve = fitted(cases)
    file = folder / "inlay.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    said["calibration"] = curve
    file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return curve
