"""The report of a phantom, and the findings of a report: a grammar that can be read in both directions.

A report is a list of sentences, each of which states one or more slots. Sites differ in style: the order of
organ systems and the phrasing. Within a report the choice of word for a finding (nodule or lesion) is the same
in Findings and Impression, as it is with one author. Because every sentence of the grammar can be listed,
reading a report back needs no heuristics: a sentence is either one of the grammar's, and then its meaning is
known exactly, or it is unknown and reported as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from inlay_model.phantom.findings import SLOTS, Findings

STYLES: tuple[str, ...] = ("standard", "concise", "narrative")

# Where the order is free, the text before a gap leaves open what comes next, and the text after it tells. The concise
# style is strict about both of its ends.
_ORDERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "standard": (
        ("heart", "lungs", "pleura", "bones", "devices"),
        ("lungs", "pleura", "heart", "bones", "devices"),
        ("heart", "lungs", "pleura", "devices", "bones"),
        ("lungs", "pleura", "heart", "devices", "bones"),
    ),
    "concise": (
        ("devices", "heart", "lungs", "pleura", "bones"),
        ("devices", "lungs", "pleura", "heart", "bones"),
    ),
    "narrative": (
        ("lungs", "pleura", "heart", "devices", "bones"),
        ("heart", "lungs", "pleura", "devices", "bones"),
        ("lungs", "pleura", "heart", "bones", "devices"),
        ("heart", "lungs", "pleura", "bones", "devices"),
    ),
}

# One word of each pair is used throughout a report. Both have as many words, so that the choice moves no text.
_TERMS: Mapping[str, tuple[str, ...]] = {
    "patch": ("consolidation", "opacity"),
    "spot": ("nodule", "lesion"),
    "fluid": ("effusion", "collection"),
    "oedema": ("oedema", "congestion"),
}

# What may be said of a group of slots: (style -> phrasings). A phrasing's placeholders are values or terms.
_Phrasings = Mapping[str, tuple[str, ...]]

_STATEMENTS: Mapping[str, _Phrasings] = {
    "heart normal": {
        "standard": ("The heart is normal in size.", "Heart size is within normal limits."),
        "concise": ("Heart normal.",),
        "narrative": ("The cardiac silhouette is not enlarged.", "The cardiac contour is of normal size."),
    },
    "heart": {
        "standard": ("The heart is {heart}.", "Heart size is {heart}."),
        "concise": ("Heart {heart}.",),
        "narrative": ("The cardiac silhouette is {heart}.", "The cardiac contour is {heart}."),
    },
    "lungs clear": {
        "standard": ("The lungs are clear.", "Both lungs are clear."),
        "concise": ("Lungs clear.",),
        "narrative": ("No focal abnormality is seen in either lung.", "Both lungs are well aerated and clear."),
    },
    "oedema": {
        "standard": ("There is {oedema} pulmonary {oedema_term}.", "{Oedema} pulmonary {oedema_term} is present."),
        "concise": ("{Oedema} {oedema_term}.",),
        "narrative": ("The appearances are those of {oedema} pulmonary {oedema_term}.",),
    },
    "consolidation": {
        "standard": ("There is {patch} in the {consolidation}.", "{Patch} is seen in the {consolidation}."),
        "concise": ("{Patch} {consolidation}.",),
        "narrative": ("An area of {patch} is present in the {consolidation}.",),
    },
    "nodule": {
        "standard": ("There is a {size} {spot} in the {nodule}.", "A {size} {spot} is seen in the {nodule}."),
        "concise": ("{Spot} {nodule}, {size}.",),
        "narrative": ("A rounded {spot} of {size} projects over the {nodule}.",),
    },
    "pleura clear": {
        "standard": ("No pleural {fluid} or pneumothorax.", "There is no {fluid} or pneumothorax."),
        "concise": ("Pleura clear.",),
        "narrative": ("Neither pleural {fluid} nor pneumothorax is seen.",),
    },
    "one effusion": {
        "standard": ("There is a {size} {side} pleural {fluid}.", "A {size} {side} pleural {fluid} is present."),
        "concise": ("{Size} {side} {fluid}.",),
        "narrative": ("A {size} pleural {fluid} is present on the {side}.",),
    },
    "both effusions": {
        "standard": ("There is {size} bilateral pleural {fluid}.",),
        "concise": ("{Size} bilateral {fluid}.",),
        "narrative": ("A {size} pleural {fluid} is present on both sides.",),
    },
    "no effusion": {
        "standard": ("No pleural {fluid}.", "There is no {fluid}."),
        "concise": ("No {fluid}.",),
        "narrative": ("No pleural {fluid} is seen.",),
    },
    "pneumothorax": {
        "standard": ("There is a {size} {side} pneumothorax.", "A {size} {side} pneumothorax is present."),
        "concise": ("{Size} {side} pneumothorax.",),
        "narrative": ("A {size} pneumothorax is present on the {side}.",),
    },
    "no pneumothorax": {
        "standard": ("No pneumothorax.", "There is no pneumothorax."),
        "concise": ("No pneumothorax.",),
        "narrative": ("No pneumothorax is seen.",),
    },
    "bones normal": {
        "standard": ("No bony abnormality.", "The bones are intact."),
        "concise": ("Bones intact.",),
        "narrative": ("The bony thorax is intact.",),
    },
    "fracture": {
        "standard": ("There is a {side} rib fracture.", "A {side} rib fracture is seen."),
        "concise": ("{Side} rib fracture.",),
        "narrative": ("A displaced rib fracture is noted on the {side}.",),
    },
    "scoliosis": {
        "standard": ("There is scoliosis convex to the {side}.", "Scoliosis is convex to the {side}."),
        "concise": ("Scoliosis convex {side}.",),
        "narrative": ("The spine is scoliotic with convexity to the {side}.",),
    },
    "no devices": {
        "standard": ("No support devices.", "There are no devices."),
        "concise": ("No devices.",),
        "narrative": ("No lines or tubes are present.",),
    },
    "pacemaker": {
        "standard": ("There is a {side} sided pacemaker.", "A {side} sided pacemaker is in place."),
        "concise": ("Pacemaker {side}.",),
        "narrative": ("A pacemaker is noted over the {side} chest.",),
    },
    "tube": {
        "standard": ("The tracheal tube is {tube}.", "Tracheal tube is {tube}."),
        "concise": ("Tube {tube}.",),
        "narrative": ("A tracheal tube is seen and is {tube}.",),
    },
    "line": {
        "standard": ("There is a {side} central line.", "A {side} central line is in place."),
        "concise": ("{Side} central line.",),
        "narrative": ("A central venous line enters from the {side}.",),
    },
}

_IMPRESSIONS: Mapping[str, _Phrasings] = {
    "normal": {
        "standard": ("No acute abnormality.", "Normal chest radiograph."),
        "concise": ("Normal.",),
        "narrative": ("No acute cardiopulmonary abnormality.",),
    },
    "heart": dict.fromkeys(STYLES, ("{Cardiomegaly} cardiomegaly.",)),
    "oedema": dict.fromkeys(STYLES, ("{Oedema} pulmonary {oedema_term}.",)),
    "consolidation": {
        "standard": ("{Patch} in the {consolidation}.",),
        "concise": ("{Patch} {consolidation}.",),
        "narrative": ("{Patch} of the {consolidation}.",),
    },
    "nodule": {
        "standard": ("{Spot} of {size} in the {nodule}.",),
        "concise": ("{Spot} {nodule}, {size}.",),
        "narrative": ("{Spot} of {size}, {nodule}.",),
    },
    "one effusion": dict.fromkeys(STYLES, ("{Size} {side} pleural {fluid}.",)),
    "both effusions": dict.fromkeys(STYLES, ("{Size} bilateral pleural {fluid}.",)),
    "pneumothorax": dict.fromkeys(STYLES, ("{Size} {side} pneumothorax.",)),
    "fracture": dict.fromkeys(STYLES, ("{Side} rib fracture.",)),
    "tube": dict.fromkeys(STYLES, ("Malpositioned tracheal tube.",)),
}

_HEART = {"mildly enlarged": "mild", "markedly enlarged": "marked"}
_TUBE = {"good position": "in good position", "too low": "too low"}
_WITHOUT_FINDING = {
    "heart normal": ("heart",),
    "lungs clear": ("oedema", "consolidation", "nodule", "nodule size"),
    "pleura clear": ("right effusion", "left effusion", "pneumothorax"),
    "no effusion": ("right effusion", "left effusion"),
    "no pneumothorax": ("pneumothorax",),
    "bones normal": ("rib fracture", "scoliosis"),
    "no devices": ("pacemaker", "tracheal tube", "central line"),
    "normal": tuple(name for name in SLOTS if name not in ("scoliosis", "pacemaker", "tracheal tube", "central line")),
}
_SECTIONS: Mapping[str, Mapping[str, _Phrasings]] = {"findings": _STATEMENTS, "impression": _IMPRESSIONS}


@dataclass(frozen=True, slots=True)
class Statement:
    """A topic of the grammar with the slots that it states, for example `one effusion` with `small` and `right`."""

    topic: str
    stated: tuple[tuple[str, str], ...]
    words: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PhantomReport:
    """A report as sentences: name of each section and its sentences, in order."""

    style: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]

    def text(self, name: str) -> str:
        """The text of one section, sentences joined by one blank."""
        return " ".join(dict(self.sections)[name])


@dataclass(frozen=True, slots=True)
class Reading:
    """What sentences state: every (slot, value) pair, and the sentences that are none of the grammar's."""

    stated: frozenset[tuple[str, str]]
    unknown: tuple[str, ...]

    def findings(self) -> Findings | None:
        """The findings stated, an unmentioned slot being normal; None where a slot is stated in two ways."""
        values: dict[str, str] = {}
        for name, value in self.stated:
            if values.setdefault(name, value) != value:
                return None
        return Findings(tuple(values.get(name, known[0]) for name, known in SLOTS.items()))

    def abnormal(self) -> frozenset[tuple[str, str]]:
        """The pairs whose value is not the normal one."""
        return frozenset((name, value) for name, value in self.stated if value != SLOTS[name][0])


