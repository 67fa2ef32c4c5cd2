"""Locks that contradict the image, and locks that say the truth in other words: which of them the model disputes.

Both cases are one request: a complete Findings section, locked sentence by sentence, of which exactly one is under
test, and an open Impression, so that nothing but the image can tell which sentence is wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.phantom.contradiction import false_report, findings_of, reword_one
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import PhantomReport
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


def _locked(body: Sequence[str]) -> tuple[Section, ...]:
    return Section("findings", tuple(Lock(sentence) for sentence in body)), Section("impression", (Gap(),))


def swapped_side(sentence: str) -> str:
    """The sentence with every right a left and every left a right."""
    swap = {"right": "left", "left": "right", "Right": "Left", "Left": "Right"}
    return re.sub(r"\b(right|left)\b", lambda found: swap[found[0]], sentence, flags=re.IGNORECASE)
