"""What to look at before signing: contradictions inside the text, and between the text and its order.

Plain rules over words, without a model: they find what is commonly overlooked, claim no more than that, and change
nothing. A finding names the place; whether it is an error is for the reader to say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inlay_core.domain.fragment import Origin, Section
from inlay_core.domain.order import Order
from inlay_core.domain.text import ends_sentence, split_sentences


class Severity(StrEnum):
    """`warning` may be an error in the text; `notice` is only worth knowing."""

    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at: characters [start, end) of a fragment, or a section as a whole (no fragment)."""

    code: str
    severity: Severity
    message: str
    section: str
    fragment_id: str | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class _Sentence:
    section: str
    fragment_id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Statement:
    """A finding as one clause states it: which one, on which sides, and whether it is there."""

    finding: str
    sides: frozenset[str]
    present: bool
    sentence: _Sentence
    start: int
    end: int


# Findings whose side and presence reports are about, and the words that they go by. Longer words come first.
FINDINGS: Final[Mapping[str, str]] = {
    "pneumothorax": r"(?:hydro)?pneumothora(?:x|ces)",
    "pleural effusion": r"(?:pleural )?effusions?|h(?:a)?emothorax|hydrothorax",
    "consolidation": r"consolidations?|pneumonia",
    "atelectasis": r"atelecta(?:sis|ses|tic)|collapsed?",
    "nodule": r"nodules?|nodular opacit(?:y|ies)",
    "mass": r"mass(?:es)?",
    "fracture": r"fractures?|fractured",
    "dislocation": r"dislocations?|dislocated|subluxations?",
    "edema": r"(?:o)?edema",
    "pacemaker": r"pacemakers?",
    "hemorrhage": r"h(?:a)?emorrhages?|h(?:a)?ematomas?",
    "hernia": r"hernias?|herniations?",
    "stone": r"stones?|calculi|calculus|(?:nephro|uretero|chole)lithiasis",
    "thrombosis": r"thrombos[ie]s|thrombus|thrombi|embol(?:i|us|ism)",
}
_FINDING: Final = re.compile(
    r"\b(?:" + "|".join(f"(?P<f{n}>{words})" for n, words in enumerate(FINDINGS.values())) + r")\b", re.IGNORECASE
)
_NAMES: Final = tuple(FINDINGS)
_SIDE: Final = re.compile(r"\b(?P<both>bilateral(?:ly)?|both)\b|\b(?P<side>left|right)(?:[- ]sided)?\b", re.IGNORECASE)
_CLAUSE: Final = re.compile(r"[;:.!?]\s+|,?\s+(?:but|however|although|while|whereas)\s+|\n", re.IGNORECASE)
_COMMA: Final = re.compile(r",\s+")
_LIST: Final = re.compile(r"\s*(?:there (?:is|are) )?no\b", re.IGNORECASE)
_VERB: Final = re.compile(r"\b(?:is|are|was|were|has|have|shows?)\b", re.IGNORECASE)
# A negation holds for what follows it in its clause.
_NEGATION: Final = re.compile(
    r"\b(?:no|not|without|neither|nor|negative for|free of|absence of|no evidence of|denies|rule[sd]? out|resolved)\b",
    re.IGNORECASE,
)
_AFTERWARDS: Final = re.compile(
    r"^\W*(?:is|are|was|were|has|have)?\s*(?:been\s+)?(?:not (?:seen|present|identified)|absent|excluded|resolved)\b",
    re.IGNORECASE,
)
# Words that make a statement neither of presence nor of absence.
_DOUBT: Final = re.compile(
    r"\b(?:possible|possibly|may|might|cannot be excluded|question of|suspected?)\b", re.IGNORECASE
)


def check_report(sections: Sequence[Section], order: Order) -> tuple[Check, ...]:
    """Everything to look at, in the order of the report."""
    sentences = [
        _Sentence(section.name, fragment.id, fragment.text)
        for section in sections
        for fragment in section.fragments
        if fragment.origin is not Origin.IMPORTED
    ]
    found = [
        *_empty(sections),
        *_contradictions(sentences),
        *_against_order(sentences, order),
        *_without_unit(sentences),
        *_broken_off(sentences),
    ]
    places = {sentence.fragment_id: number for number, sentence in enumerate(sentences)}
    return tuple(sorted(found, key=lambda check: (places.get(check.fragment_id or "", -1), check.start)))


# ---------------------------------------------------------------------------------------------- sections


def _empty(sections: Sequence[Section]) -> Iterator[Check]:
    texts = {section.name: section.text.strip() for section in sections}
    for name in ("findings", "impression"):
        if not texts.get(name):
            yield Check("empty-section", Severity.WARNING, "The section has no text.", name)


# ---------------------------------------------------------------------------------------------- contradictions


