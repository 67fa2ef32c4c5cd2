r"""The canvas: where headers, locks, gaps and the tail stand, as token ids. Pure; no tensors, no model.

A report is written as `Findings: Sentence. Sentence.\nImpression: Sentence.` then end of turn, then EOS to the end.
Every sentence is tokenised by itself with the blank before it, so that a lock has the tokens it had in training.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inlay_model.errors import CanvasOverflow
from inlay_model.prompt import title
from inlay_model.request import Gap, Lock, Section
from inlay_model.tokens import Control, Tokenizer, control_tokens, encode_plain

# A sentence ends at . ! or ? (with closing quotes or brackets) before a blank. Decimal numbers have no blank.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]»”’]*\s+")


def header(index: int, section_name: str) -> str:
    """Header of the section at this place: a new line before every section but the first."""
    return f"{'' if index == 0 else chr(10)}{title(section_name)}:"


def encode_header(tokenizer: Tokenizer, index: int, section_name: str) -> list[int]:
    """Token ids of a section header."""
    return encode_plain(tokenizer, header(index, section_name))


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, runs of blanks made one: what the model is shown of a fragment."""
    cut = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    pieces = (" ".join(text[start:end].split()) for start, end in itertools.pairwise(cut))
    return [piece for piece in pieces if piece]