def write_report(findings: Findings, style: str, rng: np.random.Generator) -> PhantomReport:
    """Write one report of `findings` in a site's `style`; phrasing, words and order are left to `rng`.

    It speaks of every organ system, so that what is missing from it is known to be missing.
    """
    orders = _ORDERS[style]
    order = orders[rng.integers(len(orders))]
    terms = {name: choices[rng.integers(len(choices))] for name, choices in _TERMS.items()}
    # One author keeps to one way of phrasing: the variant is chosen once for a report.
    variant = int(rng.integers(2))

    def sentences(section: str, statements: Sequence[Statement]) -> tuple[str, ...]:
        phrasings = _SECTIONS[section]
        return tuple(_phrase(phrasings[s.topic][style], variant, s, terms) for s in statements)

    body = [s for system in order for s in _statements_of(system, findings)]
    return PhantomReport(
        style,
        (("findings", sentences("findings", body)), ("impression", sentences("impression", _conclusions(findings)))),
    )


def reference_report(seed: int, findings: Findings) -> PhantomReport:
    """The report that a phantom of this seed has: its style and words follow from the seed."""
    return write_report(findings, STYLES[seed % len(STYLES)], np.random.default_rng([seed, 1]))


def read_sentences(sentences: Sequence[str]) -> Reading:
    """Read sentences of any section and style back into what they state."""
    known = _every_sentence()
    stated: set[tuple[str, str]] = set()
    for sentence in sentences:
        stated.update(known.get(sentence.strip(), ()))
    return Reading(frozenset(stated), tuple(s for s in sentences if s.strip() not in known))


