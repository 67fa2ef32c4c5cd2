"""Tests of paired differences that assume no distribution: Wilcoxon's signed ranks, and the sign test.

Both are exact where that is feasible. The core cannot use `inlay_model.evaluation.statistics`, and needs no numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

# The exact distribution takes n³ steps; from here on the normal one differs in the fourth digit.
EXACT_UP_TO: Final = 50


@dataclass(frozen=True, slots=True)
class SignedRanks:
    """Wilcoxon's test: pairs that differ, those that do not (they are left out), rank sums, and the two-sided p."""

    n: int
    equal: int
    positive: float
    negative: float
    p: float
    exact: bool


def signed_ranks(differences: Sequence[float]) -> SignedRanks:
    """Wilcoxon's signed-rank test of differences; equal sizes share their mean rank (Wilcoxon 1945; Pratt's zeros out).

    p is the share of all ways to give the signs that are at least as uneven, which ties do not make inexact.
    """
    unequal = [difference for difference in differences if difference != 0]
    ranks = _ranks([abs(difference) for difference in unequal])
    positive: float = sum(rank for rank, difference in zip(ranks, unequal, strict=True) if difference > 0)
    negative = sum(ranks) - positive
    exact = len(unequal) <= EXACT_UP_TO
    p = 1.0 if not unequal else (_exact if exact else _normal)(ranks, min(positive, negative))
    return SignedRanks(len(unequal), len(differences) - len(unequal), positive, negative, p, exact)


def sign_test(first: int, second: int) -> float:
    """Two-sided p of so many signs for the first and for the second, when either is as likely."""
    n, fewer = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    # Whole numbers are divided last: large ones stay exact.
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def _ranks(sizes: Sequence[float]) -> list[float]:
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    ranks = [0.0] * len(sizes)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and sizes[order[end]] == sizes[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + 1 + end) / 2
        start = end
    return ranks


def _exact(ranks: Sequence[float], smaller: float) -> float:
    # Mean ranks are halves: doubled they are whole, and sums of them can be counted.
    doubled = [round(2 * rank) for rank in ranks]
    ways = [1] + [0] * sum(doubled)
    reached = 0
    for rank in doubled:
        reached += rank
        for total in range(reached, rank - 1, -1):
            ways[total] += ways[total - rank]
    tail = sum(ways[: round(2 * smaller) + 1])
    return min(1.0, float(Fraction(2 * tail, 2 ** len(ranks))))


def _normal(ranks: Sequence[float], smaller: float) -> float:
    # The variance of a sum of ranks with random signs; with mean ranks it holds ties' correction already.
    deviation = math.sqrt(sum(rank * rank for rank in ranks) / 4)
    z = (smaller - sum(ranks) / 2 + 0.5) / deviation
    return min(1.0, math.erfc(-min(z, 0.0) / math.sqrt(2)))
