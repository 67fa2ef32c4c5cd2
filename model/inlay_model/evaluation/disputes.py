"""Locks that contradict the image, and locks that say the truth in other words: which of them the model disputes.

Both cases are one request: a complete Findings section, locked sentence by sentence, of which exactly one is under
test, and an open Impression, so that nothing but the image can tell which sentence is wrong. The false section is the
report of a phantom that differs in one slot, so every other sentence in it is true.
"""

import re
from dataclasses import dataclass

import numpy as np

from inlay_model.phantom.anatomy import side_of
from inlay_model.phantom.findings import NAMES, SLOTS, Findings, can_stand_together
from inlay_model.phantom.grammar import PhantomReport, other_phrasings, read_sentences, write_report
from inlay_model.request import Filled, Gap, Lock, Section


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
    seed = int(rng.integers(2**32))
    for at in rng.permutation(len(NAMES)):
        name = NAMES[int(at)]
        values = [value for value in SLOTS[name] if value != truth[name]]
        for pick in rng.permutation(len(values)):
            altered = _altered(truth, name, values[int(pick)])
            if altered is None:
                continue
            report = write_report(altered, style, np.random.default_rng(seed))
            found = [n for n, sentence in enumerate(_body(report)) if _is_false(sentence, truth)]
            # A finding that is merely left out contradicts nothing that stands there.
            if len(found) == 1:
                return Trial(_locked(_body(report)), found[0], _kind(truth[name], altered[name], SLOTS[name][0]))
    return None


def reworded(report: PhantomReport, rng: np.random.Generator) -> Trial:
    """A true report of which one sentence is said in another phrasing, of any style."""
    body = list(_body(report))
    for at in rng.permutation(len(body)):
        others = other_phrasings(body[int(at)])
        if others:
            body[int(at)] = others[int(rng.integers(len(others)))]
            return Trial(_locked(tuple(body)), int(at), "reworded")
    raise AssertionError("Every sentence of the grammar has another phrasing.")


def is_disputed(answer: Filled, trial: Trial) -> bool | None:
    """Whether the model disputes any word of the sentence under test; None where the engine reports no disputes."""
    disputes = getattr(answer, "disputes", None)
    if disputes is None:
        return None
    name = trial.sections[0].name
    return any(dispute.section == name and dispute.item == trial.item for dispute in disputes)


def _body(report: PhantomReport) -> tuple[str, ...]:
    return dict(report.sections)["findings"]


def _locked(body: tuple[str, ...]) -> tuple[Section, ...]:
    return Section("findings", tuple(Lock(sentence) for sentence in body)), Section("impression", (Gap(),))


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


def swapped_side(sentence: str) -> str:
    """The sentence with every right a left and every left a right."""
    swap = {"right": "left", "left": "right", "Right": "Left", "Left": "Right"}
    return re.sub(r"\b(right|left)\b", lambda found: swap[found[0]], sentence, flags=re.IGNORECASE)
