"""The finished report read once more: how probable the model finds every word, and which locked words it disputes.

A clean pass, without noise and without self-conditioning: what the model says at a position is what it would put there,
having seen all other words. A word is as probable as the least probable of its tokens. Locked words are judged by a
second pass that is told of the first one's suspicion by self-conditioning, as training with `corruption.doubt` does it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inlay_model.canvas import encode_header, sentences
from inlay_model.loading import Checkpoint
from inlay_model.passes import Passes, View, as_numbers
from inlay_model.request import Dispute, FilledSection, Word
from inlay_model.tokens import Control, Tokenizer, control_tokens, encode_plain_with_spans
from inlay_model.transcript import decode

# Words are judged without the punctuation around them, which is judged by itself. `3.5` and `12:30` are one word.
_WORD = re.compile(r"""[^\s.,;:!?()[\]"]+(?:[.,:][^\s.,;:!?()[\]"]+)*|[.,;:!?()[\]"]+""")


@dataclass(frozen=True, slots=True)
class Spot:
    """A word in its places: characters [start, end) of item `item` of a section, and its positions on the canvas."""

    section: str
    item: int
    locked: bool
    start: int
    end: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says of a word: the probability of its least probable token, and the likeliest tokens instead."""

    spot: Spot
    probability: float
    likeliest: tuple[int, ...]


def written_out(tokenizer: Tokenizer, sections: Sequence[FilledSection]) -> tuple[list[int], list[Spot]]:
    """Token ids of an answer as a report, up to and with the end of turn, and where its words stand."""
    ids: list[int] = []
    spots: list[Spot] = []
    for index, section in enumerate(sections):
        ids += encode_header(tokenizer, index, section.name)
        for piece in section.pieces:
            # Making runs of blanks one blank changes where words stand, and neither the words nor their order.
            spans = [(found.start(), found.end()) for found in _WORD.finditer(piece.text)]
            places: list[list[int]] = []
            for sentence in sentences(piece.text):
                tokens, of_words = _tokens_of_words(tokenizer, f" {sentence}")
                places += [[len(ids) + at for at in word] for word in of_words]
                ids += tokens
            for (start, end), positions in zip(spans, places, strict=True):
                spots.append(Spot(section.name, piece.item, piece.kind == "lock", start, end, tuple(positions)))
    return [*ids, control_tokens(tokenizer).end_of_turn], spots


def reread(
    checkpoint: Checkpoint, sections: Sequence[FilledSection], *, locked: bool, written: bool
) -> Passes[list[Reading]]:
    """What the model says of the locked and of the written words of an answer, in two passes and in one.

    Words that no longer fit on the canvas are left out: a fill may need other tokens than those it was written with.
    """
    ids, found = written_out(checkpoint.tokenizer, sections)
    length, device = checkpoint.canvas_length, checkpoint.model.device
    wanted = {True: locked, False: written}
    spots = [spot for spot in found if wanted[spot.locked] and spot.positions and spot.positions[-1] < length]
    if not spots:
        return []
    canvas_BL = torch.tensor([[*ids, *[checkpoint.control.eos] * length][:length]], device=device)
    everywhere_BL = torch.ones_like(canvas_BL, dtype=torch.bool)
    first_LV = yield View(canvas_BL, everywhere_BL)
    says = {False: _says(canvas_BL, first_LV)}
    if any(spot.locked for spot in spots):
        told_BLV = first_LV.unsqueeze(0).to(checkpoint.model.dtype)
        says[True] = _says(canvas_BL, (yield View(canvas_BL, everywhere_BL, told_BLV)))
    return [_reading(spot, *says[spot.locked]) for spot in spots]


def _says(canvas_BL: torch.Tensor, logits_LV: torch.Tensor) -> tuple[list[float], list[int]]:
    """At every position the probability of what stands there, and the likeliest token. Raises `NotANumber`."""
    p_L = torch.softmax(logits_LV, dim=-1).gather(-1, canvas_BL[0].unsqueeze(-1)).squeeze(-1)
    return as_numbers(p_L.tolist()), logits_LV.argmax(-1).tolist()


def _reading(spot: Spot, p: Sequence[float], likeliest: Sequence[int]) -> Reading:
    return Reading(spot, min(p[at] for at in spot.positions), tuple(likeliest[at] for at in spot.positions))


def words_of(readings: Sequence[Reading]) -> tuple[Word, ...]:
    """The written words with their probabilities."""
    return tuple(
        Word(one.spot.section, one.spot.item, one.spot.start, one.spot.end, one.probability)
        for one in readings
        if not one.spot.locked
    )


def disputes_of(
    readings: Sequence[Reading], threshold: float, tokenizer: Tokenizer, control: Control
) -> tuple[Dispute, ...]:
    """Locked words of which the model is surer than `threshold` that they are wrong; neighbours are one dispute."""
    disputes: list[Dispute] = []
    run: list[Reading] = []
    for one in [*(one for one in readings if one.spot.locked), None]:
        disputed = one is not None and 1 - one.probability > threshold
        if run and not (disputed and one is not None and _follows(run[-1].spot, one.spot)):
            disputes.append(_dispute(run, tokenizer, control))
            run = []
        if disputed and one is not None:
            run.append(one)
    return tuple(disputes)


def _dispute(run: Sequence[Reading], tokenizer: Tokenizer, control: Control) -> Dispute:
    first, last = run[0].spot, run[-1].spot
    probability = min(one.probability for one in run)
    # By position: a token may be part of two words, as where punctuation is one with the word before it.
    likeliest = {at: token for one in run for at, token in zip(one.spot.positions, one.likeliest, strict=True)}
    said = list(likeliest.values())
    text = decode(tokenizer, said).strip()
    # Where other words would stand than as many in the same tokens, there is no word to name.
    fits = "\n" not in text and len(_WORD.findall(text)) == len(run)
    ends = {control.pad, control.eos, control.end_of_turn}
    instead = text if fits and not ends & set(said) else None
    return Dispute(first.section, first.item, first.start, last.end, probability, instead)


def _follows(before: Spot, after: Spot) -> bool:
    """Whether two disputed words stand side by side in one lock, with no word between them."""
    same = (before.section, before.item) == (after.section, after.item)
    return same and after.positions[0] - before.positions[-1] in {0, 1}


def _tokens_of_words(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[list[int]]]:
    """Token ids of a text, and for each of its words which of them it is made of."""
    ids, spans = encode_plain_with_spans(tokenizer, text)
    bounds = [(found.start(), found.end()) for found in _WORD.finditer(text)]
    of_words: list[list[int]] = [[] for _ in bounds]
    for at, (begin, end) in enumerate(spans):
        touched = [n for n, (start, stop) in enumerate(bounds) if start < end and begin < stop]
        # A blank that is a token of its own belongs to the word after it.
        touched = touched or [n for n, (start, _) in enumerate(bounds) if start >= begin][:1]
        for n in touched:
            of_words[n].append(at)
    return ids, of_words
