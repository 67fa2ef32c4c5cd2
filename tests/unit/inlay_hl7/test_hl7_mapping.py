from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from inlay_core.application.ports import DELETE, Action, OrderCommand
from inlay_core.domain.errors import Conflict, DomainError, Invalid, NotFound, Unavailable
from inlay_core.domain.order import OrderStatus, Priority
from inlay_core.domain.patient import PersonName, Provider
from inlay_hl7.ack import Outcome
from inlay_hl7.mapping.orders import order_commands
from inlay_hl7.mapping.places import DEFAULTS, RAD_4, At, Mappings
from inlay_hl7.mapping.reading import Use
from inlay_hl7.mapping.refusals import Malformed, answer_of
from inlay_hl7.message import Condition, MessageError, Place, read

MSH = "MSH|^~\\&|RIS|HOSP|INLAY|HOSP|20250304101500||ORM^O01^ORM_O01|C1|P|2.3.1\r"
PID = "PID|1||X1^^^OTHER^PI~4711^^^HIS^MR||Alias^A^^^^^A~Doe^Jane^Q^Jr^Dr^^L||19700102|F\r"
ORC = "ORC|NW|P1^CPOE|F1||SC||^^^20250305080000^^S||20250304100000|||17^House^Gregory^^^Dr\r"
OBR = (
    "OBR|1|P1^CPOE|F1|71046^Chest X-ray, 2 views^C4|||||||||cough & fever|||17^House||A100|RP1|SPS1||||DX|"
    "||^^^^^R||||^Shortness of breath~R06^\r"
)
ZDS = "ZDS|1.2.840.99.1^RIS^Application^DICOM\r"


def commands(*segments: str, msh: str = MSH, mapping: object = RAD_4) -> tuple[OrderCommand, ...]:
    """The commands of a message of these segments."""
    return order_commands(read((msh + "".join(segments)).encode()), mapping)  # type: ignore[arg-type]


def one(*segments: str) -> OrderCommand:
    """The only command of a message of these segments."""
    (command,) = commands(*segments)
    return command


def refusal(*segments: str, msh: str = MSH) -> Malformed:
    """Why a message of these segments is refused."""
    with pytest.raises(Malformed) as caught:
        commands(*segments, msh=msh)
    return caught.value


def test_an_order_of_rad_4_is_read_in_full() -> None:
    """Every value that IHE RAD-4 places in an ORM^O01 arrives in the command."""
    command = one(PID, ORC, OBR, ZDS)
    assert command.action is Action.NEW
    assert (command.placer_number, command.assigner, command.filler_number) == ("P1", "CPOE", "F1")
    assert (command.accession_number, command.accession_assigner) == ("A100", "HOSP")
    assert command.study_instance_uid == "1.2.840.99.1"
    assert (command.procedure_code, command.procedure_text, command.procedure_system) == (
        "71046",
        "Chest X-ray, 2 views",
        "C4",
    )
    assert command.modality == "DX"
    assert command.reason == "Shortness of breath\nR06\ncough & fever"
    assert command.priority is Priority.STAT
    assert command.scheduled_at == datetime(2025, 3, 5, 8, 0, tzinfo=UTC)
    assert command.ordering_provider == Provider("17", PersonName("House", "Gregory", prefix="Dr"))
    assert command.order_status is OrderStatus.SCHEDULED
    assert command.message_time == datetime(2025, 3, 4, 10, 15, tzinfo=UTC)
    assert command.place == "ORC[1]"


def test_the_patient_is_the_one_with_the_record_number_and_the_legal_name() -> None:
    """Of several identifiers the one typed MR counts, of several names the legal one."""
    patient = one(PID, ORC, OBR).patient
    assert patient is not None
    assert (patient.assigner, patient.identifier) == ("HIS", "4711")
    assert patient.name == PersonName("Doe", "Jane", "Q", "Dr", "Jr")
    assert (patient.birth_date, patient.sex) == (date(1970, 1, 2), "female")