def _statements(sentence: _Sentence) -> Iterator[_Statement]:
    at = 0
    for clause in _clauses(sentence.text):
        start = sentence.text.index(clause, at)
        at = start + len(clause)
        sides = _sides(clause)
        for found in _FINDING.finditer(clause):
            if _DOUBT.search(clause):
                continue
            negated = bool(_NEGATION.search(clause, 0, found.start()) or _AFTERWARDS.match(clause[found.end() :]))
            name = _NAMES[int((found.lastgroup or "f0")[1:])]
            begin, end = start + found.start(), start + found.end()
            yield _Statement(name, sides, not negated, sentence, begin, end)


def _clauses(text: str) -> Iterator[str]:
    """Clauses; a list after one negation ("no effusion, consolidation or mass") stays one clause."""
    for piece in filter(None, _CLAUSE.split(text)):
        yield from (
            [piece] if _LIST.match(piece) and len(_VERB.findall(piece)) < 2 else filter(None, _COMMA.split(piece))
        )


def _sides(text: str) -> frozenset[str]:
    sides: set[str] = set()
    for found in _SIDE.finditer(text):
        sides |= {"left", "right"} if found["both"] else {found["side"].lower()}
    return frozenset(sides)


def _contradictions(sentences: Sequence[_Sentence]) -> Iterator[Check]:
    """Impression against Findings: a finding on another side, or one that is there in one and absent in the other."""
    statements = [statement for sentence in sentences for statement in _statements(sentence)]
    findings = [one for one in statements if one.sentence.section == "findings"]
    for said in (one for one in statements if one.sentence.section == "impression"):
        before = [one for one in findings if one.finding == said.finding]
        if not before:
            continue
        if all(one.present != said.present for one in before if _meet(one.sides, said.sides)) and any(
            _meet(one.sides, said.sides) for one in before
        ):
            words = ("present", "absent") if said.present else ("absent", "present")
            yield _at(
                said,
                "negation",
                f"“{said.finding}” is {words[0]} here and {words[1]} in the findings.",
            )
            continue
        there = frozenset[str]().union(*(one.sides for one in before if one.present))
        if said.present and said.sides and there and not said.sides & there:
            yield _at(
                said,
                "laterality",
                f"“{said.finding}” is {_named(said.sides)} here and {_named(there)} in the findings.",
            )


