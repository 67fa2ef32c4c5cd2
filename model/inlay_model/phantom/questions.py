"""Questions about a phantom whose answers are known: yes or no, side, size and place, in the shape of medical VQA sets.

Every kind of question has a closed set of answers, so an answer can be judged without a language model. Half of the
yes-or-no questions are true, whatever the prevalence of a finding, so that always saying no is worth a half.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.phantom.findings import SLOTS, Findings

YES_NO = ("yes", "no")
_SIDES = ("right", "left")


@dataclass(frozen=True, slots=True)
class PhantomQuestion:
    """A question, its answer, its kind, and every answer that this kind of question can have."""

    text: str
    answer: str
    kind: str
    choices: tuple[str, ...]


# How each finding is called in a question, and whether a phantom has it.
_PRESENCE: Mapping[str, Callable[[Findings], bool]] = {
    "pulmonary oedema": lambda f: f["oedema"] != "none",
    "a consolidation": lambda f: f["consolidation"] != "none",
    "a lung nodule": lambda f: f["nodule"] != "none",
    "a right pleural effusion": lambda f: f["right effusion"] != "none",
    "a left pleural effusion": lambda f: f["left effusion"] != "none",
    "a pneumothorax": lambda f: f["pneumothorax"] != "none",
    "a rib fracture": lambda f: f["rib fracture"] != "none",
    "scoliosis": lambda f: f["scoliosis"] != "none",
    "a pacemaker": lambda f: f["pacemaker"] != "none",
    "a tracheal tube": lambda f: f["tracheal tube"] != "none",
    "a central line": lambda f: f["central line"] != "none",
    "an enlarged heart": lambda f: f["heart"] != "normal",
}
_ASKED_PRESENCE = ("Is there {}?", "Does the image show {}?", "Can {} be seen?")

_SIDED: Mapping[str, tuple[str, ...]] = {
    "pneumothorax": ("On which side is the pneumothorax?", "Which side is the pneumothorax on?"),
    "rib fracture": ("On which side is the rib fracture?", "Which side is the rib fracture on?"),
    "scoliosis": ("To which side is the scoliosis convex?",),
    "pacemaker": ("On which side is the pacemaker?", "Which side is the pacemaker on?"),
    "central line": ("From which side does the central line enter?",),
}

_SIZED: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "nodule": (
        "nodule size",
        SLOTS["nodule size"][1:],
        ("How large is the nodule?", "What is the size of the nodule?"),
    ),
    "right effusion": ("right effusion", SLOTS["right effusion"][1:], ("How large is the right pleural effusion?",)),
    "left effusion": ("left effusion", SLOTS["left effusion"][1:], ("How large is the left pleural effusion?",)),
    "pneumothorax": ("pneumothorax", ("small", "large"), ("How large is the pneumothorax?",)),
    "oedema": ("oedema", SLOTS["oedema"][1:], ("How severe is the pulmonary oedema?",)),
}

_PLACED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "consolidation": (
        SLOTS["consolidation"][1:],
        ("In which lobe is the consolidation?", "Where is the consolidation?"),
    ),
    "nodule": (SLOTS["nodule"][1:], ("In which zone is the nodule?", "Where is the nodule?")),
    "tracheal tube": (
        SLOTS["tracheal tube"][1:],
        ("What is the position of the tracheal tube?", "Where is the tip of the tracheal tube?"),
    ),
}
_HEART = ("What is the size of the heart?", "How large is the heart?")

KINDS = ("presence", "presence on a side", "side", "size", "place")


def ask(findings: Findings, count: int, rng: np.random.Generator) -> list[PhantomQuestion]:
    """Up to `count` questions about a phantom, about different things, kinds and topics left to `rng`.

    About half of them are to be answered yes or no, as many yes as no. So a phantom without findings, of which nothing
    is true, is asked for the size of its heart alone.
    """
    open_ones = _shuffled(_open(findings, rng), rng)
    closed = _closed(findings, rng)
    chosen: list[PhantomQuestion] = []
    while len(chosen) < count and (open_ones or closed):
        wants_open = rng.random() < 0.5
        pile = open_ones if (wants_open and open_ones) or not closed else closed
        chosen.append(pile.pop())
    return chosen


def _open(findings: Findings, rng: np.random.Generator) -> list[PhantomQuestion]:
    abnormal = findings.abnormal()
    found = [PhantomQuestion(_one(_HEART, rng), findings["heart"], "size", SLOTS["heart"])]
    for slot, asked in _SIDED.items():
        if slot in abnormal:
            side = next(side for side in _SIDES if side in abnormal[slot])
            found.append(PhantomQuestion(_one(asked, rng), side, "side", _SIDES))
    for slot, sizes, asked in _SIZED.values():
        if slot in abnormal:
            size = next(size for size in sizes if size in abnormal[slot])
            found.append(PhantomQuestion(_one(asked, rng), size, "size", sizes))
    for slot, (places, asked) in _PLACED.items():
        if slot in abnormal:
            found.append(PhantomQuestion(_one(asked, rng), abnormal[slot], "place", places))
    return found


def _closed(findings: Findings, rng: np.random.Generator) -> list[PhantomQuestion]:
    """Yes-or-no questions, as many true as false ones; the last one is the next to be asked."""
    asked: dict[bool, list[PhantomQuestion]] = {True: [], False: []}
    for name, holds in _PRESENCE.items():
        text = _one(_ASKED_PRESENCE, rng).format(name)
        asked[holds(findings)].append(PhantomQuestion(text, _word(holds(findings)), "presence", YES_NO))
    for slot in _SIDED:
        # The side of scoliosis is that of its convexity, which this phrasing would leave open.
        if findings[slot] == "none" or slot == "scoliosis":
            continue
        side = _SIDES[int(rng.integers(2))]
        holds_there = side in findings[slot]
        text = f"Is the {slot} on the {side}?"
        asked[holds_there].append(PhantomQuestion(text, _word(holds_there), "presence on a side", YES_NO))
    true, false = (_shuffled(asked[truth], rng) for truth in (True, False))
    # Alternating from a drawn beginning: the first question of a phantom is as often true as false where both exist.
    begins_true = bool(rng.random() < 0.5)
    order: list[PhantomQuestion] = []
    while true and false:
        order += [true.pop(), false.pop()] if begins_true else [false.pop(), true.pop()]
    return order[::-1]


def _word(holds: bool) -> str:  # noqa: FBT001 - the truth is what is said
    return YES_NO[0] if holds else YES_NO[1]


def _one(phrasings: Sequence[str], rng: np.random.Generator) -> str:
    return phrasings[int(rng.integers(len(phrasings)))]


def _shuffled(questions: Sequence[PhantomQuestion], rng: np.random.Generator) -> list[PhantomQuestion]:
    return [questions[int(at)] for at in rng.permutation(len(questions))]