@pytest.mark.parametrize(
    ("control", "status", "action", "means"),
    [
        ("NW", "", Action.NEW, OrderStatus.SCHEDULED),
        ("NW", "SC", Action.NEW, OrderStatus.SCHEDULED),
        ("XO", "SC", Action.CHANGE, OrderStatus.SCHEDULED),
        ("SC", "SC", Action.STATUS, OrderStatus.SCHEDULED),
        ("XO", "IP", Action.CHANGE, OrderStatus.IN_PROGRESS),
        ("SC", "IP", Action.STATUS, OrderStatus.IN_PROGRESS),
        ("XO", "CM", Action.CHANGE, OrderStatus.COMPLETED),
        ("SC", "CM", Action.STATUS, OrderStatus.COMPLETED),
        ("SC", "A", Action.STATUS, OrderStatus.COMPLETED),
        ("XO", "", Action.CHANGE, None),
        ("CA", "", Action.CANCEL, OrderStatus.CANCELLED),
        ("CA", "IP", Action.CANCEL, OrderStatus.CANCELLED),
        ("DC", "", Action.DISCONTINUE, OrderStatus.DISCONTINUED),
        ("SC", "CA", Action.CANCEL, OrderStatus.CANCELLED),
        ("XO", "DC", Action.DISCONTINUE, OrderStatus.DISCONTINUED),
        ("OC", "", Action.CANCEL, OrderStatus.CANCELLED),
        ("RP", "", Action.REPLACE, OrderStatus.REPLACED),
        ("SC", "RP", Action.REPLACE, OrderStatus.REPLACED),
        ("RO", "", Action.NEW, OrderStatus.SCHEDULED),
        ("HD", "", Action.STATUS, OrderStatus.ON_HOLD),
        ("RL", "", Action.STATUS, OrderStatus.SCHEDULED),
        ("SC", "HD", Action.STATUS, OrderStatus.ON_HOLD),
    ],
)
def test_what_orc_1_and_orc_5_say_together(
    control: str, status: str, action: Action, means: OrderStatus | None
) -> None:
    """Each pair of order control and order status has its one meaning; a cancelled order is never active."""
    command = one(PID, f"ORC|{control}|P1|||{status}\r", OBR)
    assert (command.action, command.order_status) == (action, means)


def test_every_order_group_is_an_order() -> None:
    """Several ORC groups with different numbers are several orders, each with its own study."""
    second = OBR.replace("A100", "A200").replace("P1^CPOE", "P2^CPOE")
    first, other = commands(PID, ORC, OBR, ZDS, ORC.replace("P1^", "P2^"), second, ZDS.replace("99.1", "99.2"))
    assert (first.placer_number, other.placer_number) == ("P1", "P2")
    assert (first.study_instance_uid, other.study_instance_uid) == ("1.2.840.99.1", "1.2.840.99.2")
    assert other.place == "ORC[2]"


def test_steps_of_one_accession_are_one_order() -> None:
    """Groups with the same numbers are steps of one procedure; the ZDS behind the last belongs to all of them."""
    command = one(PID, ORC, OBR, ORC, OBR.replace("SPS1", "SPS2"), ZDS)
    assert command.study_instance_uid == "1.2.840.99.1"


def test_a_study_is_never_lent_to_another_order() -> None:
    """An order without ZDS has no study, even where the message has one for another order."""
    second = OBR.replace("A100", "A200").replace("P1^CPOE", "P2^CPOE")
    _, other = commands(PID, ORC, OBR, ZDS, ORC.replace("P1^", "P2^"), second)
    assert other.study_instance_uid is None


def test_the_accession_does_not_fall_back_to_the_filler_number() -> None:
    """Without OBR-18 there is no accession number; a site that wants the filler number configures it."""
    bare = OBR.replace("A100", "")
    assert one(PID, ORC, bare).accession_number is None
    (command,) = commands(PID, ORC, bare, mapping=replace(RAD_4, accession_number=(At("OBR", 18), At("ORC", 3))))
    assert command.accession_number == "F1"


def test_deletion_and_absence_arrive_as_different_things() -> None:
    """`""` asks to delete, an empty field to leave alone, on patient and order alike."""
    command = one('PID|1||4711||""||""|""\r', "ORC|XO|P1\r", 'OBR|1|||""|||||||||""|||||""\r', 'ZDS|""\r')
    assert command.patient is not None
    assert command.patient.name is command.patient.birth_date is command.patient.sex is DELETE
    assert command.procedure_code is command.accession_number is command.study_instance_uid is command.reason is DELETE
    assert command.modality is command.priority is command.ordering_provider is command.filler_number is None


def test_tq1_inside_of_an_old_message_counts() -> None:
    """A TQ1 segment gives priority and time although 2.3.1 does not know it."""
    command = one(PID, "ORC|NW|P1\r", "TQ1|1||||||20250306090000||A^ASAP\r", "OBR|1||||||||||||||||||A1\r")
    assert command.priority is Priority.URGENT
    assert command.scheduled_at == datetime(2025, 3, 6, 9, tzinfo=UTC)


