"""Statistics of paired comparisons. Pure functions of numbers, exact where an exact form exists.

They are written here because nothing that Inlay depends on brings a t distribution, and scipy would be a large
package for this module alone; the tests compare them with published tables and with a second way of computing each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

# Resamples of a bootstrap interval: the Monte-Carlo error of a bound is then about 3 % of a standard error.
RESAMPLES = 10_000
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mean difference of pairs: its 95 % interval by t and by bootstrap, and the two-sided p value of the t test."""

    n: int
    mean: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    t: float
    p: float

    def to_json(self) -> dict[str, float]:
        """The numbers, rounded to six places; p values to four digits."""
        plain = {name: round(float(value), 6) for name, value in asdict(self).items()}
        return {**plain, "n": self.n, "p": float(f"{self.p:.4g}")}


@dataclass(frozen=True, slots=True)
class McNemar:
    """Pairs of right and wrong: right only in the first, right only in the second, and the exact two-sided p value."""

    first_only: int
    second_only: int
    p: float

    def to_json(self) -> dict[str, float]:
        """The numbers; the p value to four digits."""
        return {**asdict(self), "p": float(f"{self.p:.4g}")}


def paired_t(differences: Sequence[float]) -> tuple[float, float]:
    """Student's t of paired differences and its two-sided p value, with n - 1 degrees of freedom.

    Differences that are all equal have no spread: p is then 0, or 1 where they are all zero. Raises `ValueError` for
    fewer than two.
    """
    values = _at_least_two(differences)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / error
    return t, t_two_sided(t, len(values) - 1)


def compare(differences: Sequence[float], seed: int = 0) -> Comparison:
    """Everything that is reported of paired differences."""
    values = _at_least_two(differences)
    t, p = paired_t(differences)
    mean = float(values.mean())
    half = t_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    low, high = bootstrap(differences, seed=seed)
    return Comparison(len(values), mean, mean - half, mean + half, low, high, t, p)


def interaction(
    first_both: Sequence[float], first_left: Sequence[float], second_both: Sequence[float], second_left: Sequence[float]
) -> list[float]:
    """Contrast of a 2 x 2 design per case: (both - left) of the first model less the same of the second."""
    cells = zip(first_both, first_left, second_both, second_left, strict=True)
    return [(a - b) - (c - d) for a, b, c, d in cells]


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    *,
    seed: int = 0,
    share: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (the mean, where none is given) of independent cases.

    `statistic` takes resamples, one a row, and gives one number a row.
    """
    observed = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    found: list[npt.NDArray[np.float64]] = []
    # In slices, so that a few thousand cases do not need a gigabyte.
    for _ in range(10):
        drawn = rng.choice(observed, size=(RESAMPLES // 10, len(observed)))
        found.append(drawn.mean(axis=1) if statistic is None else statistic(drawn))
    low, high = np.percentile(np.concatenate(found), [50 * (1 - share), 50 * (1 + share)])
    return float(low), float(high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Exact McNemar test of two raters of the same cases: a binomial test on the cases in which they differ."""
    pairs = list(zip(first, second, strict=True))
    one, other = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return McNemar(one, other, binomial_two_sided(min(one, other), one + other))


def binomial_two_sided(fewer: int, n: int) -> float:
    """Probability that a fair coin is at least as uneven in n throws as `fewer` against the rest."""
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    # Integers as long as they are large: 2 ** n has no float beyond n = 1023.
    return min(1.0, float(2 * tail / 2**n)) if n < 1000 else min(1.0, math.exp(math.log(2 * tail) - n * math.log(2)))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share observed in n cases."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # By rounding alone a bound may lie beyond what a share can be, which would be printed as -0.000.
    return max(0.0, centre - half), min(1.0, centre + half)


def kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Cohen's kappa of two raters; NaN where each of them always says the same, so that chance explains everything."""
    n = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    yes_one, yes_other = sum(first) / n, sum(second) / n
    by_chance = yes_one * yes_other + (1 - yes_one) * (1 - yes_other)
    return math.nan if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def p_text(p: float) -> str:
    """A p value as tables show it."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def t_two_sided(t: float, freedom: int) -> float:
    """Probability that |T| is at least |t| for Student's T with these degrees of freedom; accurate far in the tail."""
    # Of the two sides of one distribution the one whose argument is small, which keeps all its digits.
    if t * t < freedom:
        return 1 - _incomplete_beta(0.5, freedom / 2, t * t / (freedom + t * t))
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_quantile(probability: float, freedom: int) -> float:
    """The t below which Student's T lies with this probability (above one half)."""
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) > 2 * (1 - probability):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, freedom) > 2 * (1 - probability) else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) (DLMF 8.17.22, the continued fraction, by Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    value, c, d = 1.0, 1.0, 0.0
    for step in range(10_000):
        m = step // 2
        if step == 0:
            numerator = 1.0
        elif step % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + numerator * d)
        c = _away_from_zero(1 + numerator / c)
        value *= c * d
        if step and abs(c * d - 1) < 1e-15:
            return front * (value - 1)
    raise ArithmeticError("The continued fraction does not converge.")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _at_least_two(values: Sequence[float]) -> npt.NDArray[np.float64]:
    if len(values) < 2:
        raise ValueError("A paired comparison needs at least two cases.")
    return np.asarray(values, dtype=np.float64)
