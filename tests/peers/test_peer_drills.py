"""A short form of `make drill` on real PostgreSQL and Redis: few orders, drills that need no more than these two."""

import pytest

from inlay_testkit.drill import run

pytestmark = [pytest.mark.peers, pytest.mark.slow]

ORDERS = 8


@pytest.mark.parametrize("name", ["postgresql", "redis", "out-of-memory"])
def test_drill_loses_doubles_and_overwrites_nothing(name: str) -> None:
    """Acknowledged orders lost 0, drafts doubled 0, edits overwritten 0, unsigned finals 0, the chain verifies."""
    row = run(name, orders=ORDERS)
    assert row["holds"], row
    assert row["acknowledged"] == ORDERS