@pytest.mark.parametrize("code", ["", "ZZZ"])
def test_an_unknown_priority_changes_nothing(code: str) -> None:
    """A priority code that nobody knows is no reason to reorder, or to refuse."""
    assert one(PID, f"ORC|NW|P1|||||^^^^^{code}\r", "OBR|1\r").priority is None


def test_without_a_namespace_the_facility_assigns() -> None:
    """A placer number without namespace belongs to the sending facility, and without that to the application."""
    assert one(PID, "ORC|NW|P1\r", "OBR|1\r").assigner == "HOSP"
    (command,) = commands(PID, "ORC|NW|P1\r", "OBR|1\r", msh=MSH.replace("|HOSP|INLAY", "||INLAY"))
    assert command.assigner == "RIS"


def test_times_follow_the_zone_of_the_header_or_of_the_sender() -> None:
    """An offset in MSH-7 holds for all times of the message; without one the sender's zone does."""
    (told,) = commands(PID, ORC, OBR, msh=MSH.replace("20250304101500", "20250304101500-0500"))
    assert told.message_time == datetime(2025, 3, 4, 15, 15, tzinfo=UTC)
    assert told.scheduled_at == datetime(2025, 3, 5, 13, 0, tzinfo=UTC)
    (configured,) = commands(PID, ORC, OBR, mapping=replace(RAD_4, zone=timezone(timedelta(hours=1))))
    assert configured.message_time == datetime(2025, 3, 4, 9, 15, tzinfo=UTC)


@pytest.mark.parametrize(("born", "means"), [("1970", None), ("197001", None), ("19700102", date(1970, 1, 2))])
def test_a_birth_date_known_in_part_is_no_error(born: str, means: date | None) -> None:
    """A year alone is no date: it is left out instead of being made up or refused."""
    patient = one(f"PID|1||4711||Doe||{born}\r", "ORC|NW|P1\r", "OBR|1\r").patient
    assert patient is not None
    assert patient.birth_date == means


@pytest.mark.parametrize(
    ("segments", "condition", "place"),
    [
        ((PID,), Condition.SEQUENCE, "ORC"),
        ((ORC, OBR), Condition.SEQUENCE, "PID"),
        (("PID|1\r", ORC, OBR), Condition.REQUIRED_MISSING, "PID-3.1"),
        ((PID, "ORC||P1\r"), Condition.REQUIRED_MISSING, "ORC-1.1"),
        ((PID, "ORC|QQ|P1\r"), Condition.TABLE_VALUE, "ORC-1"),
        ((PID, "ORC|SC|P1\r"), Condition.TABLE_VALUE, "ORC-5"),
        ((PID, ORC, OBR, OBR), Condition.SEQUENCE, "OBR[2]"),
        ((PID, ORC), Condition.SEQUENCE, "OBR"),
        ((PID, ORC, OBR.replace("A100", "A" * 400)), Condition.DATA_TYPE, "OBR-18.1"),
        ((PID, ORC, OBR, ORC, OBR.replace("A100", "A200")), Condition.DUPLICATE_KEY, "ORC[2]"),
        ((PID, ORC, OBR, "ZDS|1.2.x\r"), Condition.DATA_TYPE, "ZDS-1.1"),
        ((PID, ORC, OBR, "ZDS|" + "1." * 32 + "1\r"), Condition.DATA_TYPE, "ZDS-1.1"),
        (("PID|1||1||Doe||1970-01-02\r", ORC, OBR), Condition.DATA_TYPE, "PID-7"),
        ((PID, "ORC|NW|P1|||||^^^soon\r", OBR), Condition.DATA_TYPE, "ORC-7.4"),
    ],
)
def test_content_errors_name_condition_and_place(segments: tuple[str, ...], condition: Condition, place: str) -> None:
    """What cannot be taken is a content error with a condition of table 0357 and the segment, field and component."""
    error = refusal(*segments)
    assert error.outcome is Outcome.CONTENT_ERROR
    assert error.issue.condition is condition
    assert str(replace(error.issue.place or Place("-"), offset=None)) == place


def test_a_header_time_that_is_none_is_refused() -> None:
    """Without a readable MSH-7 nobody could tell newer from older messages."""
    assert str(refusal(PID, ORC, msh=MSH.replace("20250304101500", "yesterday")).place).startswith("MSH-7")


