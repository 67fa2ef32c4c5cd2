"""How long is a gap? Candidate lengths are ranked by how well the locked text around them is foretold.

A gap of the wrong length makes the neighbours improbable, whereas the confidence of the gap itself says nothing
(short gaps are always sure of themselves).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inlay_model.canvas import Frame, Layout
from inlay_model.passes import Passes, View, as_numbers
from inlay_model.request import Gap
from inlay_model.step import Fixed


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the length search, chosen on phantom reports (docs/explain/infill.md).

    `longest` bounds a gap without a maximum; `typical` are lengths that a gap is tried with while another one is
    searched. `right` and `left` are how many locked tokens after and before the gap judge a length; `rows` is how many
    lengths one pass looks at. With a `shortlist` only so many lengths are looked at: those found by `anchors`, gaps of
    which length are put on the canvas to see where the model expects the next `anchor_window` locked tokens.
    """

    longest: int = 48
    typical: tuple[int, ...] = (8, 4, 12, 16, 24)
    right: int = 12
    left: int = 0
    rows: int = 16
    shortlist: int | None = None
    anchors: tuple[int, ...] = (12, 28)
    anchor_window: int = 8


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate length and its score, a mean log-probability (nats; larger is better)."""

    length: int
    score: float


def bounds(gap: Gap, free_room: int, policy: Policy) -> tuple[int, int]:
    """Shortest and longest length worth a look, given the tokens that the canvas has left for this gap."""
    longest = policy.longest if gap.max_tokens is None else gap.max_tokens
    return gap.min_tokens, max(gap.min_tokens, min(longest, free_room))


def ranked(scored: Sequence[Scored]) -> list[Scored]:
    """Best first; of equals the shorter, because a gap that is too long invents a finding."""
    return sorted(scored, key=lambda candidate: (-candidate.score, candidate.length))


def watched(layout: Layout, hole: int, policy: Policy) -> list[int]:
    """Positions of the locked tokens that judge this hole: the nearest ones after it and before it."""
    begin, end = layout.spans[hole]
    after = [at for at in range(end, len(layout.ids)) if not layout.free[at]]
    before = [at for at in range(begin - 1, -1, -1) if not layout.free[at]]
    return [*before[: policy.left], *after[: policy.right]]


def as_fixed(layouts: Sequence[Layout], device: torch.device) -> Fixed:
    """Layouts of one canvas length as tensors."""
    ids_BL = torch.tensor([layout.ids for layout in layouts], device=device)
    free_BL = torch.tensor([layout.free for layout in layouts], device=device)
    return Fixed(ids_BL, ~free_BL)


def mean_log_probability(canvas_BL: torch.Tensor, positions: Sequence[Sequence[int]]) -> Passes[list[float]]:
    """Mean log-probability of the canvas's own tokens at each row's positions; zero for a row without any.

    Raises `NotANumber` on NaN logits.
    """
    wanted_BL = torch.zeros_like(canvas_BL, dtype=torch.bool)
    for row, places in enumerate(positions):
        wanted_BL[row, list(places)] = True
    logits_NV = yield View(canvas_BL, wanted_BL)
    log_p_N = torch.log_softmax(logits_NV, dim=-1).gather(-1, canvas_BL[wanted_BL].unsqueeze(-1)).squeeze(-1)
    sums_B = torch.zeros(canvas_BL.shape[0], device=canvas_BL.device)
    sums_B.index_add_(0, wanted_BL.nonzero()[:, 0], log_p_N)
    return as_numbers((sums_B / wanted_BL.sum(-1).clamp(min=1)).tolist())


@dataclass(frozen=True, slots=True)
class Search:
    """What the length search works with: the request's frame, its policy, and a canvas of noise.

    All candidates see the same noise, so that only their length differs.
    """

    frame: Frame
    policy: Policy
    noise_L: torch.Tensor

    def first(self) -> Passes[list[tuple[Scored, list[int]]]]:
        """Ranked lengths of the first hole, each with lengths that the others may have meanwhile.

        How long the others are is unknown too, and decides where the locked text after them stands: so the first
        hole's length is looked for with each of several typical lengths beside it, and what fits best comes first.
        """
        hole = self.frame.blocks.holes[0]
        several = self.policy.typical if len(self.frame.blocks.holes) > 1 else self.policy.typical[:1]
        found: list[tuple[Scored, list[int]]] = []
        tried: list[list[int]] = []
        for typical in several:
            first, *others = _start(self.frame, self.policy, typical)
            if others in tried:
                continue
            tried.append(others)
            shortest, longest = bounds(hole.gap, self.frame.room - sum(others), self.policy)
            ranking = yield from self._ranked(0, [first, *others], shortest, longest)
            found += [(scored, others) for scored in ranking]
        return sorted(found, key=lambda pair: (-pair[0].score, pair[0].length + sum(pair[1])))

    def _ranked(self, hole: int, lengths: Sequence[int], shortest: int, longest: int) -> Passes[list[Scored]]:
        tried: Sequence[int] = range(shortest, longest + 1)
        if len(tried) == 1:
            return [Scored(shortest, 0.0)]
        if self.policy.shortlist is not None and len(tried) > self.policy.shortlist:
            anchored = yield from self.anchored(hole, lengths, shortest, longest)
            tried = [candidate.length for candidate in ranked(anchored)[: self.policy.shortlist]] or tried
        return ranked((yield from self.score(hole, lengths, tried)))

    def anchored(self, hole: int, lengths: Sequence[int], shortest: int, longest: int) -> Passes[list[Scored]]:
        """Scores of all lengths from one pass; empty where no locked text follows the gap directly.

        A model that was trained on misplaced text says at every position what belongs there. So one canvas with a gap
        of any length shows where the text after the gap ought to begin, and thereby how long the gap ought to be.
        Raises `NotANumber` on NaN logits.
        """
        layouts = [
            self.frame.layout([*lengths[:hole], max(shortest, min(anchor, longest)), *lengths[hole + 1 :]])
            for anchor in self.policy.anchors
        ]
        begin, end = layouts[0].spans[hole]
        following = list(itertools.takewhile(lambda at: not layouts[0].free[at], range(end, len(layouts[0].ids))))
        window = [layouts[0].ids[at] for at in following[: self.policy.anchor_window]]
        if not window:
            return []
        fixed = as_fixed(layouts, self.noise_L.device)
        canvas_BL = torch.where(fixed.locked_BL, fixed.ids_BL, self.noise_L)
        wanted_BL = torch.zeros_like(fixed.locked_BL)
        wanted_BL[:, begin:] = True
        log_p_NV = torch.log_softmax((yield View(canvas_BL, wanted_BL)), dim=-1)
        expected_BTW = log_p_NV[:, window].view(len(layouts), -1, len(window))
        # Row n + w, column w: how probable the w-th locked token is if the gap has n tokens.
        found = [expected_BTW[:, n:].diagonal(dim1=1, dim2=2).mean() for n in range(shortest, longest + 1)]
        scores = as_numbers(torch.stack(found).tolist())
        return [Scored(n, score) for n, score in zip(range(shortest, longest + 1), scores, strict=True)]

    def score(self, hole: int, lengths: Sequence[int], tried: Sequence[int]) -> Passes[list[Scored]]:
        """Scores of these lengths for this hole, the other holes having the lengths given."""
        layouts = [self.frame.layout([*lengths[:hole], length, *lengths[hole + 1 :]]) for length in tried]
        scored: list[Scored] = []
        for begin in range(0, len(layouts), self.policy.rows):
            some = layouts[begin : begin + self.policy.rows]
            fixed = as_fixed(some, self.noise_L.device)
            canvas_BL = torch.where(fixed.locked_BL, fixed.ids_BL, self.noise_L)
            places = [watched(layout, hole, self.policy) for layout in some]
            scores = yield from mean_log_probability(canvas_BL, places)
            scored += [Scored(n, s) for n, s in zip(tried[begin : begin + self.policy.rows], scores, strict=True)]
        return scored


def _start(frame: Frame, policy: Policy, typical: int) -> list[int]:
    lengths = []
    spare = frame.room - sum(hole.gap.min_tokens for hole in frame.blocks.holes)
    for hole in frame.blocks.holes:
        shortest, longest = bounds(hole.gap, hole.gap.min_tokens + spare, policy)
        lengths.append(min(max(typical, shortest), longest))
        spare -= lengths[-1] - shortest
    return lengths
