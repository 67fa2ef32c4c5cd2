from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from inlay_core.application import editing, intake, signing
from inlay_core.application.ports import (
    Command,
    PatientFields,
    PatientMerge,
    PatientUpdate,
    PriorCommand,
    Received,
    ReportSearch,
    Sort,
)
from inlay_core.application.priors import priors_of_report
from inlay_core.domain.errors import Forbidden
from inlay_core.domain.identity import Actor
from inlay_core.domain.patient import PersonName
from inlay_core.domain.prior import PriorSection, PriorStatus
from inlay_core.domain.report import Report
from inlay_testkit.core import MONDAY, RADIOLOGIST, Ward, ack, envelope, order_command
from inlay_testkit.memory import Memory

LATER = MONDAY + timedelta(minutes=5)
NEW_NAME = PersonName("Newname", "Nora")


@pytest.fixture
def memory() -> Memory:
    """An empty database in memory."""
    return Memory()


@pytest.fixture
def ward(memory: Memory) -> Ward:
    """A ward on it."""
    return Ward(memory())


def send(ward: Ward, *commands: Command) -> Received:
    """Have the RIS send a message that asks for this."""
    message = envelope(f"M-{ward.new_id()}")
    return intake.receive_message(*ward.trio, message, lambda: commands, acknowledge=ack)


def fields(number: str = "1", **changes: Any) -> PatientFields:
    """The patient of order `number`."""
    return PatientFields("HOSP", f"MRN{number}", **changes)


def signed(ward: Ward) -> Report:
    """A signed report of patient 1."""
    report = ward.drafted()
    opened = editing.open_report(*ward.trio, RADIOLOGIST, report.id, expected_version=report.version)
    return signing.sign(*ward.trio, RADIOLOGIST, opened.id, expected_version=opened.version)


def patient_of(ward: Ward, report: Report) -> str:
    """The record number of the report's patient."""
    with ward.uow as uow:
        order = uow.orders.get(report.order_id)
    assert order is not None
    return order.patient.identifier


def test_an_update_reaches_open_reports_and_their_trail(ward: Ward, memory: Memory) -> None:
    """A new name is the patient's from then on, and the trail of each report of the patient says that it changed."""
    report = ward.order()
    assert send(ward, PatientUpdate(fields(name=NEW_NAME), LATER)).accepted
    (patient,) = memory.world.patients.values()
    assert patient.name == NEW_NAME
    assert ward.tags(report.id)[-1] == "intake:report:patient-changed"


def test_an_update_of_an_unknown_patient_keeps_nothing(ward: Ward, memory: Memory) -> None:
    """A RIS tells of every patient of the hospital; who has no order here is not stored."""
    received = send(ward, PatientUpdate(fields("77", name=NEW_NAME), LATER))
    assert received.accepted
    assert received.ack.endswith(b"patient-unknown")
    assert not memory.world.patients


def test_an_update_of_a_signed_reports_patient_changes_no_word_of_it(ward: Ward) -> None:
    """The signed version stays as it is, and the trail says that the patient's record changed after the signature."""
    report = signed(ward)
    send(ward, PatientUpdate(fields(name=NEW_NAME), LATER))
    assert ward.report(report.id) == report
    with ward.uow as uow:
        event = uow.audit.of_report(report.id)[-1]
    assert (str(event.tag), event.detail["signed"]) == ("intake:report:patient-changed", True)


def test_a_merge_moves_open_reports_and_leaves_signed_ones(ward: Ward, memory: Memory) -> None:
    """Open orders follow to the record that stays; a signed report keeps the record that it was signed for."""
    finished = signed(ward)
    opened = ward.order("2", patient=fields())
    assert send(ward, PatientMerge(fields("9", name=NEW_NAME), "HOSP", "MRN1", LATER)).accepted
    assert patient_of(ward, opened) == "MRN9"
    assert patient_of(ward, finished) == "MRN1"
    assert ward.report(finished.id) == finished
    assert {str(tag) for tag in ward.tags(finished.id)} >= {"intake:report:patient-changed"}
    gone = next(patient for patient in memory.world.patients.values() if patient.identifier == "MRN1")
    stays = next(patient for patient in memory.world.patients.values() if patient.identifier == "MRN9")
    assert gone.merged_into == stays.id


