from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from inlay_core.domain.errors import Conflict
from inlay_core.domain.lifecycle import (
    CLINICIAN_EVENTS,
    SIGNED_STATUSES,
    TRANSITIONS,
    UNSIGNED_STATUSES,
    Event,
    Status,
    allowed,
    diagram,
    follow,
)

S, E = Status, Event

# Written out a second time, by hand, from the description of the product: the table must say the same.
EXPECTED = {
    S.REGISTERED: {E.START: S.DRAFTING, E.FAIL: S.FAILED, E.EDIT: S.IN_REVIEW, E.CANCEL: S.CANCELLED},
    S.DRAFTING: {E.DRAFT: S.DRAFTED, E.FAIL: S.FAILED, E.EDIT: S.IN_REVIEW, E.CANCEL: S.CANCELLED},
    S.DRAFTED: {E.OPEN: S.IN_REVIEW, E.EDIT: S.IN_REVIEW, E.INFILL: S.IN_REVIEW, E.CANCEL: S.CANCELLED},
    S.IN_REVIEW: {E.EDIT: S.IN_REVIEW, E.INFILL: S.IN_REVIEW, E.SIGN: S.SIGNED, E.CANCEL: S.CANCELLED},
    S.FAILED: {E.RETRY: S.REGISTERED, E.EDIT: S.IN_REVIEW, E.CANCEL: S.CANCELLED},
    S.SIGNED: {
        E.AMEND: S.AMENDED,
        E.CORRECT: S.CORRECTED,
        E.APPEND: S.APPENDED,
        E.RETRACT: S.ENTERED_IN_ERROR,
    },
}
EXPECTED |= dict.fromkeys((S.AMENDED, S.CORRECTED, S.APPENDED), EXPECTED[S.SIGNED])


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_every_pair_leads_where_it_should_or_is_refused(status: Status, event: Event) -> None:
    """Each (status, event) pair either has the one successor that the product names, or raises Conflict."""
    after = EXPECTED.get(status, {}).get(event)
    assert allowed(status, event) is (after is not None)
    if after is not None:
        assert follow(status, event) is after
    else:
        with pytest.raises(Conflict) as refused:
            follow(status, event)
        assert refused.value.code == "wrong-status"


def test_no_machine_event_reaches_a_signed_status() -> None:
    """Whatever the model, a worker or a sweeper causes, in any order, a signed status is not reached."""
    reached = {Status.REGISTERED}
    machine = set(Event) - CLINICIAN_EVENTS
    while more := {a for (s, e), a in TRANSITIONS.items() if s in reached and e in machine} - reached:
        reached |= more
    assert reached == {S.REGISTERED, S.DRAFTING, S.DRAFTED, S.IN_REVIEW, S.FAILED, S.CANCELLED}
    assert not reached & SIGNED_STATUSES


def test_the_machine_cannot_change_a_signed_report() -> None:
    """From a signed status only events of clinicians lead anywhere."""
    assert {event for status, event in TRANSITIONS if status in SIGNED_STATUSES} <= CLINICIAN_EVENTS


def test_each_status_is_reachable_and_classified() -> None:
    """No status is dead, and each one is unsigned, signed, or an end."""
    assert {S.REGISTERED, *TRANSITIONS.values()} == set(Status)
    ends = {status for status in Status if not any(status is before for before, _ in TRANSITIONS)}
    assert ends == {S.CANCELLED, S.ENTERED_IN_ERROR}
    assert UNSIGNED_STATUSES | SIGNED_STATUSES | ends == set(Status)
    assert not UNSIGNED_STATUSES & SIGNED_STATUSES


def test_the_page_shows_the_table() -> None:
    """The diagram in docs/reference/lifecycle.md is the one that the table gives now."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "lifecycle.md"
    assert f"```mermaid\n{diagram()}```\n" in page.read_text(encoding="utf-8")