def encode_fragment(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a fragment: each of its sentences by itself, with one blank before it. Blank text has none."""
    return [token for sentence in sentences(text) for token in encode_plain(tokenizer, f" {sentence}")]


def encode_report(tokenizer: Tokenizer, sections: Iterable[tuple[str, Sequence[str]]]) -> list[int]:
    """Token ids of a whole report, given as (section name, sentences), up to and with the end of turn.

    The trainer's target is `fill(encode_report(...), canvas_length, eos)`.
    """
    ids: list[int] = []
    for index, (name, fragments) in enumerate(sections):
        ids += encode_header(tokenizer, index, name)
        for fragment in fragments:
            ids += encode_fragment(tokenizer, fragment)
    return [*ids, control_tokens(tokenizer).end_of_turn]


def fill(ids: Sequence[int], length: int, eos: int) -> list[int]:
    """The ids followed by EOS up to `length`; a longer sequence is returned as it is, for the caller to refuse."""
    return [*ids, *[eos] * (length - len(ids))]


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap of a request in its place: which item of which section, and its bounds in tokens."""

    section: int
    item: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Blocks:
    """A request as the canvas has it, lengths of gaps still open: runs of locked token ids and holes, in order.

    `bare` are the places of runs without any locked text: headers and the end of turn. With `open_end` the canvas is
    free after the last part.
    """

    parts: tuple[tuple[int, ...] | Hole, ...]
    bare: frozenset[int] = frozenset()
    open_end: bool = False

    @property
    def holes(self) -> tuple[Hole, ...]:
        """The gaps in reading order."""
        return tuple(part for part in self.parts if isinstance(part, Hole))

    @property
    def trailing(self) -> int:
        """How many holes at the end have no locked text after them but headers, where there are several holes.

        They are written in one go with the headers between them, as a draft is. A request's only hole is none of them:
        what comes after it, be it the end of turn alone, shows how long it is.
        """
        last = len(self.parts)
        while last > 0 and (isinstance(self.parts[last - 1], Hole) or self._only_headers(last - 1)):
            last -= 1
        found = [part for part in self.parts[last:] if isinstance(part, Hole)]
        return len(found) if len(self.holes) > 1 else 0

    def _only_headers(self, at: int) -> bool:
        return at in self.bare and at > 0

    def filled(self, written: Mapping[int, Sequence[int]]) -> "Blocks":
        """The request with these holes, by number, holding what was written; the others stay open.

        What follows the last lock is left open where it is to be written as a draft is (`trailing`).
        """
        holes = self.holes
        end = self.parts.index(holes[len(holes) - self.trailing]) if self.trailing else len(self.parts)
        parts: list[tuple[int, ...] | Hole] = []
        for part in self.parts[:end]:
            ids = written.get(holes.index(part)) if isinstance(part, Hole) else None
            parts.append(part if ids is None else tuple(ids))
        return Blocks(tuple(parts), open_end=bool(self.trailing))

    def closed(self) -> "Blocks":
        """The same request without a trailing part: every hole by itself, headers standing."""
        return Blocks(self.parts)

    def before_trailing(self, written: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Tokens before the first trailing hole, holes holding what was written."""
        holes = self.holes
        filled = dict(zip(holes, written, strict=False))
        ids: list[int] = []
        for part in self.parts[: self.parts.index(holes[len(holes) - self.trailing])]:
            ids += filled[part] if isinstance(part, Hole) else part
        return tuple(ids)

    @property
    def locked_tokens(self) -> int:
        """How many tokens are not up to the model, the end of turn included."""
        return sum(len(part) for part in self.parts if not isinstance(part, Hole))


@dataclass(frozen=True, slots=True)
class Layout:
    """A canvas with all lengths decided: L token ids (EOS where free), which are free, and where each hole is."""

    ids: tuple[int, ...]
    free: tuple[bool, ...]
    spans: tuple[tuple[int, int], ...]


def encode_request(tokenizer: Tokenizer, sections: Sequence[Section], first: int = 0) -> Blocks:
    """Headers and locks as token runs, gaps as holes, closed by the end of turn.

    `first` is the place of the first of these sections in its report.
    """
    parts: list[tuple[int, ...] | Hole] = []
    bare: set[int] = set()
    run: list[int] = []
    has_text = False

    def close() -> None:
        nonlocal run, has_text
        if not has_text:
            bare.add(len(parts))
        parts.append(tuple(run))
        run, has_text = [], False

    for index, section in enumerate(sections):
        run += encode_header(tokenizer, first + index, section.name)
        for number, item in enumerate(section.items):
            if isinstance(item, Lock):
                text = encode_fragment(tokenizer, item.text)
                has_text = has_text or bool(text)
                run += text
            else:
                close()
                parts.append(Hole(index, number, item))
    run.append(control_tokens(tokenizer).end_of_turn)
    close()
    return Blocks(tuple(parts), frozenset(bare))


@dataclass(frozen=True, slots=True)
class Frame:
    """A request on a canvas of a certain length: everything about the layout but the lengths of the gaps.

    `reserved` tokens are kept for gaps that are still closed.
    """

    blocks: Blocks
    canvas_length: int
    control: Control
    reserved: int = 0

    @property
    def room(self) -> int:
        """Tokens left for all gaps together; raises `CanvasOverflow` where not even the smallest gaps fit."""
        smallest = sum(hole.gap.min_tokens for hole in self.blocks.holes) + self.reserved
        if self.blocks.locked_tokens + smallest > self.canvas_length:
            raise CanvasOverflow(needed=self.blocks.locked_tokens + smallest, available=self.canvas_length)
        return self.canvas_length - self.blocks.locked_tokens - self.reserved

    def layout(self, lengths: Sequence[int]) -> Layout:
        """The canvas for these gap lengths (one per hole)."""
        return lay_out(self.blocks, lengths, self.canvas_length, self.control)


def lay_out(blocks: Blocks, lengths: Sequence[int], canvas_length: int, control: Control) -> Layout:
    """The canvas for these gap lengths (one per hole); the tail after the end of turn is EOS, and locked.

    Blocks with an open end have a free tail instead.
    """
    ids: list[int] = []
    free: list[bool] = []
    spans: list[tuple[int, int]] = []
    left = iter(lengths)
    for part in blocks.parts:
        size = next(left) if isinstance(part, Hole) else len(part)
        if isinstance(part, Hole):
            spans.append((len(ids), len(ids) + size))
        ids += [control.eos] * size if isinstance(part, Hole) else part
        free += [isinstance(part, Hole)] * size
    if len(ids) > canvas_length:
        raise CanvasOverflow(needed=len(ids), available=canvas_length)
    tail = canvas_length - len(ids)
    return Layout((*ids, *[control.eos] * tail), (*free, *[blocks.open_end] * tail), tuple(spans))


def lay_out_draft(tokenizer: Tokenizer, first_section: str | None, canvas_length: int, begin: str = "") -> Layout:
    """The canvas of a draft: everything free, but for the first section's header and beginning where they are given."""
    eos = control_tokens(tokenizer).eos
    head = encode_header(tokenizer, 0, first_section) if first_section else []
    head += encode_fragment(tokenizer, begin)
    if len(head) >= canvas_length:
        raise CanvasOverflow(needed=len(head) + 1, available=canvas_length)
    size = canvas_length - len(head)
    return Layout((*head, *[eos] * size), (*[False] * len(head), *[True] * size), ((len(head), canvas_length),))
