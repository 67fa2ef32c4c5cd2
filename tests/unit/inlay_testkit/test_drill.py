"""What `make drill` tells: rows, their summary over runs, and what was not permitted here."""

from typing import Any

import pytest

from inlay_testkit import drill
from inlay_testkit.drills.outcome import COUNTED
from inlay_testkit.drills.skipped import Skipped

GOOD: dict[str, Any] = {
    "holds": True,
    "harm": "some",
    "acknowledged": 4,
    "edits": 1,
    **dict.fromkeys(COUNTED, 0),
    "chain_verifies": True,
}


def rows() -> list[dict[str, Any]]:
    """Three runs: one held, one lost an order, one did not end."""
    return [
        {"drill": "d", "run": 1, **GOOD, "recovery_seconds": [1.0, 2.0]},
        {"drill": "d", "run": 2, **GOOD, "holds": False, "lost": 1, "recovery_seconds": [6.0]},
        {"drill": "d", "run": 3, "holds": False, "problem": "TimeoutError: too long"},
    ]


def test_summary_counts_over_all_runs() -> None:
    """What went wrong in any run shows; recovery is the median and the longest of all."""
    (together,) = drill.summary(rows())
    assert (together["runs"], together["held"], together["lost"], together["orders"]) == (3, 1, 1, 8)
    assert (together["recovery_median"], together["recovery_max"]) == (2.0, 6.0)


def test_page_names_what_did_not_hold() -> None:
    """Each run that did not hold has its line, with the reason."""
    kept = rows()
    page = drill.page({"command": "c", "machine": "m", "summary": drill.summary(kept), "drills": kept})
    assert "- d, run 2: lost 1" in page
    assert "- d, run 3: TimeoutError: too long" in page
    assert "run 1:" not in page


def test_what_is_not_permitted_is_told_and_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill that cannot be run here says why; it neither holds nor breaks the others."""

    def refused(*_: object) -> None:
        raise Skipped("no network namespaces: Operation not permitted")

    monkeypatch.setattr(drill, "DRILLS", {"cut": refused})
    row = drill.run("cut", orders=1)
    assert not row["holds"]
    assert "skipped: no network namespaces: Operation not permitted" in drill.table([row])
    assert drill.summary([row])[0]["skipped"] == 1