def test_a_signed_report_is_found_by_the_record_that_stayed(ward: Ward, memory: Memory) -> None:
    """Whoever looks for the patient after a merge finds what was signed before it."""
    finished = signed(ward)
    send(ward, PatientMerge(fields("9"), "HOSP", "MRN1", LATER))
    stays = next(patient for patient in memory.world.patients.values() if patient.identifier == "MRN9")
    for search in (
        ReportSearch(patient_ids=(stays.id,)),
        ReportSearch(patient_identifiers=(("HOSP", "MRN9"),)),
        ReportSearch(patient_identifiers=((None, "MRN1"),)),
    ):
        with ward.uow as uow:
            assert [row.report.id for row in uow.reports.search(search, Sort.NEWEST, 0, 10).rows] == [finished.id]


def test_a_chain_of_merges_ends_at_the_last_record(ward: Ward) -> None:
    """A into B and B into C: a message that still names A means C."""
    ward.order()
    send(ward, PatientMerge(fields("2"), "HOSP", "MRN1", LATER))
    send(ward, PatientMerge(fields("3"), "HOSP", "MRN2", LATER))
    assert patient_of(ward, ward.order("5", patient=fields(), message_time=LATER)) == "MRN3"


def test_a_merge_in_the_other_direction_turns_the_first_one_round(ward: Ward) -> None:
    """The newer message says which record stays; two records never point at each other."""
    report = ward.order()
    send(ward, PatientMerge(fields("2"), "HOSP", "MRN1", LATER))
    send(ward, PatientMerge(fields("1"), "HOSP", "MRN2", LATER + timedelta(minutes=1)))
    assert patient_of(ward, report) == "MRN1"
    assert patient_of(ward, ward.order("5", patient=fields("2"), message_time=LATER)) == "MRN1"


def test_a_merge_of_unknown_records_keeps_nothing(ward: Ward, memory: Memory) -> None:
    """Neither record has anything here: accepted, flagged, nothing stored."""
    assert send(ward, PatientMerge(fields("2"), "HOSP", "MRN1", LATER)).ack.endswith(b"patient-unknown")
    assert not memory.world.patients


# ---------------------------------------------------------------------------------------------- prior reports


def prior(number: str = "F1", text: str = "Normal chest.", **changes: Any) -> PriorCommand:
    """A report of patient 1 from the RIS."""
    values: dict[str, Any] = {"status": PriorStatus.FINAL, "message_time": LATER, **changes}
    return PriorCommand("HOSP", number, fields(), sections=(PriorSection("X", "Impression", text),), **values)


def priors(ward: Ward, report: Report) -> list[str]:
    """The first texts of the report's priors, as the use case gives them."""
    return [each.sections[0].text for each in priors_of_report(ward.uow, RADIOLOGIST, report.id)]


def test_a_prior_report_is_readable_beside_the_new_one(ward: Ward) -> None:
    """What the RIS sent earlier or later of the same patient is listed, the newest study first."""
    send(ward, prior("F1", "Old.", performed_at=MONDAY - timedelta(days=400)))
    report = ward.order()
    send(ward, prior("F2", "Newer.", performed_at=MONDAY - timedelta(days=2)))
    assert priors(ward, report) == ["Newer.", "Old."]


def test_a_correction_takes_the_place_of_its_report_and_an_old_message_does_not(ward: Ward) -> None:
    """One row per number: the newest message counts."""
    report = ward.order()
    send(ward, prior(text="First."))
    send(ward, prior(text="Second.", message_time=LATER + timedelta(minutes=1)))
    assert send(ward, prior(text="Late first.")).ack.endswith(b"outdated")
    assert priors(ward, report) == ["Second."]


def test_a_withdrawn_report_and_our_own_echo_are_not_offered(ward: Ward) -> None:
    """Nobody compares with what was withdrawn, nor with the report that is being written."""
    report = ward.order()
    send(ward, prior("F1", status=PriorStatus.WITHDRAWN), prior("F2", "Echo.", accession_number="A1"))
    assert priors(ward, report) == []


def test_priors_follow_a_merge(ward: Ward) -> None:
    """What was reported under the record that went is a prior of the record that stayed."""
    send(ward, prior())
    send(ward, PatientMerge(fields("9"), "HOSP", "MRN1", LATER))
    assert priors(ward, ward.order("2", patient=fields("9"))) == ["Normal chest."]


def test_priors_are_for_readers_of_reports(ward: Ward) -> None:
    """Nobody without a role reads what others reported."""
    report = ward.order()
    with pytest.raises(Forbidden):
        priors_of_report(ward.uow, Actor("x", "x"), report.id)


def test_a_prior_with_a_nul_is_refused(ward: Ward) -> None:
    """Texts inside of a command are checked at every depth."""
    assert not send(ward, prior(text="a\x00b")).accepted
    assert not send(ward, order_command(steps=("a\x00",))).accepted
