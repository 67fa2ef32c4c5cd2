from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import ValidationError
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.fragment import Fragment, Origin, Section
from inlay_core.domain.identity import ActorKind
from inlay_core.domain.lifecycle import Status
from inlay_core.domain.order import Order, Procedure
from inlay_core.domain.patient import Patient, PersonName, Provider
from inlay_core.domain.report import Author, Report, Signature
from inlay_hl7.ack import Issue, Outcome, acknowledge, answer_codes
from inlay_hl7.building import Coded, Envelope, PatientFields, Person
from inlay_hl7.header import read_header
from inlay_hl7.mapping.orders import order_commands
from inlay_hl7.mapping.reports import result_of
from inlay_hl7.message import Condition, Place, read
from inlay_hl7.orders import OrderFields, build_order
from inlay_hl7.results import Result, ResultStatus, build_result

NOW = datetime(2025, 3, 4, 10, 15, tzinfo=UTC)
ENVELOPE = Envelope("CTRL-1", NOW, "INLAY", "RAD", "RIS", "HOSP")
PATIENT = PatientFields("4711", "HIS", Person("Doe", "Jane"), "19700102", "F")
DRAFT = Result(
    envelope=ENVELOPE,
    patient=PATIENT,
    status=ResultStatus.DRAFT,
    report_id="r1",
    reported_at=NOW,
    sections=(("findings", "Lungs clear."), ("impression", "Normal chest.")),
    banner="AI draft.",
    placer_number="P1",
    filler_number="F1",
    accession_number="A100",
    procedure=Coded("71046", "Chest", "C4"),
    modality="DX",
    ordering_provider=Person("House", "Gregory", identifier="17"),
)
SIGNED = replace(DRAFT, status=ResultStatus.SIGNED, banner="", interpreter=Person("Grey", identifier="g1"))


@pytest.mark.parametrize(
    ("status", "of_order", "of_text"),
    [
        (ResultStatus.DRAFT, "R", "R"),
        (ResultStatus.SIGNED, "F", "F"),
        (ResultStatus.CORRECTED, "C", "C"),
        (ResultStatus.CANCELLED, "X", "X"),
        (ResultStatus.WITHDRAWN, "C", "W"),
    ],
)
def test_the_status_stands_in_obr_25_and_obx_11(status: ResultStatus, of_order: str, of_text: str) -> None:
    """Each status of a report has its pair of codes, and every OBX of the message carries it."""
    message = read(build_result(replace(DRAFT, status=status)))
    assert message.require("OBR").text(25) == of_order
    observations = list(message.all("OBX"))
    assert observations
    assert {obx.text(11) for obx in observations} == {of_text}


def test_a_draft_has_one_obx_per_section_behind_the_banner() -> None:
    """The banner comes first; each section is one OBX with the LOINC code of DICOM PS3.20."""
    rows = [(obx.text(2), obx.text(3), obx.text(5)) for obx in read(build_result(DRAFT)).all("OBX")]
    assert rows == [
        ("TX", "INLAY-BANNER", "AI draft."),
        ("TX", "59776-5", "Lungs clear."),
        ("TX", "19005-8", "Normal chest."),
    ]


def test_the_numbers_of_the_order_are_carried_back() -> None:
    """Placer, filler and accession number, procedure and patient come back as they were ordered."""
    message = read(build_result(DRAFT))
    orc, obr, pid = message.require("ORC"), message.require("OBR"), message.require("PID")
    assert (orc.text(1), orc.text(2), orc.text(3)) == ("RE", "P1", "F1")
    assert (obr.text(2), obr.text(3), obr.text(18)) == ("P1", "F1", "A100")
    assert (obr.text(4), obr.text(4, 2), obr.text(4, 3)) == ("71046", "Chest", "C4")
    assert (pid.text(3), pid.text(3, 4), pid.text(5, 2)) == ("4711", "HIS", "Jane")


def test_only_what_was_signed_names_an_interpreter() -> None:
    """OBR-32 holds the clinician who signed; a draft cannot even be built with one."""
    assert read(build_result(SIGNED)).require("OBR").text(32, 1, 2) == "Grey"
    assert read(build_result(DRAFT)).require("OBR").raw(32) == ""
    with pytest.raises(ValueError, match="no interpreter"):
        replace(DRAFT, interpreter=Person("Grey"))


def test_a_withdrawn_text_is_not_sent_again() -> None:
    """A withdrawal replaces each section by a notice instead of repeating the wrong text."""
    payload = build_result(replace(SIGNED, status=ResultStatus.WITHDRAWN))
    assert b"Lungs" not in payload
    assert [obx.text(3) for obx in read(payload).all("OBX")] == ["59776-5", "19005-8"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=80)


@given(TEXT)
def test_any_text_arrives_as_it_was(text: str) -> None:
    """Delimiters, escapes, controls and every script survive the way out and back; line ends become line feeds."""
    payload = build_result(replace(DRAFT, sections=(("findings", text),), banner=""))
    assert payload.count(b"\r") == 5
    assert not set(payload) & (set(range(0x20)) - {0x0D})
    arrived = read(payload).require("OBX").free_text(5)
    assert arrived == text.replace("\r\n", "\n").replace("\r", "\n")


