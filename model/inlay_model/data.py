"""Training examples: reports as canvases, and the ways in which a canvas is corrupted.

Three corruptions are mixed. `plain` replaces tokens anywhere, as the paper does. `infill` replaces whole
sentences and leaves the rest clean, which is what a model sees when a clinician has locked text. `shift` is an
infill whose gap has the wrong length, so that the text after it stands in the wrong place while the target is
the report as it ought to be: from it the model learns to tell whether a gap has the right length, and the search
for the length of a gap can ask it.

Shape suffixes: B batch, L canvas length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inlay_model.canvas import encode_fragment, encode_header
from inlay_model.phantom.anatomy import draw_anatomy
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import STYLES, PhantomReport, write_report
from inlay_model.phantom.remarks import REMARKS
from inlay_model.tokens import Tokenizer, control_tokens

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corruption:
    """Shares of the corruptions (`plain` is the rest) and how they are drawn."""

    infill: float = 0.35
    shift: float = 0.15
    least_noise: float = 0.1
    # Noise levels are drawn with a density rising linearly towards 1: the first steps decide what is stated.
    towards_full: bool = True
    foreign_lock: float = 0.15
    most_shift: int = 14


@dataclass(frozen=True, slots=True)
class TokenReport:
    """A tokenised report: ids up to the end of turn, and where its pieces (headers, sentences) begin and end."""

    ids: IntArray
    spans: tuple[tuple[int, int], ...]
    is_sentence: tuple[bool, ...]


@dataclass(slots=True)
class ReportEncoder:
    """Tokenises reports sentence by sentence and remembers sentences, of which there are few hundred."""

    tokenizer: Tokenizer
    _known: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, report: PhantomReport, insert: Mapping[tuple[str, int], str] | None = None) -> TokenReport:
        """Encode a report; `insert` puts foreign sentences before the n-th sentence of a section."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        kinds: list[bool] = []

        def append(piece: list[int], *, is_sentence: bool) -> None:
            spans.append((len(ids), len(ids) + len(piece)))
            kinds.append(is_sentence)
            ids.extend(piece)

        for index, (name, sentences) in enumerate(report.sections):
            append(encode_header(self.tokenizer, index, name), is_sentence=False)
            for position, sentence in enumerate(sentences):
                if insert and (name, position) in insert:
                    append(self._fragment(insert[name, position]), is_sentence=False)
                append(self._fragment(sentence), is_sentence=True)
        ids.append(control_tokens(self.tokenizer).end_of_turn)
        return TokenReport(np.array(ids, dtype=np.int64), tuple(spans), tuple(kinds))

    def _fragment(self, sentence: str) -> list[int]:
        if sentence not in self._known:
            self._known[sentence] = encode_fragment(self.tokenizer, sentence)
        return self._known[sentence]


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch of phantoms, all in one style.

    `target_BL` is the report, EOS-filled; `canvas_BL` what the model sees once `noise_BL` is replaced by random
    tokens; `anatomy` draws the images; `findings` (B, slots) are the labels of the auxiliary classifier.
    """

    style: str | None
    findings: IntArray
    anatomy: dict[str, npt.NDArray[np.float32]]
    target_BL: IntArray
    canvas_BL: IntArray
    noise_BL: BoolArray


def batches(
    encoder: ReportEncoder, size: int, canvas: int, corruption: Corruption, seed: Sequence[int]
) -> Iterator[Batch]:
    """Endless batches; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    while True:
        yield batch(encoder, size, canvas, corruption, rng)


def batch(
    encoder: ReportEncoder,
    size: int,
    canvas: int,
    corruption: Corruption,
    rng: np.random.Generator,
    findings: IntArray | None = None,
) -> Batch:
    """Draw one batch of `size` phantoms, or of those with these findings (size, slots), with their reports."""
    # One style for a whole batch keeps all prompts of it equally long; one in five names no style.
    named = rng.random() < 0.8
    style = STYLES[rng.integers(len(STYLES))]
    findings = draw_findings(size, rng) if findings is None else findings
    rows = [
        corrupted(encoder, Findings.from_indices(row), style if named else _any_style(rng), canvas, corruption, rng)
        for row in findings
    ]
    target, shown, noise = (np.stack(column) for column in zip(*rows, strict=True))
    return Batch(style if named else None, findings, draw_anatomy(findings, rng), target, shown, noise)


