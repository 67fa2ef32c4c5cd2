from __future__ import annotations

import hl7
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inlay_hl7.message import Condition, MessageError, Notice, read

MSH = b"MSH|^~\\&|RIS|HOSP|INLAY|HOSP|20250304101500||ORM^O01^ORM_O01|C1|P|2.3.1\r"
ORDER = MSH + b"PID|1||4711^^^HOSP^MR||Doe^Jane^Q||19700102|F\rORC|NW|P1|F1\rOBR|1|P1|F1|71046^Chest^C4\r"


def msh(charset: str = "") -> bytes:
    """MSH with a character set in MSH-18."""
    return MSH[:-1] + b"||||||" + charset.encode() + b"\r"


def failure(raw: bytes, fallback: str | None = None) -> MessageError:
    """The error of reading these bytes."""
    with pytest.raises(MessageError) as caught:
        read(raw, fallback)
    return caught.value


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_every_kind_of_segment_end_is_read_the_same(end: bytes, last: bool) -> None:
    """CR, LF and CRLF give the same segments, with and without one after the last segment."""
    raw = ORDER.replace(b"\r", end)
    message = read(raw if last else raw[: -len(end)])
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "ORC", "OBR"]
    assert message.segments[1].text(5, 2) == "Jane"
    assert (Notice.LF_SEGMENT_END in message.notices) == (end != b"\r")


def test_a_line_feed_inside_a_field_is_text() -> None:
    """A raw LF within a field of a CR message is no segment end, so that the rest of the text is not lost."""
    message = read(MSH + b"NTE|1||first line\nsecond line\rORC|NW\r")
    assert message.require("NTE").text(3) == "first line\nsecond line"
    assert Notice.LF_IN_FIELD in message.notices


def test_fields_components_and_repetitions_are_found() -> None:
    """Values come by field, component, subcomponent and repetition, counted as the standard counts them."""
    segment = read(MSH + b"PID|1||1^^^A&1.2&ISO~2^^^B||x\r").require("PID")
    assert segment.text(3, 1) == "1"
    assert segment.text(3, 4) == "A"
    assert segment.text(3, 4, 2) == "1.2"
    assert segment.text(3, 4, repetition=2) == "B"
    assert segment.repetitions(3) == ["1^^^A&1.2&ISO", "2^^^B"]
    assert segment.text(3, 9) == segment.text(40) == segment.text(3, 1, 3) == ""


def test_msh_counts_its_separator_as_field_one() -> None:
    """MSH-1 and MSH-2 are the delimiters, and MSH-10 is the control id."""
    header = read(MSH).header
    assert (header.text(1), header.text(2), header.text(10), header.text(9, 2)) == ("|", "^~\\&", "C1", "O01")


def test_other_delimiters_are_taken_from_the_header() -> None:
    """A sender may choose its delimiters; all of them are read from MSH-1 and MSH-2."""
    message = read(b"MSH$%*!@$RIS$H$$$2025$$ORM%O01$C1$P$2.3.1\rPID$1$$47%%%H*48$$Doe%J!S!ane\r")
    assert message.require("PID").text(3, 4) == "H"
    assert message.require("PID").text(5, 2) == "J%ane"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\F\b", "a|b"),
        (r"a\S\b", "a^b"),
        (r"a\T\b", "a&b"),
        (r"a\R\b", "a~b"),
        (r"a\E\b", "a\\b"),
        (r"a\.br\b", "a\nb"),
        (r"a\.sp2\b", "a\n\nb"),
        (r"\H\bold\N\ text", "bold text"),
        (r"a\X41\b", "aAb"),
        (r"a\Zunknown\b", r"a\Zunknown\b"),
        ("C:\\temp", "C:\\temp"),
        (r"5\F", r"5\F"),
        (r"\\F\x", r"\|x"),
        (r"\E\F\E\ ", "\\F\\ "),
    ],
)
def test_escapes_are_undone(written: str, meant: str) -> None:
    """Every escape of the standard gives its text; what is none stays as it stands."""
    assert read(MSH + b"NTE|1||" + written.encode() + b"\r").require("NTE").text(3) == meant


def test_the_fifth_encoding_character_is_known() -> None:
    r"""From 2.7 on MSH-2 may have five characters, and `\P\` stands for the fifth."""
    message = read(MSH.replace(b"^~\\&", b"^~\\&#") + rb"NTE|1||room \P\4" + b"\r")
    assert message.delimiters.truncation == "#"
    assert message.require("NTE").text(3) == "room #4"


