"""The ways in which a canvas is corrupted before the model is asked what ought to stand there.

`plain` replaces tokens anywhere, as the paper does. `infill` replaces whole sentences and leaves the rest clean, which
is what a model sees when a clinician has locked text. `shift` is an infill whose gap has the wrong length, so that the
text after it stands in the wrong place while the target is the report as it ought to be: from it the model learns to
tell whether a gap has the right length, and the search for the length of a gap can ask it. `doubt` shows clean text of
which one sentence may contradict the image (`doubts.py`). `hints` and `rewriting` are examples whose prompt wishes
something (`wishes.py`), `text_alone` examples whose prompt has no image and whose text decides what is missing;
`shift` is the share of all these too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corruption:
    """Shares of the corruptions (`plain` is the rest) and how they are drawn.

    `hints` and `rewriting` are shares of whole batches, so that the prompts of a batch are about equally long, and so
    is `text_alone`: a batch has images or none.
    `foreign_lock` is the share of phantoms' gaps with a sentence among the locked text that no phantom report has,
    `sparse` of those around a part of Findings, as where a clinician has written no more: Impression open behind a few
    sentences, or all of the report but one or two.
    """

    infill: float = 0.35
    shift: float = 0.15
    doubt: float = 0.0
    hints: float = 0.0
    rewriting: float = 0.0
    text_alone: float = 0.0
    least_noise: float = 0.1
    # Noise levels are drawn with a density rising linearly towards 1: the first steps decide what is stated.
    towards_full: bool = True
    foreign_lock: float = 0.15
    sparse: float = 0.0
    most_shift: int = 14

    @property
    def whole_batches(self) -> bool:
        """Whether some whole batches have prompts of their own: with a wish at the end, or without an image."""
        return self.hints > 0 or self.rewriting > 0 or self.text_alone > 0


@dataclass(frozen=True, slots=True)
class TokenText:
    """A tokenised text: ids up to the end of turn, and where its pieces (headers, sentences) begin and end."""

    ids: IntArray
    spans: tuple[tuple[int, int], ...]
    is_sentence: tuple[bool, ...]

    @property
    def sentences(self) -> list[tuple[int, int]]:
        """Begin and end of every sentence."""
        return [span for span, is_sentence in zip(self.spans, self.is_sentence, strict=True) if is_sentence]


def filled(text: TokenText, canvas: int, eos: int) -> IntArray:
    """The text on a canvas of this length, EOS after it. A longer text is cut, as by a smaller page."""
    ids = np.full(canvas, eos, dtype=np.int64)
    length = min(len(text.ids), canvas)
    ids[:length] = text.ids[:length]
    return ids


def noise_level(corruption: Corruption, rng: np.random.Generator) -> float:
    """The share of tokens that noise replaces in one example."""
    level = rng.random() ** 0.5 if corruption.towards_full else rng.random()
    return corruption.least_noise + (1 - corruption.least_noise) * float(level)


def plain_noise(length: int, corruption: Corruption, rng: np.random.Generator) -> BoolArray:
    """Noise anywhere on the canvas."""
    return rng.random(length) < noise_level(corruption, rng)


def gap_noise(text: TokenText, canvas: int, rng: np.random.Generator) -> BoolArray:
    """Noise in one to three sentences, or in all text after one; within a gap some tokens may be right already."""
    noise = np.zeros(canvas, dtype=np.bool_)
    sentences = text.sentences
    if rng.random() < 0.2:
        noise[sentences[rng.integers(len(sentences))][0] :] = True
    else:
        chosen = rng.choice(len(sentences), size=min(len(sentences), int(rng.integers(1, 4))), replace=False)
        for index in chosen:
            start, end = sentences[index]
            noise[start:end] = True
    return partly_right(noise, rng)


def partly_right(noise: BoolArray, rng: np.random.Generator) -> BoolArray:
    """The noise, in half of the examples with gaps in it: tokens that are right already, as after a first step."""
    return noise & (rng.random(len(noise)) < rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else noise


def displacement(corruption: Corruption, rng: np.random.Generator) -> int:
    """By how many tokens a gap is too long, or too short where it is negative."""
    return int(rng.integers(1, corruption.most_shift + 1)) * (1 if rng.random() < 0.5 else -1)


def displaced(values: npt.NDArray[T], start: int, end: int, shift: int, fill: T | int) -> npt.NDArray[T]:
    """The values with `fill` from `start` to `end`, there being `shift` more of them; what follows moves along."""
    length = max(0, end - start + shift)
    return np.concatenate([values[:start], np.full(length, fill, values.dtype), values[end:]])


def room(text: TokenText, canvas: int) -> int:
    """A length that still reaches to the end of the canvas when all of the text's tokens are taken out before it."""
    return len(text.ids) + canvas


def misplaced(
    text: TokenText, noise: BoolArray, span: tuple[int, int], shift: int, canvas: int, eos: int
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise where the gap of this span is longer by `shift` than it ought to be.

    `noise` reaches beyond the canvas (`room`).
    """
    whole = filled(text, len(noise), eos)
    shown, open_ = displaced(whole, *span, shift, eos), displaced(noise, *span, shift, True)
    return whole[:canvas], shown[:canvas], open_[:canvas]


def shifted(
    text: TokenText, canvas: int, corruption: Corruption, eos: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise where a gap is too long or too short, so that what follows stands in the wrong place."""
    sentences = text.sentences
    span = sentences[rng.integers(len(sentences))]
    if span[0] >= canvas:
        target = filled(text, canvas, eos)
        return target, target, np.zeros(canvas, dtype=np.bool_)
    noise = np.zeros(room(text, canvas), dtype=np.bool_)
    return misplaced(text, noise, span, displacement(corruption, rng), canvas, eos)


def opened(
    text: TokenText,
    spans: Sequence[tuple[int, int]],
    canvas: int,
    corruption: Corruption,
    eos: int,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise of a text with these gaps, one of which may have the wrong length."""
    noise = np.zeros(room(text, canvas), dtype=np.bool_)
    for start, end in spans:
        noise[start:end] = True
    if rng.random() < corruption.shift:
        span = spans[int(rng.integers(len(spans)))]
        return misplaced(text, noise, span, displacement(corruption, rng), canvas, eos)
    target = filled(text, canvas, eos)
    return target, target, partly_right(noise, rng)[:canvas]