def _any_style(rng: np.random.Generator) -> str:
    return STYLES[rng.integers(len(STYLES))]


def corrupted(
    encoder: ReportEncoder,
    findings: Findings,
    style: str,
    canvas: int,
    corruption: Corruption,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise mask of one phantom, each of shape (canvas,)."""
    report = write_report(findings, style, rng)
    kind = rng.random()
    if kind >= corruption.infill + corruption.shift:
        target = _filled(encoder(report), canvas, encoder)
        return target, target, _plain_noise(len(target), corruption, rng)
    insert = _foreign(report, rng) if rng.random() < corruption.foreign_lock else None
    tokens = encoder(report, insert)
    target = _filled(tokens, canvas, encoder)
    if kind < corruption.shift:
        shown, noise = _shifted(tokens, target, corruption, encoder, rng)
        return target, shown, noise
    return target, target, _gap_noise(tokens, canvas, rng)


def _filled(tokens: TokenReport, canvas: int, encoder: ReportEncoder) -> IntArray:
    eos = control_tokens(encoder.tokenizer).eos
    filled = np.full(canvas, eos, dtype=np.int64)
    # A report with foreign text may be longer than the canvas; what does not fit is cut, as by a smaller page.
    length = min(len(tokens.ids), canvas)
    filled[:length] = tokens.ids[:length]
    return filled


def _foreign(report: PhantomReport, rng: np.random.Generator) -> dict[tuple[str, int], str]:
    name, sentences = report.sections[rng.integers(len(report.sections))]
    remark = REMARKS[rng.integers(len(REMARKS))]
    if rng.random() < 0.2:
        # Text of another script or garbage: the bytes of a small vocabulary.
        remark = "".join(chr(int(code)) for code in rng.integers(0x20, 0x2FF, rng.integers(3, 12)))
    return {(name, int(rng.integers(len(sentences)))): remark}


def _noise_level(corruption: Corruption, rng: np.random.Generator) -> float:
    level = rng.random() ** 0.5 if corruption.towards_full else rng.random()
    return corruption.least_noise + (1 - corruption.least_noise) * float(level)


def _plain_noise(length: int, corruption: Corruption, rng: np.random.Generator) -> BoolArray:
    return rng.random(length) < _noise_level(corruption, rng)


def _gap_noise(tokens: TokenReport, canvas: int, rng: np.random.Generator) -> BoolArray:
    """Noise in one to three sentences, or in all text after one; within a gap some tokens may be right already."""
    noise = np.zeros(canvas, dtype=np.bool_)
    sentences = [span for span, is_sentence in zip(tokens.spans, tokens.is_sentence, strict=True) if is_sentence]
    if rng.random() < 0.2:
        noise[sentences[rng.integers(len(sentences))][0] :] = True
    else:
        chosen = rng.choice(len(sentences), size=min(len(sentences), int(rng.integers(1, 4))), replace=False)
        for index in chosen:
            start, end = sentences[index]
            noise[start:end] = True
    if rng.random() < 0.5:
        noise &= rng.random(canvas) < rng.uniform(0.3, 1.0)
    return noise


def _shifted(
    tokens: TokenReport, target: IntArray, corruption: Corruption, encoder: ReportEncoder, rng: np.random.Generator
) -> tuple[IntArray, BoolArray]:
    """A canvas whose gap is too long or too short, so that what follows stands in the wrong place."""
    canvas = len(target)
    sentences = [span for span, is_sentence in zip(tokens.spans, tokens.is_sentence, strict=True) if is_sentence]
    start, end = sentences[rng.integers(len(sentences))]
    if start >= canvas:
        return target, np.zeros(canvas, dtype=np.bool_)
    shift = int(rng.integers(1, corruption.most_shift + 1)) * (1 if rng.random() < 0.5 else -1)
    length = max(0, end - start + shift)
    eos = control_tokens(encoder.tokenizer).eos
    moved = np.concatenate([target[:start], np.full(length, eos), tokens.ids[end:], np.full(canvas, eos)])[:canvas]
    noise = np.zeros(canvas, dtype=np.bool_)
    noise[start : start + length] = True
    return moved, noise
