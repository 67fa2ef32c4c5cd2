"""From scores to probabilities: a rising curve that was fitted on phantoms whose right answers are known. Pure.

Ranking needs no calibration, since a rising curve keeps the order; a reader who is shown a number does.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Of `n` cases between two probabilities: what was said on average, and the share that was right."""

    n: int
    said: float
    right: float


def probability(curve: Curve, score: float) -> float:
    """The probability of a score: between two points of the curve a straight line, beyond its ends the end's."""
    scores = [point for point, _ in curve]
    at = bisect.bisect_left(scores, score)
    if at == 0 or at == len(curve):
        return curve[min(at, len(curve) - 1)][1]
    (low, p_low), (high, p_high) = curve[at - 1], curve[at]
    return p_low + (p_high - p_low) * (score - low) / (high - low)


def fitted(cases: Sequence[tuple[float, bool]]) -> Curve:
    """The rising curve nearest to these (score, right) pairs: isotonic regression by pooling adjacent violators.

    Each pool is one point at its mean score. Half a case of either kind is added to each, so that no score is certain.
    """
    pools: list[tuple[int, float, float]] = []
    for score, right in sorted(cases):
        pools.append((1, score, float(right)))
        while len(pools) > 1 and (_share(pools[-2]) >= _share(pools[-1]) or pools[-2][1] / pools[-2][0] >= score):
            n, scores, rights = pools.pop()
            before = pools.pop()
            pools.append((before[0] + n, before[1] + scores, before[2] + rights))
    smoothed = [(scores / n, (rights + 0.5) / (n + 1)) for n, scores, rights in pools]
    # Smoothing pulls small pools towards a half, which may undo their order: what falls is raised to what it follows.
    curve: list[tuple[float, float]] = []
    for score, p in smoothed:
        curve.append((score, max(p, curve[-1][1]) if curve else p))
    return tuple(curve)


def _share(pool: tuple[int, float, float]) -> float:
    return pool[2] / pool[0]


def reliability(cases: Sequence[tuple[float, bool]], bins: int = 5) -> list[Bin]:
    """How right (probability, right) pairs are, in bins of equal width; empty bins are left out."""
    found: list[Bin] = []
    for number in range(bins):
        inside = [(p, right) for p, right in cases if min(int(p * bins), bins - 1) == number]
        if inside:
            n = len(inside)
            found.append(Bin(n, sum(p for p, _ in inside) / n, sum(right for _, right in inside) / n))
    return found


def expected_error(found: Sequence[Bin]) -> float:
    """Mean distance between what was said and what was right, weighted by cases."""
    total = sum(one.n for one in found)
    return sum(one.n * abs(one.said - one.right) for one in found) / total if total else 0.0
