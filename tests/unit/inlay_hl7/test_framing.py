from __future__ import annotations

import doctest
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_hl7 import framing
from inlay_hl7.framing import Abandoned, Event, Frame, FrameDecoder, Notice, Refused, encode

ANY_BUT_DELIMITERS = st.binary(max_size=200).map(lambda data: data.replace(b"\x0b", b"").replace(b"\x1c", b""))
# Rich in the bytes that matter, so that every odd sequence of them comes up.
TRICKY = st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"\x00", b" ", b"M", b"SH|"]), max_size=60).map(
    b"".join
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def feed_all(decoder: FrameDecoder, chunks: list[bytes]) -> list[Event]:
    """All events of a stream that ends after these reads."""
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.end()


@given(st.lists(ANY_BUT_DELIMITERS, max_size=5), st.lists(st.integers(min_value=0), max_size=20))
def test_payloads_come_back_however_the_stream_is_cut(payloads: list[bytes], places: list[int]) -> None:
    """Framed payloads come back byte for byte, in order, for every way of cutting the stream into reads."""
    stream = b"".join(encode(payload) for payload in payloads)
    events = feed_all(FrameDecoder(), cut(stream, places))
    assert [event.payload for event in events if isinstance(event, Frame)] == payloads
    assert all(isinstance(event, Frame) for event in events)


@given(TRICKY, st.lists(st.integers(min_value=0), max_size=40), st.integers(5, 40), st.integers(1, 20))
def test_cutting_never_changes_the_result(stream: bytes, places: list[int], payload: int, noise: int) -> None:
    """Any bytes at all give the same events in one read, in arbitrary reads and byte by byte, limits included."""
    whole = feed_all(FrameDecoder(payload, noise), [stream])
    assert feed_all(FrameDecoder(payload, noise), cut(stream, places)) == whole
    assert feed_all(FrameDecoder(payload, noise), [bytes([byte]) for byte in stream]) == whole


@given(TRICKY, st.integers(1, 30))
def test_memory_is_bounded(stream: bytes, limit: int) -> None:
    """No event ever carries more than the allowed payload, and nothing follows a refusal."""
    events = feed_all(FrameDecoder(max_payload=limit), [stream])
    assert all(len(event.payload) <= limit for event in events if not isinstance(event, Refused))
    assert not any(isinstance(event, Refused) for event in events[:-1])


def test_two_frames_in_one_read() -> None:
    """Two frames that arrive in one read are two frames."""
    assert FrameDecoder().feed(b"\x0bone\x1c\r\x0btwo\x1c\r") == [Frame(b"one"), Frame(b"two")]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\x0bM\x1c\n", [Frame(b"M", (Notice.LF_FOR_CR,))]),
        (b"\x0bM\x1c\x0bN\x1c\r", [Frame(b"M", (Notice.MISSING_CR,)), Frame(b"N")]),
        (b" \x00\r\n\x0bM\x1c\r", [Frame(b"M", (Notice.BLANKS_BEFORE_START,))]),
        (b"GET /\x0bM\x1c\r", [Frame(b"M", (Notice.NOISE_BEFORE_START,))]),
        (b"\x0b\x1c\r", [Frame(b"", (Notice.EMPTY_PAYLOAD,))]),
        (b"\x0bM\x1cN\x1c\r", [Frame(b"M\x1cN", (Notice.FS_IN_PAYLOAD,))]),
        (b"\x0bM\x1c\x1c\r", [Frame(b"M\x1c", (Notice.FS_IN_PAYLOAD,))]),
    ],
)
def test_deviations_are_noticed_and_tolerated(stream: bytes, expected: list[Event]) -> None:
    """Each known deviation of real senders keeps the message and is named on its frame."""
    assert FrameDecoder().feed(stream) == expected


def test_vt_inside_a_payload_abandons_what_came_before() -> None:
    """A second VT means that the earlier part is lost: it is told apart from a message, and the later one is whole."""
    assert FrameDecoder().feed(b"\x0bMSH|lo\x0bMSH|new\x1c\r") == [Abandoned(b"MSH|lo"), Frame(b"MSH|new")]


def test_a_truncated_frame_is_no_frame() -> None:
    """A frame that the connection cut short is abandoned, never handed on as a message."""
    decoder = FrameDecoder()
    assert decoder.feed(b"\x0bMSH|half") == []
    assert decoder.begun
    assert decoder.end() == [Abandoned(b"MSH|half")]
    assert not decoder.begun


def test_a_frame_that_lacks_only_its_cr_is_whole_at_the_end() -> None:
    """A client that never sends the CR after FS gets its message read once it waits or leaves."""
    decoder = FrameDecoder()
    assert decoder.feed(b"\x0bM\x1c") == []
    assert decoder.ended_but_for_cr
    assert decoder.end() == [Frame(b"M", (Notice.MISSING_CR,))]


def test_an_oversize_frame_is_refused_after_the_whole_ones_before_it() -> None:
    """Frames before an oversize one are not lost with it, and the stream is not followed any further."""
    decoder = FrameDecoder(max_payload=4)
    events = decoder.feed(b"\x0bgood\x1c\r\x0btoo long\x1c\r\x0bnext\x1c\r")
    assert events[0] == Frame(b"good")
    assert isinstance(events[1], Refused)
    assert len(events) == 2
    assert decoder.feed(b"\x0bnext\x1c\r") == []


def test_a_peer_that_does_not_speak_mllp_is_refused() -> None:
    """Bytes outside of frames are bounded, so that a browser or a scanner is sent away."""
    assert isinstance(FrameDecoder(max_noise=10).feed(b"GET / HTTP/1.1\r\n")[-1], Refused)


@pytest.mark.parametrize("payload", [b"a\x0bb", b"a\x1cb"])
def test_a_payload_that_would_break_the_framing_is_not_sent(payload: bytes) -> None:
    """VT and FS cannot be framed; the error tells the offset."""
    with pytest.raises(ValueError, match="offset 1"):
        encode(payload)


def test_the_examples_in_the_docstrings_hold() -> None:
    """The documentation of the module runs as written."""
    assert doctest.testmod(framing).failed == 0
    assert doctest.testmod(framing).attempted > 0
