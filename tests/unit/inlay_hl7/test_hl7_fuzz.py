from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay_gateway.reception import Reception
from inlay_hl7.ack import MESSAGES, VERSIONS, Outcome, read_acknowledgement
from inlay_hl7.framing import CR, FS, VT, Abandoned, Frame, FrameDecoder, Refused, encode_all
from inlay_hl7.mapping.explaining import explain
from inlay_hl7.senders import ConfigurationError, Sender, Senders, read_senders
from inlay_hl7.server import Limits, MllpServer
from inlay_testkit.core import StillClock, counting_ids
from inlay_testkit.memory import Memory
from inlay_testkit.mllp import Wire, order_message, serving

CORPUS = Path(__file__).parents[2] / "data" / "hl7"
MESSAGES_OF_THE_CORPUS = [path.read_bytes().replace(b"\n", b"\r") for path in sorted(CORPUS.glob("*.hl7"))]
CONFIGURATIONS = [
    tomllib.loads(path.read_text(encoding="utf-8"))["senders"]
    for path in sorted(CORPUS.glob("*.toml"))
    if "senders =" in path.read_text(encoding="utf-8")
]

PIECES = st.sampled_from(
    [b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b'""', b"\\X", b"\\XFF\\", b"\x00", b"\xff", b"MSH|"]
)
CHANGES = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 12), st.binary(max_size=5) | PIECES), max_size=6)
FIELD = st.text(st.sampled_from('A1^~\\&.X"-/ é'), max_size=12) | st.sampled_from(
    ["NW", "CA", "SC", "20260302", "1.2.3"]
)
SEGMENT = st.builds(
    lambda name, fields: "|".join([name, *fields]),
    st.sampled_from(["PID", "ORC", "OBR", "IPC", "TQ1", "ZDS", "OBX", "MRG", "NTE", "PV1", "ZZZ"]),
    st.lists(FIELD, max_size=28),
)
HEADER = st.builds(
    lambda kind, version, accept, application, charset: (
        f"MSH|^~\\&|RIS|HOSP|I|R|20260302080000||{kind[0]}^{kind[1]}|C1|P|{version}|||{accept}|{application}||{charset}"
    ),
    st.sampled_from(sorted(MESSAGES)),
    st.sampled_from(VERSIONS),
    st.sampled_from(["", "AL", "NE", "ER", "SU", "??"]),
    st.sampled_from(["", "AL", "NE"]),
    st.sampled_from(["", "UNICODE UTF-8", "8859/1", "ASCII", "ISO IR87"]),
)


def changed(message: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """The message with bytes cut out and others put in."""
    for place, length, replacement in changes:
        message = message[:place] + replacement + message[place + length :]
    return message


def check_taken(payload: bytes) -> None:
    """A message is answered or needs no answer, is kept whatever it is, and is never a defect of ours."""
    memory = Memory()
    reception = Reception(memory, StillClock(), counting_ids(), Senders(Sender(charset="cp1252")))
    answered = reception.take(payload, "peer")
    assert answered.outcome is not Outcome.UNAVAILABLE, answered.code
    (message,) = memory.world.messages.values()
    assert message.envelope.raw == payload
    if answered.payload:
        assert encode_all(answered.payload)
        acknowledgement = read_acknowledgement(answered.payload)
        assert acknowledgement is not None
        assert acknowledgement.positive is (answered.outcome is Outcome.ACCEPTED)
    assert explain(payload, Senders(Sender(charset="cp1252"))).answer


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MESSAGES_OF_THE_CORPUS), CHANGES)
def test_a_mangled_message_of_any_kind_is_answered_and_kept(
    message: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    """Every message of the corpus, with arbitrary bytes cut out and put in."""
    check_taken(changed(message, changes))


@settings(max_examples=150, deadline=None)
@given(HEADER, st.lists(SEGMENT, max_size=8), st.sampled_from(["utf-8", "iso8859-1"]))
def test_any_sequence_of_segments_is_answered_and_kept(header: str, segments: list[str], encoding: str) -> None:
    """Segments in any order with fields of any shape, under every type, version and mode."""
    check_taken("\r".join([header, *segments, ""]).encode(encoding))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=20) | st.sampled_from([VT, FS, CR, b"\n", FS + CR]), max_size=20), st.data())
def test_a_stream_gives_the_same_frames_however_it_is_cut(pieces: list[bytes], data: st.DataObject) -> None:
    """The events of a stream depend on its bytes alone, and after a refusal nothing comes."""
    stream = b"".join(pieces)
    whole = FrameDecoder(100, 50)
    expected = [*whole.feed(stream), *whole.end()]
    cut = FrameDecoder(100, 50)
    events: list[Frame | Abandoned | Refused] = []
    at = 0
    while at < len(stream):
        length = data.draw(st.integers(1, 7))
        events += cut.feed(stream[at : at + length])
        at += length
    assert [*events, *cut.end()] == expected
    assert all(not isinstance(event, Refused) for event in expected[:-1])


@given(st.binary(max_size=200))
def test_what_a_receiver_answers_is_read_without_a_crash(payload: bytes) -> None:
    """Any bytes are an acknowledgement or none."""
    found = read_acknowledgement(payload)
    assert found is None or isinstance(found.code, str)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.sampled_from(CONFIGURATIONS), CHANGES)
def test_a_mangled_configuration_is_read_or_refused(text: str, changes: list[tuple[int, int, bytes]]) -> None:
    """A configuration with arbitrary changes holds, or is refused with its key: nothing else comes out."""
    mangled = changed(text.encode(), changes).decode("latin-1")
    refused: ConfigurationError | None = None
    try:
        read_senders(mangled, Sender())
    except ConfigurationError as error:
        refused = error
    assert refused is None or (refused.key and refused.remedy)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=30) | st.sampled_from([VT, FS, CR]), max_size=6), min_size=1, max_size=3))
def test_the_listener_lives_through_any_stream(streams: list[list[bytes]]) -> None:
    """Whatever came on other connections, an order on a new one is answered."""
    memory = Memory()
    reception = Reception(memory, StillClock(), counting_ids(), Senders())

    async def handle(payload: bytes, peer: str) -> bytes:
        return reception.take(payload, peer).payload

    with serving(MllpServer(handle, limits=Limits(max_payload=4096, stall=0.2))) as port:
        for stream in streams:
            with Wire(port) as wire:
                wire.send(b"".join(stream))
        with Wire(port) as wire:
            assert b"MSA|AA|C1" in wire.ask(order_message("1"))