def test_the_same_result_is_the_same_bytes() -> None:
    """A message that is sent again is the same message, control id and time included."""
    assert build_result(DRAFT) == build_result(replace(DRAFT))


@pytest.mark.parametrize("result", [DRAFT, SIGNED, *(replace(DRAFT, status=status) for status in ResultStatus)])
def test_hl7apy_finds_our_results_valid(result: Result) -> None:
    """hl7apy, strict, finds every kind of ORU^R01 that we build valid against the 2.5.1 profile."""
    text = replace(result, sections=(*result.sections, ("technique", "two\nlines | ^ & ~")))
    message = parse_message(build_result(text).decode(), validation_level=VALIDATION_LEVEL.STRICT)
    assert message.validate()
    assert message.name == "ORU_R01"


def test_hl7apy_finds_our_orders_valid(tmp_path: Path) -> None:
    """hl7apy, strict, finds nothing wrong with our ORM^O01 but that it lacks the other order details of the choice.

    In 2.3.1 the detail is a choice of OBR, RQD, RQ1, RXO, ODS and ODT; hl7apy asks for all of them at once.
    """
    payload = build_order(replace(ENVELOPE, version="2.3.1"), PATIENT, (OrderFields("P1", "A1", reason="cough"),))
    message = parse_message(payload.decode(), validation_level=VALIDATION_LEVEL.STRICT)
    with pytest.raises(ValidationError):
        message.validate(report_file=str(tmp_path / "report"))
    errors = {line for line in (tmp_path / "report").read_text().splitlines() if line.startswith("Error")}
    others = ("RQD", "RQ1", "RXO", "ODS", "ODT")
    assert errors == {f"Error: Missing required child ORM_O01_CHOICE.{name}" for name in others}


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5", "2.5.1"])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_hl7apy_finds_our_acknowledgements_valid(version: str, outcome: Outcome) -> None:
    """hl7apy, strict, finds our acknowledgements valid in each version, with and without ERR."""
    raw = build_order(replace(ENVELOPE, version=version), PATIENT, (OrderFields("P1", "A1"),))
    header = read_header(raw)
    issues = () if outcome is Outcome.ACCEPTED else (Issue(Condition.DATA_TYPE, Place("PID", 1, 7), "no date"),)
    (code,) = answer_codes(header, outcome)
    assert code
    payload = acknowledge(header, code, now=NOW, control_id="A1", issues=issues)
    assert parse_message(payload.decode(), validation_level=VALIDATION_LEVEL.STRICT).validate()


def test_our_orders_are_read_by_our_mapping() -> None:
    """What the demonstration sends, the mapping reads: numbers, study, reason, patient."""
    orders = (
        OrderFields("P1", "A1", study_instance_uid="1.2.3", clinical_information="cough & fever", priority="S"),
        OrderFields("P2", "A2", control="CA"),
    )
    first, second = order_commands(read(build_order(replace(ENVELOPE, version="2.3.1"), PATIENT, orders)))
    assert (first.placer_number, first.accession_number, first.study_instance_uid) == ("P1", "A1", "1.2.3")
    assert first.reason == "cough & fever"
    assert (second.action, second.placer_number) == ("cancel", "P2")


def test_python_hl7_reads_our_results() -> None:
    """A reader written by others finds status and text in our message."""
    theirs = hl7.parse(build_result(SIGNED).decode())
    assert str(theirs["OBR.F25"]) == "F"
    assert str(theirs.segments("OBX")[1][5]) == "Normal chest."


# ---- from the domain

ORDER = Order(
    id="o1",
    assigner="HOSP",
    patient=Patient("p1", "HIS", "4711", PersonName("Doe", "Jane"), date(1970, 1, 2), "female"),
    placer_number="P1",
    accession_number="A100",
    procedure=Procedure("71046", "C4", "Chest"),
    ordering_provider=Provider("17", PersonName("House")),
)


def report(status: Status, signature: Signature | None = None) -> Report:
    """A report of one sentence."""
    section = Section("findings", (Fragment("f1", "Lungs clear.", Origin.MODEL),))
    return Report("r1", "o1", 3, status, (section,), NOW, NOW, Author("a", "A", ActorKind.SYSTEM), signature=signature)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_of_a_report_has_its_result_or_none(status: Status) -> None:
    """Reports that say nothing yet are not sent; every other status has its codes and can be built."""
    result = result_of(report(status), ORDER, ENVELOPE, "AI draft.")
    silent = {Status.REGISTERED, Status.DRAFTING, Status.FAILED}
    assert (result is None) == (status in silent)
    if result is not None:
        assert build_result(result)


def test_the_signer_is_named_on_signed_reports_only() -> None:
    """A signature that an older version carried does not make a withdrawn-from-review draft look attested."""
    signature = Signature("g1", "Dr Grey", NOW, 3)
    signed = result_of(report(Status.SIGNED, signature=signature), ORDER, ENVELOPE, "")
    draft = result_of(report(Status.DRAFTED, signature=signature), ORDER, ENVELOPE, "")
    assert signed is not None
    assert draft is not None
    assert (signed.interpreter.family, draft.interpreter.family) == ("Dr Grey", "")
