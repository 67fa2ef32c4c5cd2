from __future__ import annotations

from datetime import UTC, datetime

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_hl7.ack import (
    Acceptance,
    Issue,
    Mode,
    Outcome,
    acknowledge,
    answer_codes,
    check_header,
    later_code,
    read_acknowledgement,
)
from inlay_hl7.framing import encode
from inlay_hl7.header import read_header
from inlay_hl7.message import Condition, Place

NOW = datetime(2025, 3, 4, 10, 15, tzinfo=UTC)


def order(
    kind: str = "ORM^O01^ORM_O01", control: str = "C-1", processing: str = "P", version: str = "2.3.1", tail: str = ""
) -> bytes:
    """The header of an order."""
    return f"MSH|^~\\&|RIS|HOSP|INLAY|RAD|20250304||{kind}|{control}|{processing}|{version}{tail}\r".encode()


def answer(raw: bytes, outcome: Outcome = Outcome.ACCEPTED, issues: tuple[Issue, ...] = ()) -> list[list[str]]:
    """The fields of the segments of the answer."""
    header = read_header(raw)
    (code,) = answer_codes(header, outcome)
    payload = acknowledge(header, code, now=NOW, control_id="OURS", issues=issues)
    assert payload.endswith(b"\r")
    return [line.split("|") for line in payload.decode("latin-1").rstrip("\r").split("\r")]


def test_the_header_of_an_answer_is_new_and_turned_round() -> None:
    """Sender and receiver are swapped, MSH-7 and MSH-10 are ours, MSH-11 and MSH-12 copied, MSH-9 is ACK^O01^ACK."""
    msh, msa = answer(order())
    assert msh[2:12] == ["INLAY", "RAD", "RIS", "HOSP", "20250304101500+0000", "", "ACK^O01^ACK", "OURS", "P", "2.3.1"]
    assert msa == ["MSA", "AA", "C-1"]


@pytest.mark.parametrize("control", [r"A\T\B", "Ärger", " 17 ", "x" * 300])
def test_the_control_id_comes_back_as_the_same_bytes(control: str) -> None:
    """MSA-2 is MSH-10 verbatim: escapes, blanks, length and bytes of whatever character set."""
    raw = order(control=control).decode().encode("cp1252")
    payload = acknowledge(read_header(raw), "AA", now=NOW, control_id="OURS")
    assert payload.split(b"\r")[1] == b"MSA|AA|" + control.encode("cp1252")


def test_the_delimiters_of_the_sender_are_used() -> None:
    """An answer is written with the delimiters of the message, so that the copied fields mean the same."""
    raw = b"MSH$*!@%$RIS$H$I$R$2025$$ORM*O01$C%1$P$2.5.1\r"
    payload = acknowledge(read_header(raw), "AE", now=NOW, control_id="X", issues=[Issue(Condition.DATA_TYPE)])
    assert payload.startswith(b"MSH$*!@%$I$R$RIS$H$")
    assert b"MSA$AE$C%1\r" in payload
    assert b"102*Data type error*HL70357" in payload


@pytest.mark.parametrize(
    ("version", "kind"),
    [("2.1", "ACK"), ("2.2", "ACK"), ("2.3", "ACK^O01"), ("2.3.1", "ACK^O01^ACK"), ("2.7", "ACK^O01^ACK")],
)
def test_the_message_type_fits_the_version(version: str, kind: str) -> None:
    """The event came into MSH-9 of an ACK with 2.3 and the structure with 2.3.1."""
    assert answer(order(version=version))[0][8] == kind


ISSUE = Issue(Condition.REQUIRED_MISSING, Place("PID", 1, 3, 1, 77), "required value missing")


def test_err_before_2_5_has_location_and_code_in_err_1() -> None:
    """Up to 2.4 there is only ERR-1, with the code as its fourth component, and the text stands in MSA-3."""
    _, msa, err = answer(order(version="2.3.1"), Outcome.CONTENT_ERROR, (ISSUE,))
    assert msa == ["MSA", "AE", "C-1", "required value missing"]
    assert err == ["ERR", "PID^1^3^101&Required field missing&HL70357"]


def test_err_from_2_5_has_location_code_and_severity() -> None:
    """From 2.5 on the location is ERR-2, the code ERR-3, the severity ERR-4; MSA-3 stays empty."""
    _, msa, err = answer(order(version="2.5.1"), Outcome.CONTENT_ERROR, (ISSUE,))
    assert msa == ["MSA", "AE", "C-1"]
    assert err[1:5] == ["", "PID^1^3^1^1", "101^Required field missing^HL70357", "E"]
    assert err[8] == "required value missing, PID-3.1 (offset 77)"