def other_phrasings(sentence: str) -> list[str]:
    """The other sentences of Findings, of any style, that state exactly what this one states, sorted."""
    stated = _every_sentence().get(sentence.strip())
    if stated is None:
        return []
    same = frozenset(stated)
    known = _sentences(impression=False).items()
    return sorted(text for text, says in known if frozenset(says) == same and text != sentence.strip())


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, without the blanks between them."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]


def corpus() -> list[str]:
    """Every sentence of the grammar, sorted: what a vocabulary has to cover."""
    return sorted(_every_sentence())


def _phrase(phrasings: tuple[str, ...], variant: int, statement: Statement, terms: Mapping[str, str]) -> str:
    words = {
        "patch": terms["patch"],
        "spot": terms["spot"],
        "fluid": terms["fluid"],
        "oedema_term": terms["oedema"],
        **dict(statement.words),
    }
    capitals = {name.capitalize(): word[:1].upper() + word[1:] for name, word in words.items()}
    return phrasings[variant % len(phrasings)].format(**words, **capitals)


def _plain(topic: str) -> Statement:
    return Statement(topic, tuple((name, SLOTS[name][0]) for name in _WITHOUT_FINDING[topic]))


def _heart(value: str) -> Statement:
    return Statement("heart", (("heart", value),), (("heart", value), ("cardiomegaly", _HEART[value])))


def _oedema(value: str) -> Statement:
    return Statement("oedema", (("oedema", value),), (("oedema", value),))


def _consolidation(value: str) -> Statement:
    return Statement("consolidation", (("consolidation", value),), (("consolidation", value),))


def _nodule(place: str, size: str) -> Statement:
    return Statement("nodule", (("nodule", place), ("nodule size", size)), (("nodule", place), ("size", size)))


def _effusion(side: str, size: str) -> Statement:
    return Statement("one effusion", ((f"{side} effusion", size),), (("side", side), ("size", size)))


def _both_effusions(size: str) -> Statement:
    return Statement("both effusions", (("right effusion", size), ("left effusion", size)), (("size", size),))


def _pneumothorax(value: str) -> Statement:
    size, side = value.split()
    return Statement("pneumothorax", (("pneumothorax", value),), (("size", size), ("side", side)))


def _sided(topic: str, slot: str, side: str) -> Statement:
    return Statement(topic, ((slot, side),), (("side", side),))


