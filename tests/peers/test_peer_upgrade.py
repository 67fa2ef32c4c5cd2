"""Rolling upgrades with work in flight on real PostgreSQL and Redis: nothing is lost, doubled or overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from inlay_testkit.drills.upgrade import from_earlier_version, has_history, to_next_version

pytestmark = [pytest.mark.peers, pytest.mark.slow]

ORDERS = 10


def test_todays_processes_work_on_the_schema_of_a_next_version(tmp_path: Path) -> None:
    """The schema grows under listener, relay and worker while orders come: all of them are drafted, once."""
    outcome = to_next_version(tmp_path, ORDERS)
    assert outcome.holds, outcome
    assert (outcome.acknowledged, outcome.parked) == (ORDERS, 0)


@pytest.mark.skipif(not has_history(), reason="a shallow clone does not hold the earlier version")
def test_an_earlier_versions_processes_work_on_todays_schema_until_they_are_replaced(tmp_path: Path) -> None:
    """Its listener, relay and worker go on after the migration, with today's api beside them, and hand over."""
    outcome = from_earlier_version(tmp_path, ORDERS)
    assert outcome.holds, outcome
    assert (outcome.acknowledged, outcome.parked) == (ORDERS, 0)