def _meet(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two statements speak of the same place: without a side both do."""
    return not one or not other or bool(one & other)


def _named(sides: frozenset[str]) -> str:
    return "on both sides" if len(sides) > 1 else next(iter(sides))


def _at(statement: _Statement, code: str, message: str) -> Check:
    sentence = statement.sentence
    place = (sentence.section, sentence.fragment_id, statement.start, statement.end)
    return Check(code, Severity.WARNING, message, *place)


# ---------------------------------------------------------------------------------------------- against the order

# Parts of the body by the words of procedures, and the words of a report that belong to another part.
BODY_PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "chest": (r"chest|thora(?:x|cic)|lung", r"lungs?|pleural?|pneumothorax|heart|cardiac|mediastin\w+|thora\w+|ribs?"),
    "head": (r"head|brain|crani\w+|skull", r"brain|ventric(?:le|les|ular)|intracranial|cerebr\w+|sulci|calvari\w+"),
    "abdomen": (r"abdom\w+|kub", r"bowel|liver|spleen|kidneys?|renal|pancrea\w+|gallbladder|abdom\w+"),
    "knee": (r"knees?", r"knees?|patell\w+|menisc\w+|tibial?|femoral condyle"),
    "hand": (r"hands?|wrists?|fingers?", r"hands?|wrists?|carpal|metacarpal\w*|phalan\w+|radius"),
    "foot": (r"foot|feet|ankles?|toes?", r"foot|feet|ankles?|metatars\w+|tars\w+|calcane\w+|malleol\w+"),
    "hip": (r"hips?|pelvi[sc]", r"hips?|pelvi\w+|acetabul\w+|femoral (?:head|neck)|pubic|sacroiliac"),
    "shoulder": (r"shoulders?|clavicle", r"shoulders?|clavic\w+|humer\w+|scapul\w+|acromi\w+"),
    "breast": (r"mammo\w+|breasts?", r"breasts?|mammogra\w+|bi-?rads"),
}
_MALE: Final = re.compile(r"\b(?:prostat\w+|seminal vesicles?|testic\w+|testes|scrot\w+)\b", re.IGNORECASE)
_FEMALE: Final = re.compile(r"\b(?:uter(?:us|ine)|ovar(?:y|ies|ian)|endometri\w+|cervix|vagin\w+)\b", re.IGNORECASE)


def _against_order(sentences: Sequence[_Sentence], order: Order) -> Iterator[Check]:
    yield from _against_sex(sentences, order.patient.sex)
    if order.procedure.text:
        yield from _against_side(sentences, order.procedure.text)
        yield from _against_part(sentences, order.procedure.text)


def _against_sex(sentences: Sequence[_Sentence], sex: str | None) -> Iterator[Check]:
    other = {"female": _MALE, "male": _FEMALE}.get(sex or "")
    for sentence in sentences if other else ():
        for found in other.finditer(sentence.text) if other else ():
            message = f"“{found.group()}” does not fit the patient's sex in the order ({sex})."
            yield _found(sentence, found, "sex", message)


def _against_side(sentences: Sequence[_Sentence], procedure: str) -> Iterator[Check]:
    """An order for one side, and a text that names only the other one. Trunk and head have both sides."""
    ordered = _sides(procedure)
    part = _part(procedure)
    if len(ordered) != 1 or part in ("chest", "head", "abdomen"):
        return
    told = [(sentence, found) for sentence in sentences for found in _SIDE.finditer(sentence.text)]
    if any(found["both"] or {found["side"].lower()} == ordered for _, found in told):
        return
    for sentence, found in told:
        message = f"The order is for the {_named(ordered)} side."
        yield _found(sentence, found, "order-side", message)


def _against_part(sentences: Sequence[_Sentence], procedure: str) -> Iterator[Check]:
    """A text that speaks of another part of the body and never of the one that was ordered."""
    ordered = _part(procedure)
    if ordered is None:
        return
    whole = " ".join(sentence.text for sentence in sentences)
    if not whole.strip() or _SPOKEN[ordered].search(whole):
        return
    for sentence in sentences:
        for part in BODY_PARTS:
            found = _SPOKEN[part].search(sentence.text)
            if part != ordered and found:
                yield _found(sentence, found, "order-part", f"The order is for another part of the body: {ordered}.")
                break


def _part(procedure: str) -> str | None:
    """The one part of the body that a procedure names; None where there is none or more than one."""
    parts = [part for part, named in _NAMED.items() if named.search(procedure)]
    return parts[0] if len(parts) == 1 else None


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


_NAMED: Final = {part: _words(named) for part, (named, _) in BODY_PARTS.items()}
_SPOKEN: Final = {part: _words(spoken) for part, (_, spoken) in BODY_PARTS.items()}


# ---------------------------------------------------------------------------------------------- measurements

_UNIT: Final = r"(?:mm|cm|m|ml|cc|l|hu|degrees?|°|%|mgy|kg|g|years?|yrs?|months?|weeks?|days?|hours?|h|min(?:utes?)?)"
# A size is announced by a word, or is a product; levels (T12), dates, lists and grades are none.
_SIZE: Final = re.compile(
    r"\b(?:measur(?:es|ing|ed)|diameter(?: of)?|size(?: of)?|thick(?:ness)?(?: of)?|depth(?: of)?|up to|approximately)"
    r"\s+(?:up to |about |approximately |approx\. |of )?(?P<one>\d+(?:[.,]\d+)?)"
    r"|(?P<two>\b\d+(?:[.,]\d+)?\s*[x×]\s*\d+(?:[.,]\d+)?(?:\s*[x×]\s*\d+(?:[.,]\d+)?)?)",
    re.IGNORECASE,
)
_FOLLOWS: Final = re.compile(
    rf"\s*(?:[-–]\s*\d+(?:[.,]\d+)?\s*)?(?:[x×]\s*\d+(?:[.,]\d+)?\s*)*-?\s*{_UNIT}(?![a-z])", re.IGNORECASE
)


def _without_unit(sentences: Sequence[_Sentence]) -> Iterator[Check]:
    for sentence in sentences:
        for found in _SIZE.finditer(sentence.text):
            group = "one" if found["one"] else "two"
            rest = sentence.text[found.end(group) :]
            inner = re.search(rf"\d\s*{_UNIT}\s*[x×]", found.group(), re.IGNORECASE)
            if not _FOLLOWS.match(rest) and not inner:
                start, end = found.span(group)
                place = (sentence.section, sentence.fragment_id, start, end)
                message = f"“{found[group]}” has no unit."
                yield Check("no-unit", Severity.WARNING, message, *place)


# ---------------------------------------------------------------------------------------------- ends


def _broken_off(sentences: Sequence[_Sentence]) -> Iterator[Check]:
    """A last sentence that has no end though the one before it has: in lists and telegrams none has."""
    # A fragment may be several sentences.
    said = [(one, text.strip()) for one in sentences for text in split_sentences(one.text) if text.strip()]
    for name, section in itertools.groupby(said, key=lambda pair: pair[0].section):
        *before, (sentence, last) = section
        if before and ends_sentence(before[-1][1]) and not ends_sentence(last):
            start = sentence.text.rindex(last)
            place = (name, sentence.fragment_id, start, start + len(last))
            yield Check("breaks-off", Severity.WARNING, "The section stops within a sentence.", *place)


def _found(sentence: _Sentence, found: re.Match[str], code: str, message: str) -> Check:
    place = (sentence.section, sentence.fragment_id, *found.span())
    return Check(code, Severity.WARNING, message, *place)
