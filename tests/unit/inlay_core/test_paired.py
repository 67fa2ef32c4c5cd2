import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain import paired
from inlay_core.domain.paired import sign_test, signed_ranks


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_p_is_the_share_of_all_signings_that_are_as_uneven(differences: list[int]) -> None:
    """Counted by brute force, ties and zeros included."""
    found = signed_ranks(differences)
    unequal = [d for d in differences if d]
    sizes = sorted(abs(d) for d in unequal)
    ranks = [sum(n + 1 for n, s in enumerate(sizes) if s == abs(d)) / sizes.count(abs(d)) for d in unequal]
    assert (found.n, found.equal) == (len(unequal), len(differences) - len(unequal))
    assert found.positive == sum(r for r, d in zip(ranks, unequal, strict=True) if d > 0)
    smaller = min(found.positive, found.negative)
    signings = list(itertools.product((0, 1), repeat=len(ranks)))
    sums = [sum(r for r, sign in zip(ranks, signing, strict=True) if sign) for signing in signings]
    expected = min(1.0, 2 * sum(s <= smaller for s in sums) / len(signings))
    assert found.p == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "smaller", "p"),
    # The table of Wilcoxon, as in Siegel & Castellan: largest sums with two-sided p of at most 5 %.
    [(6, 0, 0.03125), (8, 3, 0.0390625), (10, 8, 0.048828125)],
)
def test_known_tables(n: int, smaller: int, p: float) -> None:
    """The smaller rank sum of a table gives the p value of that table."""
    left, signs = smaller, []
    for rank in range(n, 0, -1):
        negative = rank <= left
        left -= rank if negative else 0
        signs.append(-rank if negative else rank)
    found = signed_ranks(signs)
    assert (found.negative, found.p) == (smaller, p)


def test_many_pairs_follow_the_normal_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where counting ends the approximation begins, and there the two agree to the third digit."""
    differences = [(-1 if n % 3 == 0 else 1) * (n % 17 + 1) for n in range(50)]
    exact = signed_ranks(differences)
    monkeypatch.setattr(paired, "EXACT_UP_TO", 0)
    near = signed_ranks(differences)
    assert (exact.exact, near.exact) == (True, False)
    assert near.p == pytest.approx(exact.p, abs=1e-3)


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375)])
def test_signs_are_those_of_a_fair_coin(first: int, second: int, p: float) -> None:
    """Two-sided binomial, symmetric, never above 1."""
    assert sign_test(first, second) == sign_test(second, first) == p


def test_thousands_of_signs_do_not_overflow() -> None:
    """Whole numbers stay whole until the end."""
    assert sign_test(3000, 3000) == 1.0
    assert 0 <= sign_test(2000, 4000) < 1e-100


def test_nothing_to_compare_proves_nothing() -> None:
    """Without a difference p is 1."""
    assert signed_ranks([]).p == signed_ranks([0.0, 0.0]).p == 1.0
