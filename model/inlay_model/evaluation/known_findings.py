"""The offline judge of the phantom task: what a text says is read by the grammar and compared with known findings.

It needs no language model and makes no mistake on a sentence of the grammar. A sentence that is none of the grammar's
states nothing; whether it invents a finding is judged by its words.
"""

import re

from inlay_model.phantom.anatomy import side_of
from inlay_model.phantom.findings import NAMES, SLOTS, Findings
from inlay_model.phantom.grammar import Reading, read_sentences, split_sentences

# What a sentence that is none of the grammar's may still speak of: a word of it, and the slots that the word is about.
_SPOKEN_OF = {
    "consolidation": ("consolidation",),
    "opacity": ("consolidation",),
    "nodule": ("nodule",),
    "lesion": ("nodule",),
    "effusion": ("right effusion", "left effusion"),
    "collection": ("right effusion", "left effusion"),
    "pneumothorax": ("pneumothorax",),
    "oedema": ("oedema",),
    "congestion": ("oedema",),
    "enlarged": ("heart",),
    "cardiomegaly": ("heart",),
    "fracture": ("rib fracture",),
    "scoliosis": ("scoliosis",),
    "scoliotic": ("scoliosis",),
    "pacemaker": ("pacemaker",),
    "tube": ("tracheal tube",),
    "line": ("central line",),
}


def read(text: str) -> Reading:
    """What a text states, by the grammar."""
    return read_sentences(split_sentences(text))


def states_the_same(text: str, reference: str) -> bool:
    """Whether a text states what the reference does, no more, and in sentences of the grammar alone."""
    reading = read(text)
    return reading.stated == read(reference).stated and not reading.unknown


def slots_right(stated: Findings | None, truth: Findings) -> float:
    """Share of slots stated rightly; none of a text that states a slot in two ways."""
    if stated is None:
        return 0.0
    return sum(a == b for a, b in zip(stated.values, truth.values, strict=True)) / len(NAMES)


def inventions(reading: Reading, truth: Findings) -> list[str]:
    """Findings stated that the phantom does not have at all, or not on that side; in garbled sentences too."""
    wrong = [
        name
        for name, value in reading.abnormal()
        if truth[name] == SLOTS[name][0] or side_of(value) != side_of(truth[name])
    ]
    return [*wrong, *(sentence for sentence in reading.unknown if _garbled_invention(sentence, truth))]


def contradicts(reading: Reading, truth: Findings) -> bool:
    """Whether anything is stated that is not so."""
    return any(truth[name] != value for name, value in reading.stated)


def says_the_same(missing: str, written: str, truth: Findings) -> bool:
    """The verdict on a filled gap: it states all that the missing sentence states, and nothing that is not so.

    A longer answer that is also true is right, and a sentence that the grammar does not know must invent nothing.
    """
    wanted, found = read(missing), read(written)
    return wanted.stated <= found.stated and not contradicts(found, truth) and not inventions(found, truth)


def _garbled_invention(sentence: str, truth: Findings) -> bool:
    """Whether a sentence without exact meaning names a finding that is not there, or a side where there is none."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    if words & {"no", "not", "neither", "nor"}:
        return False
    abnormal = truth.abnormal()
    sides = {side_of(name) or side_of(value) for name, value in abnormal.items()}
    absent = any(not any(slot in abnormal for slot in slots) for word, slots in _SPOKEN_OF.items() if word in words)
    return absent or any(side_of(word) not in sides for word in words & {"right", "left"})
