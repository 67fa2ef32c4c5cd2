"""Reports that say one thing of a phantom wrongly, and true ones in other words: for training and judging disputes.

A false report is the report of a phantom that differs in one slot, so every other sentence of it is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.phantom.anatomy import side_of
from inlay_model.phantom.findings import NAMES, SLOTS, Findings, can_stand_together
from inlay_model.phantom.grammar import PhantomReport, other_phrasings, read_sentences, write_report


@dataclass(frozen=True, slots=True)
class FalseReport:
    """A report of which one sentence of Findings is false.

    `position` counts the sentences of Findings. `kind` is `side`, `degree`, `denied` or `invented`. `true` is the
    report that the same author would have written of what the image shows.
    """

    report: PhantomReport
    true: PhantomReport
    position: int
    kind: str

    @property
    def body(self) -> tuple[str, ...]:
        """The sentences of Findings."""
        return findings_of(self.report)

    @property
    def corrected(self) -> tuple[str, ...]:
        """The true sentences on what the false one speaks of."""
        names = _names(self.body[self.position])
        return tuple(sentence for sentence in findings_of(self.true) if _names(sentence) & names)


def false_report(truth: Findings, style: str, rng: np.random.Generator) -> FalseReport | None:
    """A report of which one sentence contradicts the image; None where no other finding could stand in it."""
    seed = int(rng.integers(2**32))
    for at in rng.permutation(len(NAMES)):
        name = NAMES[int(at)]
        values = [value for value in SLOTS[name] if value != truth[name]]
        for pick in rng.permutation(len(values)):
            altered = _altered(truth, name, values[int(pick)])
            if altered is None:
                continue
            report = write_report(altered, style, np.random.default_rng(seed))
            found = [n for n, sentence in enumerate(findings_of(report)) if _is_false(sentence, truth)]
            # A finding that is merely left out contradicts nothing that stands there.
            if len(found) == 1:
                true = write_report(truth, style, np.random.default_rng(seed))
                return FalseReport(report, true, found[0], _kind(truth[name], altered[name], SLOTS[name][0]))
    return None


def reword_one(sentences: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], int]:
    """The sentences of Findings with one of them in another phrasing, of any style, and its position."""
    for at in rng.permutation(len(sentences)):
        others = other_phrasings(sentences[int(at)])
        if others:
            other = others[int(rng.integers(len(others)))]
            return (*sentences[: int(at)], other, *sentences[int(at) + 1 :]), int(at)
    raise AssertionError("Every sentence of the grammar has another phrasing.")


def findings_of(report: PhantomReport) -> tuple[str, ...]:
    """The sentences of Findings."""
    return dict(report.sections)["findings"]


def _names(sentence: str) -> frozenset[str]:
    return frozenset(name for name, _ in read_sentences([sentence]).stated)


def _altered(truth: Findings, name: str, value: str) -> Findings | None:
    """The findings with one slot changed, a nodule with its size; None where the image could not show them."""
    values = dict(zip(NAMES, truth.values, strict=True)) | {name: value}
    if name == "nodule":
        is_new = truth["nodule"] == "none"
        values["nodule size"] = "none" if value == "none" else ("20 mm" if is_new else truth["nodule size"])
    altered = Findings(tuple(values[slot] for slot in NAMES))
    return altered if can_stand_together(altered) else None


def _is_false(sentence: str, truth: Findings) -> bool:
    return any(truth[name] != value for name, value in read_sentences([sentence]).stated)


def _kind(true: str, false: str, normal: str) -> str:
    if false == normal:
        return "denied"
    if true == normal:
        return "invented"
    # A place on the same side is a matter of degree, like a size.
    return "side" if side_of(true) != side_of(false) else "degree"