def test_text_that_was_not_escaped_is_kept_whole() -> None:
    """`free_text` does not cut at an `&` or `^` that a person typed."""
    segment = read(MSH + b"OBR|1||||||||||||cough & fever ^ 3 days\r").require("OBR")
    assert segment.free_text(13) == "cough & fever ^ 3 days"
    assert segment.text(13) == "cough "


def test_deletion_is_told_from_absence() -> None:
    """`""` deletes a value, an empty field leaves it unchanged; neither has text."""
    segment = read(MSH + b'PID|1||||""||^""\r').require("PID")
    assert segment.deletes(5)
    assert segment.deletes(7, 2)
    assert not segment.deletes(6)
    assert segment.text(5) == segment.text(7, 2) == segment.free_text(5) == ""


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("", "ascii", "Doe"),
        ("ASCII", "ascii", "Doe"),
        ("8859/1", "iso8859-1", "Müller"),
        ("8859/15", "iso8859-15", "Œuvre€"),
        ("8859/2", "iso8859-2", "Łódź"),
        ("8859/5", "iso8859-5", "Иванов"),
        ("UNICODE UTF-8", "utf-8", "Łukasz 李"),
        ("GB 18030-2000", "gb18030", "李小龙"),
        ("BIG-5", "big5", "功許"),  # their second bytes are the backslash, which must not escape anything
        ("KS X 1001", "euc_kr", "김희중"),
        ("~ISO IR87", "iso2022_jp", "山田太郎"),
        ("ASCII~ISO IR87", "iso2022_jp", "山田太郎"),
        ("utf-8", "utf-8", "Jürgen"),
    ],
)
def test_character_sets_of_table_0211(declared: str, codec: str, name: str) -> None:
    """Names come back right in each character set, whatever bytes its letters share with the delimiters."""
    raw = msh(declared) + f"PID|1||||{name}^Given\rPV1|1\r".encode(codec)
    message = read(raw)
    assert message.require("PID").text(5, 1) == name
    assert message.require("PID").text(5, 2) == "Given"
    assert message.first("PV1") is not None


def test_an_undeclared_character_set_is_refused_without_a_fallback() -> None:
    """An empty MSH-18 means ASCII; other bytes are an error with segment, field and offset, and no replacement."""
    raw = MSH + "PID|1||||Müller\r".encode("cp1252")
    error = failure(raw)
    assert error.condition is Condition.DATA_TYPE
    assert (error.place.segment, error.place.field) == ("PID", 5)
    assert error.place.offset == raw.index(b"\xfc")


def test_the_fallback_of_the_sender_is_used_and_said() -> None:
    """A configured fallback reads an undeclared character set; a declared one is not overruled by it."""
    message = read(MSH + "PID|1||||Müller\r".encode("cp1252"), fallback="cp1252")
    assert message.require("PID").text(5) == "Müller"
    assert Notice.CHARSET_FALLBACK in message.notices
    declared = read(msh("UNICODE UTF-8") + "PID|1||||Müller\r".encode(), fallback="cp1252")
    assert declared.require("PID").text(5) == "Müller"


def test_undeclared_utf_8_is_not_read_with_another_fallback() -> None:
    """A fallback of one byte per letter would read UTF-8 and get every name wrong; the message is refused instead."""
    raw = MSH + "PID|1||||Müller\r".encode()
    error = failure(raw, fallback="cp1252")
    assert (error.condition, str(error.place)) == (Condition.DATA_TYPE, "MSH-18")
    assert read(raw, fallback="utf-8").require("PID").text(5) == "Müller"


def test_windows_bytes_under_8859_1_are_read_as_windows_1252() -> None:
    """Senders that declare 8859/1 and send bytes 0x80 to 0x9F mean windows-1252, not invisible controls."""
    assert read(msh("8859/1") + b"PID|1||||O\x92Neill\r").require("PID").text(5) == "O’Neill"


def test_wrong_bytes_are_never_replaced() -> None:
    """Bytes that are not in the declared character set refuse the message with 102."""
    error = failure(msh("UNICODE UTF-8") + b"PID|1||||M\xfcller\r")
    assert error.condition is Condition.DATA_TYPE


@pytest.mark.parametrize("name", ["UNICODE UTF-16", "UNICODE UTF-32", "CNS 11643-1992", "KLINGON"])
def test_unsupported_character_sets_are_named_at_msh_18(name: str) -> None:
    """A character set that we cannot read is refused with 103 at MSH-18."""
    error = failure(msh(name))
    assert (error.condition, str(error.place)) == (Condition.TABLE_VALUE, "MSH-18")