def test_a_cancel_needs_no_patient() -> None:
    """CA with the order numbers alone is enough."""
    assert one("ORC|CA|P1^CPOE\r").action is Action.CANCEL


@pytest.mark.parametrize(
    ("error", "outcome", "condition", "place"),
    [
        (NotFound("unknown-order", "No such order.", "ORC[2]"), Outcome.CONTENT_ERROR, 204, "ORC[2]"),
        (Conflict("accession-taken", "Taken.", "ORC[1]"), Outcome.CONTENT_ERROR, 205, "ORC"),
        (Conflict("order-closed", "Closed.", "ORC[1]"), Outcome.CONTENT_ERROR, 207, "ORC"),
        (Invalid("nul", "NUL.", "ORC[1].reason"), Outcome.CONTENT_ERROR, 102, "ORC"),
        (Unavailable("queue-full", "Full."), Outcome.UNAVAILABLE, 207, None),
    ],
)
def test_refusals_of_the_use_case_have_their_condition(
    error: DomainError, outcome: Outcome, condition: int, place: str | None
) -> None:
    """Each category of domain error is one outcome and one condition, and keeps its place."""
    told, (issue,) = answer_of(error)
    assert (told, int(issue.condition)) == (outcome, condition)
    assert (str(issue.place) if issue.place else None) == place


def test_a_refusal_survives_pickling() -> None:
    """The error can cross a process border without losing what the answer says."""
    error = refusal(PID)
    assert pickle.loads(pickle.dumps(error)).issue == error.issue  # noqa: S301


@pytest.mark.parametrize("text", ["OBR", "OBR-0", "obr-18", "OBR-18.0", "OBR-18.1.1", ""])
def test_locations_that_are_none(text: str) -> None:
    """A configured location is checked when it is read."""
    with pytest.raises(ValueError, match="location"):
        At.parse(text)


@pytest.mark.parametrize(
    ("segments", "place"),
    [
        ((PID, ORC, OBR.replace("cough", "cough \\XZZ\\")), "OBR-13"),
        ((PID, ORC, OBR.replace("cough & fever", "cough \\X41")), "OBR-13"),
        ((PID, ORC, OBR, "NTE|1||odd \\X4\\\r"), "NTE-3"),
    ],
)
def test_a_broken_hexadecimal_escape_is_refused_wherever_it_stands(segments: tuple[str, ...], place: str) -> None:
    """Hexadecimal data that is not whole stood for characters that nobody can tell: 102, also in unread fields."""
    with pytest.raises(MessageError) as caught:
        read((MSH + "".join(segments)).encode())
    assert caught.value.condition is Condition.DATA_TYPE
    assert str(replace(caught.value.place, offset=None)) == place


def test_a_backslash_in_a_path_is_text() -> None:
    """A backslash that opens no escape sequence is what somebody typed."""
    assert one(PID, ORC, OBR.replace("cough & fever", "see C:\\Temp\\a")).reason == (
        "Shortness of breath\nR06\nsee C:\\Temp\\a"
    )


OMI = MSH.replace("ORM^O01^ORM_O01", "OMI^O23^OMI_O23").replace("|2.3.1", "|2.5.1")
STEP = "IPC|A100^RIS|RP1^RIS|1.2.3.4^RIS^1.2^ISO|SPS1^RIS|CR^Radiography^DCM\r"


def imaging(*segments: str) -> tuple[OrderCommand, ...]:
    """The commands of an OMI^O23."""
    return order_commands(read((OMI + "".join(segments)).encode()), DEFAULTS["OMI"])


def test_an_imaging_order_is_read_from_ipc_and_tq1() -> None:
    """OMI^O23 has accession, requested procedure, study, step and modality in IPC, time and priority in TQ1."""
    timing = "TQ1|1||||||20250306090000||S^STAT\r"
    (command,) = imaging(PID, "ORC|NW|P1^CPOE|F1\r", timing, "OBR|1|P1^CPOE|F1|71046^Chest^C4\r", STEP)
    assert (command.accession_number, command.requested_procedure_id, command.steps) == ("A100", "RP1", ("SPS1",))
    assert (command.study_instance_uid, command.modality) == ("1.2.3.4", "CR")
    assert (command.priority, command.scheduled_at) == (Priority.STAT, datetime(2025, 3, 6, 9, tzinfo=UTC))


