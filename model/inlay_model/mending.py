"""What a second look doubts in a finished draft is written again: the doubtful sentences are gaps, all others locks.

So a sentence that came out garbled, or of the wrong length, gets a length and words that fit all that stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from inlay_model.call import Call
from inlay_model.canvas import Frame, encode_fragment, encode_header, encode_request, fill, sentences
from inlay_model.filling import Filling
from inlay_model.gaps import Policy
from inlay_model.passes import Passes
from inlay_model.request import Gap, Item, Lock, Section
from inlay_model.second_look import DOUBTED
from inlay_model.transcript import ends_sentence

# A draft of which more is doubtful is no report with mistakes in it, and each gap costs several passes.
_MOST_GAPS = 3


@dataclass(frozen=True, slots=True)
class Mended:
    """The texts of a draft's gaps after the second look, how many gaps were made in them, and the steps it took."""

    texts: tuple[str, ...]
    gaps: int = 0
    steps: int = 0


def mended(call: Call, policy: Policy, banned_V: torch.Tensor, texts: Sequence[str]) -> Passes[Mended]:
    """Look at a draft once more and write again what is doubtful in it; `texts` are those of the call's gaps."""
    checkpoint = call.checkpoint
    written = [sentences(text) for text in texts]
    ids: list[int] = []
    parts: list[list[int]] = []
    for index, (section, its) in enumerate(zip(call.sections, written, strict=True)):
        ids += encode_header(checkpoint.tokenizer, index, section.name)
        ids += [token for lock in _locks(section) for token in encode_fragment(checkpoint.tokenizer, lock.text)]
        for sentence in its:
            tokens = encode_fragment(checkpoint.tokenizer, sentence)
            parts.append(list(range(len(ids), len(ids) + len(tokens))))
            ids += tokens
    ids.append(checkpoint.control.end_of_turn)
    if not parts or len(ids) > checkpoint.canvas_length:
        return Mended(tuple(texts))
    canvas = fill(ids, checkpoint.canvas_length, checkpoint.control.eos)
    doubts = yield from call.looked_at(canvas, parts)
    left = iter(doubts)
    doubted = [[next(left) > DOUBTED or not ends_sentence(sentence) for sentence in its] for its in written]
    asked = tuple(
        Section(section.name, (*_locks(section), *_items(its, bad)))
        for section, its, bad in zip(call.sections, written, doubted, strict=True)
    )
    gaps = sum(isinstance(item, Gap) for section in asked for item in section.items)
    if not 0 < gaps <= _MOST_GAPS:
        return Mended(tuple(texts))
    call.looks.doubted += 1
    # A gap ends as an infill's does; what the draft was to be has been written.
    sampler = replace(call.sampler, early_stop=True, stop_when_accepted=True)
    again = replace(call, sections=asked, sampler=sampler, settings=replace(call.settings, alternatives=1))
    frame = Frame(encode_request(checkpoint.tokenizer, asked), checkpoint.canvas_length, checkpoint.control)
    best = yield from Filling(again, policy, banned_V).fill(frame)
    if not best.whole:
        return Mended(tuple(texts), steps=best.steps)
    filled = iter(best.texts)
    new = tuple(_text(section, filled, len(_locks(of))) for section, of in zip(asked, call.sections, strict=True))
    return Mended(new, gaps, best.steps)


def _locks(section: Section) -> tuple[Lock, ...]:
    return tuple(item for item in section.items if isinstance(item, Lock))


def _items(written: Sequence[str], doubted: Sequence[bool]) -> tuple[Item, ...]:
    """Sentences as locks, and one gap for each run of doubtful ones."""
    items: list[Item] = []
    for sentence, bad in zip(written, doubted, strict=True):
        if not bad:
            items.append(Lock(f"{sentence} "))
        elif not items or isinstance(items[-1], Lock):
            items.append(Gap())
    return tuple(items)


def _text(section: Section, filled: Iterator[str], given: int) -> str:
    """The text of a section without its first `given` items, which the draft began with."""
    said = [item.text.strip() if isinstance(item, Lock) else next(filled) for item in section.items]
    return " ".join(text for text in said[given:] if text)
