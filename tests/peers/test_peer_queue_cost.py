"""What the queue reads does not grow with old work: pages that PostgreSQL touches, not times."""

from __future__ import annotations

import pytest

from inlay_testkit.bench_queue import measured

pytestmark = [pytest.mark.peers, pytest.mark.slow]

FEW, OLD = 4_000, 24_000
# An index over more rows may be a level deeper, in each look-up.
FACTOR, LEVELS = 1.6, 40


def test_old_reports_are_not_gone_through() -> None:
    """With six times as many old reports claims, sweeps, intake, worklist, metrics and state touch as few pages."""
    found = measured(OLD, 1, lambda _: None, few=FEW)
    pages = {query: (row["empty_pages"], row["full_pages"]) for query, row in found.items()}
    # The look-ups of an order go past SQLAlchemy; what they read is counted in test_peer_unit_of_work.
    assert pages.pop("take an order") == (0, 0)
    assert all(empty > 0 for empty, _ in pages.values()), pages
    assert not {query: both for query, both in pages.items() if both[1] > FACTOR * both[0] + LEVELS}, pages