def test_several_ipc_are_steps_of_one_accession() -> None:
    """Two IPC of one order are one order with both steps; different studies leave the accession to find the images."""
    other = STEP.replace("SPS1", "SPS2")
    (command,) = imaging(PID, ORC, OBR, STEP, other)
    assert (command.steps, command.study_instance_uid) == (("SPS1", "SPS2"), "1.2.3.4")
    (command,) = imaging(PID, ORC, OBR, STEP, other.replace("1.2.3.4", "1.2.3.5"))
    assert command.study_instance_uid is DELETE


def test_several_orders_of_an_omi_have_their_own_steps() -> None:
    """A step belongs to the ORC before it."""
    second = STEP.replace("A100", "A200").replace("SPS1", "SPS9")
    orders = imaging(PID, ORC, OBR, STEP, ORC.replace("P1^", "P2^"), OBR.replace("P1^", "P2^"), second)
    assert [(o.placer_number, o.accession_number, o.steps) for o in orders] == [
        ("P1", "A100", ("SPS1",)),
        ("P2", "A200", ("SPS9",)),
    ]


def test_a_new_imaging_order_needs_its_step() -> None:
    """OMI^O23 without IPC has no accession number and is refused; a sender configured otherwise needs none."""
    with pytest.raises(Malformed) as caught:
        imaging(PID, ORC, OBR)
    assert str(caught.value.issue.place) == "IPC"
    elsewhere = replace(DEFAULTS["OMI"], accession_number=(At("OBR", 18),))
    (command,) = order_commands(read((OMI + PID + ORC + OBR).encode()), elsewhere)
    assert command.accession_number == "A100"


def test_a_general_order_is_read_like_rad_4_with_tq1() -> None:
    """OMG^O19 has the accession in OBR-18, the study in ZDS, and timing in TQ1."""
    header = MSH.replace("ORM^O01^ORM_O01", "OMG^O19^OMG_O19").replace("|2.3.1", "|2.5.1")
    timing = "TQ1|1||||||20250306090000||A\r"
    (command,) = order_commands(read((header + PID + "ORC|NW|P1\r" + timing + OBR + ZDS).encode()), DEFAULTS["OMG"])
    assert (command.accession_number, command.study_instance_uid) == ("A100", "1.2.840.99.1")
    assert (command.priority, command.steps) == (Priority.URGENT, ("SPS1",))


def test_obr_13_is_coded_from_2_7_on() -> None:
    """Before 2.7 OBR-13 is what somebody typed, a `^` included; from 2.7 on its text component counts."""
    said = OBR.replace("cough & fever", "R05^cough^I10")
    for version, means in (("2.3.1", "R05^cough^I10"), ("2.7", "cough"), ("2.9", "cough")):
        message = read((MSH.replace("|2.3.1", f"|{version}") + PID + ORC + said).encode())
        (command,) = order_commands(message, Mappings().of("ORM", version))
        assert command.reason == f"Shortness of breath\nR06\n{means}"


def test_the_universal_id_assigns_where_there_is_no_namespace() -> None:
    """The assigner of a placer number is its namespace, else its universal id, else the sending facility."""
    assert one(PID, "ORC|NW|P1^^1.2.3^ISO\r", "OBR|1\r").assigner == "1.2.3"


def test_the_type_that_names_the_record_number_is_configured() -> None:
    """Where a site types its record numbers PI, the first configured type that is there counts."""
    pid = "PID|1||X^^^OTHER^MR~7^^^HIS^PI||Doe^J\r"
    (command,) = commands(pid, ORC, OBR, mapping=replace(RAD_4, patient_identifier_types=("PI", "MR")))
    assert command.patient is not None
    assert (command.patient.assigner, command.patient.identifier) == ("HIS", "7")


def test_every_value_that_is_taken_is_noted_with_its_place() -> None:
    """`inlay hl7 explain` shows what was read from where: nothing arrives in a command without its note."""
    uses: list[Use] = []
    order_commands(read((MSH + PID + ORC + OBR + ZDS).encode()), RAD_4, uses)
    noted = {(use.name, f"{use.segment.name}-{use.field}.{use.component}") for use in uses}
    assert {
        ("placer_number", "ORC-2.1"),
        ("accession_number", "OBR-18.1"),
        ("study_instance_uid", "ZDS-1.1"),
        ("priority", "ORC-7.6"),
        ("patient identifier", "PID-3.1"),
        ("order control", "ORC-1.1"),
    } <= noted
