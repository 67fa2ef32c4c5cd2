"""Clean text of which one sentence may be false: from it a model learns to doubt what stands written.

The target of a false sentence is the true one where it has as many tokens (the other side, another degree), and the pad
token throughout where it has not, for then nothing of it can stand. The target of all else is itself, in whatever
words it is said. What the model makes of a written word is then its probability in one pass over the text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inlay_model.phantom.contradiction import FalseReport, false_report, findings_of, reword_one
from inlay_model.phantom.findings import Findings
from inlay_model.phantom.grammar import PhantomReport, write_report
from inlay_model.training.corruption import BoolArray, IntArray, TokenText, filled

Encode = Callable[[PhantomReport], TokenText]

_FALSE, _REWORDED, _OPEN_IMPRESSION, _GAP = 0.6, 0.5, 0.7, 0.3


def doubtful(
    encode: Encode, findings: Findings, style: str, canvas: int, special: tuple[int, int], rng: np.random.Generator
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise mask of one phantom, each of shape (canvas,); `special` are the ids of EOS and pad."""
    eos, pad = special
    false = false_report(findings, style, rng) if rng.random() < _FALSE else None
    true = false.true if false else write_report(findings, style, rng)
    body = false.body if false else findings_of(true)
    if rng.random() < _REWORDED:
        body = _other_words(body, false, rng)
    text = encode(_report(true, body))
    shown = filled(text, canvas, eos)
    target = shown.copy()
    spans = text.sentences
    if false:
        start, end = spans[false.position]
        target[start:end] = _instead(encode, false, end - start, pad)[: max(0, canvas - start)]
    return target, shown, _noise(spans, len(body), false.position if false else None, canvas, rng)


def _other_words(body: tuple[str, ...], false: FalseReport | None, rng: np.random.Generator) -> tuple[str, ...]:
    """One sentence in another phrasing; the false one keeps its words, which its target is compared with."""
    others, at = reword_one(body, rng)
    return body if false and at == false.position else others


def _report(true: PhantomReport, body: tuple[str, ...]) -> PhantomReport:
    """The true report with other Findings: the Impression betrays nothing false."""
    sections = tuple((name, body if name == "findings" else sentences) for name, sentences in true.sections)
    return PhantomReport(true.style, sections)


def _instead(encode: Encode, false: FalseReport, length: int, pad: int) -> IntArray:
    """What ought to stand in the place of the false sentence."""
    text = encode(false.true)
    written = findings_of(false.true)
    for sentence in false.corrected:
        start, end = text.sentences[written.index(sentence)]
        if end - start == length:
            return text.ids[start:end]
    return np.full(length, pad, dtype=np.int64)


def _noise(
    spans: list[tuple[int, int]], findings: int, false: int | None, canvas: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """The Impression as a gap mostly, and sometimes a sentence of Findings too, but never the false one."""
    noise = np.zeros(canvas, dtype=np.bool_)
    if rng.random() < _OPEN_IMPRESSION:
        for start, end in spans[findings:]:
            noise[start:end] = True
    if rng.random() < _GAP:
        start, end = spans[int(rng.choice([n for n in range(findings) if n != false]))]
        noise[start:end] = True
    return noise