@pytest.mark.parametrize(
    ("raw", "condition", "segment"),
    [
        (b"", Condition.SEQUENCE, "MSH"),
        (b"hello", Condition.SEQUENCE, "MSH"),
        (b"MSH", Condition.DATA_TYPE, "MSH"),
        (b"MSH|", Condition.DATA_TYPE, "MSH"),
        (b"MSH|||RIS\r", Condition.DATA_TYPE, "MSH"),
        (b"MSH|^^\\&|RIS\r", Condition.DATA_TYPE, "MSH"),
        (b"MSHA^~\\&A\r", Condition.DATA_TYPE, "MSH"),
        (MSH + b"pid|1\r", Condition.SEQUENCE, "segment"),
        (MSH + b"PIDX1\r", Condition.SEQUENCE, "segment"),
        (MSH + b"PID|1|\x00\r", Condition.DATA_TYPE, "PID"),
        (MSH + b"PID|1|\x1c\r", Condition.DATA_TYPE, "PID"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(raw: bytes, condition: Condition, segment: str) -> None:
    """Broken messages give a condition of table 0357 and the segment, never a crash."""
    error = failure(raw)
    assert (error.condition, error.place.segment) == (condition, segment)


@pytest.mark.parametrize("escaped", [rb"\X00\ ", rb"\XEDA080\ ", rb"\XFF\ "])
def test_unstorable_text_behind_an_escape_is_refused(escaped: bytes) -> None:
    r"""NUL, a lone surrogate and bytes that are no text are refused behind `\X..\` too, at their field."""
    segment = read(msh("UNICODE UTF-8") + b"PID|1||||" + escaped + b"\r").require("PID")
    with pytest.raises(MessageError) as caught:
        segment.text(5)
    assert caught.value.condition is Condition.DATA_TYPE
    assert str(caught.value.place).startswith("PID-5.1")


def test_errors_hold_no_value() -> None:
    """The text of an error names the place and never repeats what stood there."""
    error = failure(MSH + "PID|1||||SECRETNAME Müller\r".encode("cp1252"))
    assert "SECRET" not in str(error)
    segment = read(ORDER).require("PID")
    with pytest.raises(MessageError) as caught:
        segment.require(2)
    assert caught.value.condition is Condition.REQUIRED_MISSING
    assert str(caught.value).startswith("PID-2.1 (offset ")


def test_the_offset_of_a_field_counts_bytes() -> None:
    """The offset in an error points at the field in the raw bytes, beyond letters of two bytes."""
    raw = msh("UNICODE UTF-8") + "PID|1||||Müller||BAD\r".encode()
    assert read(raw).require("PID").place(7).offset == raw.index(b"BAD")


def test_groups_hold_every_order() -> None:
    """Segments are cut into one group per ORC; what precedes the first belongs to none."""
    groups = read(ORDER + b"ORC|NW|P2\rOBR|2\rZDS|1\r").groups("ORC")
    assert [[segment.name for segment in group] for group in groups] == [["ORC", "OBR"], ["ORC", "OBR", "ZDS"]]
    assert groups[1][0].occurrence == 2


@given(st.binary(max_size=300))
@example(b"MSH|^~\\&|\r\n\n\rPID")
def test_arbitrary_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever comes is a message or a MessageError; nothing else escapes."""
    for candidate in (raw, MSH + raw, msh("~ISO IR87") + b"PID|" + raw):
        try:
            message = read(candidate)
        except MessageError:
            continue
        for segment in message.segments:
            for field in range(1, 6):
                try:
                    segment.text(field)
                    segment.free_text(field)
                except MessageError as error:
                    assert error.place.field == field  # noqa: PT017


FIELD = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12).map(lambda s: s.replace("\\", ""))


@given(st.lists(FIELD, min_size=1, max_size=6))
def test_python_hl7_reads_the_same_fields(fields: list[str]) -> None:
    """python-hl7, a reader written by others, finds the same components as this one."""
    raw = MSH + ("ZZZ|" + "|".join([*fields, "end"]) + "\r").encode()
    theirs = hl7.parse(raw.decode())[1]
    ours = read(raw).require("ZZZ")
    for number in range(1, len(fields) + 1):
        assert ours.raw(number) == str(theirs[number])


def test_a_message_of_some_megabytes_is_read() -> None:
    """Nothing of it is lost; where time grew with the square of its length, this would not end."""
    raw = MSH + b"OBX|1|TX|a||" + b"x^y&z~\\T\\" * 200_000 + b"\r" + b"NTE|1\r" * 50_000
    message = read(raw)
    assert len(message.require("OBX").free_text(5)) >= 200_000
    assert message.require("OBX").text(5, 2).startswith("y")
