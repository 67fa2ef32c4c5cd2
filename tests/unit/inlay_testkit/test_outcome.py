"""The verdict of a drill: each kind of harm that it is to see, it sees."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inlay_core.application import signing
from inlay_core.application.ports import UnitOfWork
from inlay_core.application.trail import seal_trail
from inlay_core.domain.report import Report
from inlay_hl7.building import Envelope, PatientFields, Person
from inlay_hl7.orders import OrderFields, build_order
from inlay_testkit.core import RADIOLOGIST, order_command
from inlay_testkit.drills import outcome as outcomes
from inlay_testkit.drills.outcome import Outcome, examine, stories
from inlay_testkit.installation import Installation


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    """An installation with order 1, drafted."""
    opened = Installation(tmp_path)
    opened.ward.receive(replace(order_command("1"), accession_number="ACC1"))
    opened.ward.draft()
    return opened


def judged(
    site: Installation,
    acknowledged: Sequence[int] = (1,),
    edits: Mapping[str, str] | None = None,
    signing: Sequence[str] = (),
    received: Sequence[bytes] = (),
) -> Outcome:
    """What is said of this site."""
    return examine(site.services, acknowledged, edits=edits or {}, signing=signing, received=received)


def report_of(site: Installation) -> Report:
    """The one report."""
    (story,) = stories(site.services)
    return story.report


def test_a_draft_per_order_holds(site: Installation) -> None:
    """An acknowledged order with its one draft: nothing is wrong, and the chain is sealed to its end."""
    outcome = judged(site)
    assert outcome.holds
    assert outcome.chain_verifies


def test_a_relay_that_seals_at_the_same_moment_is_waited_for(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two sealers one works: that the other has not committed yet is no event that could not be chained."""
    busy_for = iter((True, True))

    def busy(uow: UnitOfWork) -> int:
        return 0 if next(busy_for, False) else seal_trail(uow)

    monkeypatch.setattr(outcomes, "seal_trail", busy)
    assert judged(site).unsealed == 0
    monkeypatch.setattr(outcomes, "seal_trail", lambda _uow: 0)
    site.ward.receive(replace(order_command("2"), accession_number="ACC2"))
    assert outcomes.sealed(site.services, patience=0.2).unsealed > 0


def test_an_acknowledged_order_that_is_not_there_is_lost(site: Installation) -> None:
    """The database does not know order 2."""
    assert judged(site, acknowledged=(1, 2)).lost == 1


def test_an_order_without_a_draft_is_lost(site: Installation) -> None:
    """Order 3 is stored and was never drafted."""
    site.ward.receive(replace(order_command("3"), accession_number="ACC3"))
    assert judged(site, acknowledged=(1, 3)).lost == 1


def test_an_edit_that_is_not_there_is_overwritten(site: Installation) -> None:
    """A sentence that was stored and is not in the report, byte for byte."""
    report = report_of(site)
    kept = report.sections[0].fragments[0].text
    assert judged(site, edits={report.id: kept}).overwritten == 0
    assert judged(site, edits={report.id: kept.strip() + "."}).overwritten == 1


def test_a_final_that_nobody_asked_for_is_seen(site: Installation) -> None:
    """A signed report that the radiologist of the drill did not sign."""
    report = report_of(site)
    signed = signing.sign(*site.ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    assert judged(site, signing=[signed.id]).unsigned_finals == 0
    assert judged(site).unsigned_finals == 1


def test_two_contents_under_one_control_id_are_seen(site: Installation) -> None:
    """A repetition sends the same bytes; anything else is another result under an old name."""
    patient, moment = PatientFields("1", "X", Person("Drill", "One")), datetime(2026, 1, 1, tzinfo=UTC)
    first, second = (
        build_order(Envelope("C1", moment, "A", "B", "C", "D"), patient, (OrderFields(number, number),))
        for number in ("P1", "P2")
    )
    assert judged(site, received=[first, first]).untold == 0
    assert judged(site, received=[first, second]).untold == 1