@pytest.mark.parametrize(
    ("raw", "outcome", "condition", "place"),
    [
        (order(control="", version="2.5"), Outcome.CONTENT_ERROR, Condition.REQUIRED_MISSING, "MSH-10"),
        (order(kind=""), Outcome.HEADER_REFUSED, Condition.REQUIRED_MISSING, "MSH-9"),
        (order(kind="MDM^T02"), Outcome.HEADER_REFUSED, Condition.MESSAGE_TYPE, "MSH-9"),
        (order(kind="ORM^O99"), Outcome.HEADER_REFUSED, Condition.EVENT, "MSH-9"),
        (order(kind="ORM"), Outcome.HEADER_REFUSED, Condition.EVENT, "MSH-9"),
        (order(processing="T"), Outcome.HEADER_REFUSED, Condition.PROCESSING_ID, "MSH-11"),
        (order(processing=""), Outcome.HEADER_REFUSED, Condition.REQUIRED_MISSING, "MSH-11"),
        (order(version="3.0"), Outcome.HEADER_REFUSED, Condition.VERSION, "MSH-12"),
        (order(version=""), Outcome.HEADER_REFUSED, Condition.REQUIRED_MISSING, "MSH-12"),
        (b"hello", Outcome.CONTENT_ERROR, Condition.SEQUENCE, "MSH"),
    ],
)
def test_headers_that_are_not_taken(raw: bytes, outcome: Outcome, condition: Condition, place: str) -> None:
    """MSH-9, MSH-11 and MSH-12 are rejected (AR), a missing MSH-10 is an error (AE), each with its own condition."""
    refused = check_header(read_header(raw), Acceptance())
    assert refused is not None
    assert (refused[0], refused[1].condition, str(refused[1].place)) == (outcome, condition, place)


@pytest.mark.parametrize("raw", [order(), order(version="2.5.1^USA"), order(kind="ORM", version="2.2")])
def test_headers_that_are_taken(raw: bytes) -> None:
    """An ORM^O01 is taken, with a version of several components, and without the event where 2.2 had none."""
    assert check_header(read_header(raw), Acceptance()) is None


def test_a_missing_control_id_is_answered_with_its_place() -> None:
    """A message without MSH-10 gets AE with ERR-2 MSH^1^10 and 101."""
    raw = order(control="", version="2.5.1")
    refused = check_header(read_header(raw), Acceptance())
    assert refused is not None
    _, msa, err = answer(raw, refused[0], (refused[1],))
    assert msa == ["MSA", "AE", ""]
    assert err[2].startswith("MSH^1^10")
    assert err[3].startswith("101^")
    assert err[4] == "E"


ENHANCED = "||||"  # MSH-13 and MSH-14 are empty; MSH-15 and MSH-16 follow


@pytest.mark.parametrize(
    ("accept", "application", "accepted", "content", "header", "unavailable"),
    [
        ("", "", "AA", "AE", "AR", "AR"),
        ("AL", "NE", "CA", "CE", "CR", "CE"),
        ("AL", "AL", "CA", "CE", "CR", "CE"),
        ("AL", "", "CA", "CE", "CR", "CE"),
        ("ER", "NE", None, "CE", "CR", "CE"),
        ("SU", "NE", "CA", None, None, None),
        ("NE", "NE", None, None, None, None),
        ("NE", "AL", "AA", "AE", "AR", "AR"),
        ("", "ER", None, "AE", "AR", "AR"),
        ("odd", "", "CA", "CE", "CR", "CE"),
    ],
)
def test_which_code_answers_in_which_mode(
    accept: str,
    application: str,
    accepted: str | None,
    content: str | None,
    header: str | None,
    unavailable: str | None,
) -> None:
    """Original mode needs MSH-15 and MSH-16 empty; otherwise MSH-15 rules, and MSH-16 where MSH-15 wants nothing."""
    read = read_header(order(tail=f"|||{accept}|{application}"))
    codes = [answer_codes(read, outcome) for outcome in Outcome]
    assert codes == [(code,) if code else () for code in (accepted, content, header, unavailable)]


