"""Phantoms as examples of wishes: a gap of which the prompt says what it is to speak of, and a report in another style.

Each is a question at the end of the prompt (`inlay_model.wishes`) with the canvas that is to answer it. In some of them
a gap has the wrong length, as in other examples of corruption: without those the search for a length, which asks the
model, would take one for a gap that the prompt speaks of as it would for one of which nothing is said.

Shapes: L canvas length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import STYLES, PhantomReport, read_sentences, write_report
from inlay_model.training.corruption import (
    BoolArray,
    Corruption,
    IntArray,
    TokenText,
    displacement,
    filled,
    misplaced,
    opened,
    plain_noise,
    room,
)
from inlay_model.wishes import hinted, to_rewrite

Encode = Callable[[PhantomReport], TokenText]
# What a reader would call the part of the body that a slot belongs to.
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "heart": ("heart",),
    "lungs": ("oedema", "consolidation", "nodule", "nodule size"),
    "pleura": ("right effusion", "left effusion", "pneumothorax"),
    "bones": ("rib fracture", "scoliosis"),
    "devices": ("pacemaker", "tracheal tube", "central line"),
}
# A report of which all other sentences stand needs no hint; the fewer there are, the more the hint decides.
_KEPT = (0.2, 1.0)
_BY_SLOT = 0.5
_MOST_GAPS = 2
_LOCKED = 0.5
_MOST_LOCKS = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """What the prompt asks, the text that answers it, what its canvas shows, and where that is noise, each (L,)."""

    question: str
    target: IntArray
    shown: IntArray
    noise: BoolArray


def hint_for(sentence: str, rng: np.random.Generator) -> str:
    """A word for what a sentence of Findings speaks of: one of its slots, or its organ system."""
    names = sorted(name for name, _ in read_sentences([sentence]).stated)
    systems = [system for system, slots in SYSTEMS.items() if not set(slots).isdisjoint(names)]
    words = names if rng.random() < _BY_SLOT else systems
    return words[int(rng.integers(len(words)))]


def with_hints(
    encode: Encode,
    findings: Findings,
    style: str,
    canvas: int,
    eos: int,
    corruption: Corruption,
    rng: np.random.Generator,
) -> Wish:
    """One or two sentences of Findings are gaps that the prompt has hints for; of the others only some stand."""
    report = write_report(findings, style, rng)
    body = dict(report.sections)["findings"]
    gaps = set(rng.choice(len(body), size=min(len(body), int(rng.integers(1, _MOST_GAPS + 1))), replace=False).tolist())
    share = rng.uniform(*_KEPT)
    shown = [at for at in range(len(body)) if at in gaps or rng.random() < share]
    sections = tuple(
        (name, tuple(body[at] for at in shown) if name == "findings" else written) for name, written in report.sections
    )
    text = encode(PhantomReport(style, sections))
    open_spans = [span for span, at in zip(text.sentences, shown, strict=False) if at in gaps]
    question = hinted([hint_for(body[at], rng) for at in shown if at in gaps])
    return Wish(question, *opened(text, open_spans, canvas, corruption, eos, rng))


def rewritten(
    encode: Encode,
    findings: Findings,
    style: str,
    canvas: int,
    eos: int,
    corruption: Corruption,
    rng: np.random.Generator,
) -> Wish:
    """The report of another site in the prompt; the target says the same in this style, in the same terms.

    In half of the examples up to two sentences are locked as they stand there, in the place that this style gives them,
    or, as a gap before them that has the wrong length would put them, in another.
    """
    others = [other for other in STYLES if other != style]
    seed = int(rng.integers(2**32))
    source = write_report(findings, others[int(rng.integers(len(others)))], np.random.default_rng(seed))
    aim = write_report(findings, style, np.random.default_rng(seed))
    body = list(dict(aim.sections)["findings"])
    locked: list[int] = []
    if rng.random() < _LOCKED:
        many = min(len(body), int(rng.integers(1, _MOST_LOCKS + 1)))
        locked = sorted(rng.choice(len(body), size=many, replace=False).tolist())
        for at in locked:
            body[at] = _in_words_of(source, body[at])
    sections = tuple((name, tuple(body) if name == "findings" else written) for name, written in aim.sections)
    text = encode(PhantomReport(style, sections))
    noise = plain_noise(room(text, canvas), corruption, rng)
    # Beside what is locked a request shows the headers too.
    headers = [span for span, is_sentence in zip(text.spans, text.is_sentence, strict=True) if not is_sentence]
    for start, end in [*(text.sentences[at] for at in locked), *(headers if locked else ())]:
        noise[start:end] = False
    question = to_rewrite([(name, source.text(name)) for name, _ in source.sections])
    if locked and rng.random() < corruption.shift:
        which = int(rng.integers(len(locked)))
        begin = text.sentences[locked[which - 1]][1] if which else text.sentences[0][0]
        span = (begin, text.sentences[locked[which]][0])
        return Wish(question, *misplaced(text, noise, span, displacement(corruption, rng), canvas, eos))
    target = filled(text, canvas, eos)
    return Wish(question, target, target, noise[:canvas])


def _in_words_of(source: PhantomReport, sentence: str) -> str:
    stated = read_sentences([sentence]).stated
    same: Sequence[str] = dict(source.sections)["findings"]
    return next((other for other in same if read_sentences([other]).stated == stated), sentence)
