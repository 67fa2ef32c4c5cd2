"""Statistics of paired comparisons, against published values and against a second way of computing them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_model.evaluation.statistics import (
    binomial_two_sided,
    bootstrap,
    compare,
    holm,
    interaction,
    kappa,
    mcnemar,
    p_text,
    paired_t,
    t_quantile,
    t_two_sided,
    wilson,
)

# Two-sided 5 % and 1 % points of Student's t (Fisher and Yates; any textbook).
T_TABLE = [(1, 12.706, 63.657), (2, 4.303, 9.925), (5, 2.571, 4.032), (10, 2.228, 3.169), (30, 2.042, 2.750)]


@pytest.mark.parametrize(("freedom", "five", "one"), T_TABLE)
def test_t_is_that_of_the_tables(freedom: int, five: float, one: float) -> None:
    """Probabilities and quantiles agree with the printed table to its last digit."""
    assert t_two_sided(five, freedom) == pytest.approx(0.05, abs=2e-4)
    assert t_two_sided(one, freedom) == pytest.approx(0.01, abs=2e-5)
    assert t_quantile(0.975, freedom) == pytest.approx(five, abs=6e-4)
    assert t_quantile(0.995, freedom) == pytest.approx(one, abs=6e-4)


def closed_form(t: float, freedom: int) -> float:
    """The two-sided probability by the series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and .4)."""
    theta = math.atan(abs(t) / math.sqrt(freedom))
    cosine = math.cos(theta)
    total, term = 0.0, 1.0
    if freedom % 2:
        for k in range(1, (freedom - 1) // 2 + 1):
            term = cosine if k == 1 else term * cosine**2 * (2 * k - 2) / (2 * k - 1)
            total += term
        return 1 - 2 / math.pi * (theta + math.sin(theta) * total)
    for k in range(freedom // 2):
        term = 1.0 if k == 0 else term * cosine**2 * (2 * k - 1) / (2 * k)
        total += term
    return 1 - math.sin(theta) * total


@given(st.floats(0, 20), st.integers(1, 400))
def test_t_equals_its_finite_series(t: float, freedom: int) -> None:
    """The continued fraction and the trigonometric series are two ways to one number."""
    assert t_two_sided(t, freedom) == pytest.approx(closed_form(t, freedom), abs=1e-10)


def test_far_tails_are_not_rounded_to_zero() -> None:
    """With one degree of freedom the tail is 2/pi * atan(1/t): ordinary even where one minus it is not."""
    assert t_two_sided(1e9, 1) == pytest.approx(2 / math.pi * 1e-9, rel=1e-9)
    assert 0 < t_two_sided(30, 249) < 1e-80


def test_students_own_sleep_data() -> None:
    """Student (1908): ten differences of mean 1.58, t = 4.0621, p = 0.00283, interval 0.70 to 2.46."""
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    t, p = paired_t(differences)
    assert (t, p) == (pytest.approx(4.0621, abs=1e-4), pytest.approx(0.00283, abs=1e-5))
    found = compare(differences)
    assert (found.low, found.high) == (pytest.approx(0.70, abs=0.01), pytest.approx(2.46, abs=0.01))
    assert found.n == 10


def test_differences_without_spread_and_too_few_of_them() -> None:
    """Nothing but zeros shows nothing; equal differences leave no doubt; one case is no comparison."""
    assert paired_t([0.0, 0.0, 0.0]) == (0.0, 1.0)
    assert paired_t([0.5, 0.5])[1] == 0.0
    with pytest.raises(ValueError, match="at least two"):
        paired_t([1.0])


def test_the_bootstrap_interval_of_a_mean_is_near_that_of_t_and_repeats() -> None:
    """On many near-normal values both intervals agree; the same seed gives the same interval."""
    values = np.random.default_rng(1).normal(0.3, 1.0, 400).tolist()
    found = compare(values)
    assert found.bootstrap_low == pytest.approx(found.low, abs=0.01)
    assert found.bootstrap_high == pytest.approx(found.high, abs=0.01)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_the_bootstrap_takes_other_statistics() -> None:
    """The interval of a median lies around the median, not around the mean of skewed values."""
    values = [1.0] * 60 + [100.0] * 40
    low, high = bootstrap(values, lambda drawn: np.median(drawn, axis=1))
    assert (low, high) == (1.0, 1.0) or high < 100.1
    assert low == 1.0


def test_mcnemar_counts_only_where_the_two_differ() -> None:
    """Six against sixteen discordant pairs give p = 0.0525, however many agree."""
    first = [True] * 6 + [False] * 16 + [True] * 100
    second = [False] * 6 + [True] * 16 + [True] * 100
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (6, 16)
    assert found.p == pytest.approx(0.0525, abs=1e-4)
    assert mcnemar([True, False], [True, False]).p == 1.0


def test_the_binomial_test_is_exact_and_bears_thousands() -> None:
    """Five of five is 1/16; even halves are 1; beyond the range of floats it stays a probability."""
    assert binomial_two_sided(0, 5) == pytest.approx(0.0625)
    assert binomial_two_sided(5, 10) == 1.0
    assert binomial_two_sided(900, 2000) == pytest.approx(8.4e-6, rel=0.05)
    assert 0 < binomial_two_sided(0, 1000) < 1e-290
    assert binomial_two_sided(999, 2000) == pytest.approx(0.982, abs=1e-3)


def test_wilsons_interval_is_the_published_one_and_narrows_with_n() -> None:
    """Newcombe (1998): 81 of 263 gives 0.2553 to 0.3662, 0 of 20 up to 0.1611; more cases are tighter."""
    low, high = wilson(81 / 263, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    low, high = wilson(0, 20)
    assert (low, high) == (pytest.approx(0, abs=1e-12), pytest.approx(0.1611, abs=1e-4))
    # Of many counts rounding alone would put a bound beyond 0 or 1, and print it as -0.000.
    assert all(wilson(0, n)[0] >= 0 and wilson(1, n)[1] <= 1 for n in range(1, 600))
    assert f"{wilson(0, 15)[0]:.3f}" == "0.000"
    low, high = wilson(0.97, 512)
    wide_low, wide_high = wilson(0.97, 64)
    assert wide_low < low < 0.97 < high < wide_high


def test_kappa_is_agreement_beyond_chance() -> None:
    """Cohen's example of 20, 5, 10, 15 gives 0.4; perfect agreement 1; raters without variation have none."""
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert kappa(first, second) == pytest.approx(0.4)
    assert kappa(first, first) == pytest.approx(1.0)
    assert math.isnan(kappa([True] * 5, [True] * 5))


def test_holm_steps_down_and_never_decreases() -> None:
    """Holm (1979) for 0.01, 0.04, 0.03: times three, two and one of what is left, each at least the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=20))
def test_the_interaction_is_the_difference_of_gains(rows: list[tuple[float, float, float, float]]) -> None:
    """Its mean is the gain of the first model less that of the second."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    contrast = interaction(*columns)
    gains = (np.mean(columns[0]) - np.mean(columns[1])) - (np.mean(columns[2]) - np.mean(columns[3]))
    assert np.mean(contrast) == pytest.approx(gains, abs=1e-12)


def test_small_p_values_are_written_as_such() -> None:
    """A p value is never shown as zero."""
    assert [p_text(0.0432), p_text(0.00001)] == ["0.043", "< 0.001"]