@pytest.mark.parametrize("raw", [order(kind="ACK^O01^ACK"), order(kind="ORR^O02") + b"MSA|AA|1\r", order("MCF")])
def test_an_acknowledgement_is_never_acknowledged(raw: bytes) -> None:
    """No answer goes out to an answer, whatever became of it; two systems would talk for ever."""
    header = read_header(raw)
    assert {answer_codes(header, outcome, mode) for outcome in Outcome for mode in Mode} == {()}
    assert {later_code(header, outcome, mode) for outcome in Outcome for mode in Mode} == {None}


@pytest.mark.parametrize(
    ("accept", "application", "mode", "codes"),
    [
        ("", "", Mode.BOTH, [("AA",), ("AE",), ("AR",), ("AR",)]),
        ("AL", "AL", Mode.BOTH, [("CA", "AA"), ("CA", "AE"), ("CR",), ("CE",)]),
        ("AL", "NE", Mode.BOTH, [("CA",), ("CA",), ("CR",), ("CE",)]),
        ("NE", "AL", Mode.BOTH, [("AA",), ("AE",), (), ()]),
        ("ER", "ER", Mode.BOTH, [(), ("AE",), ("CR",), ("CE",)]),
        ("AL", "NE", Mode.APPLICATION, [("AA",), ("AE",), ("AR",), ("AR",)]),
    ],
)
def test_a_sender_may_want_two_answers_or_always_the_applications(
    accept: str, application: str, mode: Mode, codes: list[tuple[str, ...]]
) -> None:
    """In two phases what was kept is committed first and judged second; peers that cannot do that get the judgement."""
    header = read_header(order(tail=f"|||{accept}|{application}"))
    assert [answer_codes(header, outcome, mode) for outcome in Outcome] == codes


def test_no_failure_of_storage_is_positive() -> None:
    """In no mode is the code for an unavailable system a positive one."""
    assert not {Outcome.UNAVAILABLE.original, Outcome.UNAVAILABLE.commit} & {"AA", "CA"}


@given(st.binary(max_size=120))
def test_anything_can_be_answered(raw: bytes) -> None:
    """A header can be read, and an answer written, for arbitrary bytes; the answer can be framed and is readable."""
    for candidate in (raw, b"MSH" + raw, b"MSH|^~\\&|" + raw):
        header = read_header(candidate)
        payload = acknowledge(header, "AE", now=NOW, control_id="1", issues=[ISSUE])
        assert payload.startswith(b"MSH")
        assert payload.endswith(b"\r")
        assert encode(payload)


def test_python_hl7_reads_our_answer() -> None:
    """A reader written by others finds code and control id in our answer."""
    payload = acknowledge(read_header(order()), "AE", now=NOW, control_id="OURS", issues=[ISSUE])
    theirs = hl7.parse(payload.decode())
    assert str(theirs["MSA.F1"]) == "AE"
    assert str(theirs["MSA.F2"]) == "C-1"


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_our_answers_can_be_read_by_our_client(version: str) -> None:
    """What `acknowledge` writes, `read_acknowledgement` reads: code, control id, condition."""
    payload = acknowledge(read_header(order(version=version)), "AE", now=NOW, control_id="X", issues=[ISSUE])
    read = read_acknowledgement(payload)
    assert read is not None
    assert (read.code, read.control_id, read.condition, read.positive, read.lasting) == ("AE", "C-1", 101, False, True)


@pytest.mark.parametrize(
    ("payload", "positive", "lasting"),
    [
        (b"MSH|^~\\&|A\rMSA|AA|1\r", True, False),
        (b"MSH|^~\\&|A\nMSA|CA|1\n", True, False),
        (b"MSH|^~\\&|A\rMSA|AR|1\r", False, False),
        (b"MSH|^~\\&|A\rMSA|AE|1\rERR|||207^x\r", False, False),
        (b"MSH|^~\\&|A\rMSA|AR|1\rERR|||203^x\r", False, True),
        (b"MSH|^~\\&|A\rMSA|AE|1\rERR|PID^1^3^101\r", False, True),
    ],
)
def test_what_may_be_sent_again(payload: bytes, positive: bool, lasting: bool) -> None:
    """Only a condition about the message itself is lasting; everything else may be sent again."""
    read = read_acknowledgement(payload)
    assert read is not None
    assert (read.positive, read.lasting) == (positive, lasting)


@pytest.mark.parametrize("payload", [b"", b"hello", b"MSH|^~\\&|A\r", b"MSH|^~\\&|A\rMSA|AA\r"])
def test_what_is_no_acknowledgement(payload: bytes) -> None:
    """A payload without MSA-2 acknowledges nothing."""
    assert read_acknowledgement(payload) is None