def _tube(value: str) -> Statement:
    return Statement("tube", (("tracheal tube", value),), (("tube", _TUBE[value]),))


def _lungs(findings: Findings) -> Iterator[Statement]:
    abnormal = findings.abnormal()
    if "oedema" in abnormal:
        yield _oedema(findings["oedema"])
    if "consolidation" in abnormal:
        yield _consolidation(findings["consolidation"])
    if "nodule" in abnormal:
        yield _nodule(findings["nodule"], findings["nodule size"])


def _effusions(findings: Findings) -> Iterator[Statement]:
    right, left = findings["right effusion"], findings["left effusion"]
    if right == left != "none":
        yield _both_effusions(right)
        return
    for side, size in (("right", right), ("left", left)):
        if size != "none":
            yield _effusion(side, size)


def _statements_of(system: str, findings: Findings) -> list[Statement]:
    """What Findings says of one organ system."""
    if system == "heart":
        return [_plain("heart normal") if findings["heart"] == "normal" else _heart(findings["heart"])]
    if system == "lungs":
        return list(_lungs(findings)) or [_plain("lungs clear")]
    if system == "pleura":
        return _pleura(findings)
    if system == "bones":
        return list(_bones(findings)) or [_plain("bones normal")]
    return list(_devices(findings)) or [_plain("no devices")]


def _pleura(findings: Findings) -> list[Statement]:
    effusions = list(_effusions(findings))
    air = findings["pneumothorax"]
    if not effusions and air == "none":
        return [_plain("pleura clear")]
    return [
        *(effusions or [_plain("no effusion")]),
        _plain("no pneumothorax") if air == "none" else _pneumothorax(air),
    ]


def _bones(findings: Findings) -> Iterator[Statement]:
    if (side := findings["rib fracture"]) != "none":
        yield _sided("fracture", "rib fracture", side)
    if (side := findings["scoliosis"]) != "none":
        yield _sided("scoliosis", "scoliosis", side)


def _devices(findings: Findings) -> Iterator[Statement]:
    if (side := findings["pacemaker"]) != "none":
        yield _sided("pacemaker", "pacemaker", side)
    if (place := findings["tracheal tube"]) != "none":
        yield _tube(place)
    if (side := findings["central line"]) != "none":
        yield _sided("line", "central line", side)


def _conclusions(findings: Findings) -> list[Statement]:
    """What Impression says: the findings that matter, or that there are none."""
    stated = []
    if findings["pneumothorax"] != "none":
        stated.append(_pneumothorax(findings["pneumothorax"]))
    if findings["tracheal tube"] == "too low":
        stated.append(_tube("too low"))
    if findings["heart"] != "normal":
        stated.append(_heart(findings["heart"]))
    stated += [*_lungs(findings), *_effusions(findings)]
    if findings["rib fracture"] != "none":
        stated.append(_sided("fracture", "rib fracture", findings["rib fracture"]))
    return stated or [_plain("normal")]


def _every_statement() -> Iterator[Statement]:
    yield from (_plain(topic) for topic in _WITHOUT_FINDING)
    yield from (_heart(value) for value in SLOTS["heart"][1:])
    yield from (_oedema(value) for value in SLOTS["oedema"][1:])
    yield from (_consolidation(value) for value in SLOTS["consolidation"][1:])
    yield from (_nodule(place, size) for place, size in product(SLOTS["nodule"][1:], SLOTS["nodule size"][1:]))
    yield from (_effusion(side, size) for side, size in product(("right", "left"), SLOTS["right effusion"][1:]))
    yield from (_both_effusions(size) for size in SLOTS["right effusion"][1:])
    yield from (_pneumothorax(value) for value in SLOTS["pneumothorax"][1:])
    yield from (_tube(value) for value in SLOTS["tracheal tube"][1:])
    for topic, slot in (
        ("fracture", "rib fracture"),
        ("scoliosis", "scoliosis"),
        ("pacemaker", "pacemaker"),
        ("line", "central line"),
    ):
        yield from (_sided(topic, slot, side) for side in ("right", "left"))


def _every_sentence() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Every sentence of the grammar with what it states."""
    return _sentences(impression=True)


@cache
def _sentences(*, impression: bool) -> Mapping[str, tuple[tuple[str, str], ...]]:
    sections = (_STATEMENTS, _IMPRESSIONS) if impression else (_STATEMENTS,)
    every: dict[str, tuple[tuple[str, str], ...]] = {}
    all_terms = [dict(zip(_TERMS, choice, strict=True)) for choice in product(*_TERMS.values())]
    for statement in _every_statement():
        for phrasings in sections:
            for choices in phrasings.get(statement.topic, {}).values():
                for variant, terms in product(range(len(choices)), all_terms):
                    every[_phrase(choices, variant, statement, terms)] = statement.stated
    return every
