from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trustme

from inlay_hl7.client import MllpClient, NoAnswer
from inlay_hl7.framing import encode
from inlay_hl7.server import Limits, MllpServer
from inlay_testkit.mllp import SECONDS, Loop, Wire, serving

MESSAGE = b"MSH|^~\\&|A|B|C|D|2026||ORM^O01|ID1|P|2.3.1\r"


def ack(control_id: bytes = b"ID1") -> bytes:
    """A positive answer."""
    return b"MSH|^~\\&|C|D|A|B|2026||ACK|X|P|2.3.1\rMSA|AA|" + control_id + b"\r"


class Echo:
    """A handler that answers with what it got, and remembers what the server told."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.taken = threading.Event()
        self.server = MllpServer(self.handle, limits=limits, observe=self.observe)

    async def handle(self, payload: bytes, _peer: str) -> bytes:
        """Answer, when the gate is open."""
        self.taken.set()
        await asyncio.get_running_loop().run_in_executor(None, self.gate.wait, SECONDS)
        if payload == b"crash":
            raise ValueError
        return b"" if payload == b"silence" else payload

    def observe(self, event: str, _peer: str, detail: str) -> None:
        """Remember."""
        self.events.append((event, detail))

    def saw(self, event: str) -> bool:
        """Whether that was told: it may come a little after the peer notices."""
        return soon(lambda: any(event == seen for seen, _ in self.events))


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it holds, now or later."""
    deadline = time.monotonic() + SECONDS
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds


@contextmanager
def echo(limits: Limits | None = None) -> Iterator[tuple[int, Echo]]:
    """An echoing server."""
    handler = Echo(limits)
    with serving(handler.server) as port:
        yield port, handler


def test_a_frame_may_come_byte_by_byte() -> None:
    """Every byte in a packet of its own gives the one message."""
    with echo() as (port, _), Wire(port) as wire:
        for byte in encode(b"hello"):
            wire.send(bytes([byte]))
        assert wire.answer() == b"hello"


def test_two_frames_in_one_write_get_two_answers_in_order() -> None:
    """A sender that does not wait gets one answer per message, in the order of the messages."""
    with echo() as (port, _), Wire(port) as wire:
        wire.send(encode(b"one") + encode(b"two"))
        assert (wire.answer(), wire.answer()) == (b"one", b"two")


def test_an_answer_comes_in_one_write() -> None:
    """A client that reads once gets the whole answer, also a large one's beginning with its frame start."""
    with echo() as (port, _), Wire(port) as wire:
        wire.send(encode(b"x" * 2000))
        assert wire.socket.recv(65536) == encode(b"x" * 2000)


def test_a_connection_serves_many_messages_and_may_be_idle() -> None:
    """Idle connections stay open for longer than a frame may stall, and then serve on."""
    with echo(Limits(stall=0.1)) as (port, _), Wire(port) as wire:
        for number in range(20):
            assert wire.ask(str(number).encode()) == str(number).encode()
        time.sleep(0.3)
        assert wire.ask(b"after a rest") == b"after a rest"


def test_keep_alives_and_silent_answers_send_nothing() -> None:
    """An empty frame and a message without answer leave the connection quiet and open."""
    with echo() as (port, _), Wire(port) as wire:
        wire.send(encode(b"") + encode(b"silence") + encode(b"third"))
        assert wire.answer() == b"third"


def test_a_client_that_omits_the_last_cr_is_answered_soon() -> None:
    """FS without CR is taken as the end after a moment; the CR that comes late is no error."""
    with echo(Limits(missing_cr=0.05)) as (port, handler), Wire(port) as wire:
        wire.send(encode(b"first")[:-1])
        assert wire.answer() == b"first"
        wire.send(b"\r" + encode(b"second"))
        assert wire.answer() == b"second"
        assert ("notice", "missing-cr") in handler.events


def test_a_half_closed_client_still_gets_its_answer() -> None:
    """A client that ends its side after the message can read the answer."""
    with echo() as (port, _), Wire(port) as wire:
        wire.send(encode(b"last words")[:-1])
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer() == b"last words"
        assert wire.is_closed()


def test_an_oversize_frame_closes_the_connection() -> None:
    """A frame over the limit is cut off as soon as it is over it; what came before it was answered."""
    with echo(Limits(max_payload=1000)) as (port, handler), Wire(port) as wire:
        wire.send(encode(b"fits") + b"\x0b" + b"x" * 2000)
        assert wire.answer() == b"fits"
        assert wire.is_closed()
        assert handler.saw("refused")


def test_a_peer_that_speaks_something_else_is_sent_away() -> None:
    """A browser gets its connection closed and no answer."""
    with echo(Limits(max_noise=64)) as (port, handler), Wire(port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: inlay\r\n" + b"X: y\r\n" * 20)
        assert wire.is_closed()
        assert handler.saw("refused")


def test_a_stalled_frame_closes_the_connection() -> None:
    """A frame that was begun and stands still is given up after its time, and nothing is answered."""
    with echo(Limits(stall=0.1)) as (port, handler), Wire(port) as wire:
        wire.send(b"\x0bMSH|half of a mess")
        assert wire.is_closed()
        assert handler.saw("stalled")
        assert handler.saw("abandoned")


def test_vt_inside_of_a_payload_is_said_and_the_new_frame_taken() -> None:
    """What came before a second VT is reported as lost; the message that follows is answered."""
    with echo() as (port, handler), Wire(port) as wire:
        wire.send(b"\x0blost" + encode(b"kept"))
        assert wire.answer() == b"kept"
        assert ("abandoned", "4 bytes") in handler.events


def test_connections_over_the_limit_are_closed_at_once() -> None:
    """The limit of connections holds, and a place that becomes free can be taken."""
    with echo(Limits(connections=2)) as (port, handler):
        with Wire(port) as first, Wire(port) as second:
            assert (first.ask(b"a"), second.ask(b"b")) == (b"a", b"b")
            with Wire(port) as third:
                assert third.is_closed()
            assert handler.saw("connection-refused")
        assert handler.saw("disconnected")
        assert soon(lambda: not handler.server.connections)
        with Wire(port) as next_one:
            assert next_one.ask(b"c") == b"c"


def test_a_defect_in_the_handler_gives_no_answer_and_the_server_lives() -> None:
    """A handler that raises costs its connection, without an answer that could be false."""
    with echo() as (port, handler):
        with Wire(port) as wire:
            wire.send(encode(b"crash"))
            assert wire.is_closed()
        assert ("handler-failed", "ValueError") in handler.events
        with Wire(port) as wire:
            assert wire.ask(b"next") == b"next"


def test_a_slow_handler_slows_the_sender_down() -> None:
    """While a message is taken nothing more is read from its sender: the bytes wait in the sender's own buffer."""
    with echo() as (port, handler), Wire(port, 0.5) as wire:
        handler.gate.clear()
        wire.send(encode(b"first"))
        assert handler.taken.wait(SECONDS)
        with pytest.raises(TimeoutError):
            wire.send(encode(b"x" * 100_000) * 1000)  # 100 MB, far beyond what kernel and server may hold
        handler.gate.set()
        wire.socket.settimeout(SECONDS)
        assert wire.answer() == b"first"


def test_stopping_finishes_what_was_begun() -> None:
    """At the end idle connections are closed at once, and a message that is being taken gets its answer first."""
    handler = Echo()
    with Loop() as running:
        asyncio.run_coroutine_threadsafe(handler.server.start("127.0.0.1", 0), running.loop).result(SECONDS)
        with Wire(handler.server.port) as idle, Wire(handler.server.port) as busy:
            assert idle.ask(b"hello") == b"hello"
            handler.taken.clear()
            handler.gate.clear()
            busy.send(encode(b"begun"))
            assert handler.taken.wait(SECONDS)
            stopping = asyncio.run_coroutine_threadsafe(handler.server.stop(5), running.loop)
            assert idle.is_closed()
            handler.gate.set()
            assert busy.answer() == b"begun"
            assert busy.is_closed()
            stopping.result(SECONDS)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """For a server that wants certificates of its clients: its own, that of a known client, that of a stranger."""
    authority, other = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    clients = []
    for issuer in (authority, other):
        client = ssl.create_default_context()
        authority.configure_trust(client)
        issuer.issue_cert("ris.example").configure_cert(client)
        clients.append(client)
    return server, clients[0], clients[1]


def test_tls_with_mutual_authentication() -> None:
    """Over TLS a client with a trusted certificate is served; a stranger and plain text get no answer."""

    async def answer(_payload: bytes, _peer: str) -> bytes:
        return ack()

    server_side, known, stranger = contexts()
    with serving(MllpServer(answer), server_side) as port:
        with MllpClient("127.0.0.1", port, tls=known) as client:
            assert client.send(MESSAGE).positive
            assert client.send(MESSAGE).positive
        with MllpClient("127.0.0.1", port, tls=stranger) as client, pytest.raises(NoAnswer):
            client.send(MESSAGE)
        with MllpClient("127.0.0.1", port, timeout=1) as client, pytest.raises(NoAnswer):
            client.send(MESSAGE)


class Peer:
    """A receiver for our client that says what the test wants, on as many connections as come."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            while self.answers and connection.recv(65536):
                connection.sendall(self.answers.pop(0))
            if not self.answers:
                connection.recv(1)

    def close(self) -> None:
        """Stop accepting."""
        self._listener.close()


@contextmanager
def peer(*answers: bytes) -> Iterator[Peer]:
    """A peer that answers so."""
    there = Peer(*answers)
    try:
        yield there
    finally:
        there.close()


def test_the_client_keeps_its_connection() -> None:
    """Several messages go over one connection."""
    with peer(encode(ack()), encode(ack())) as there, MllpClient("127.0.0.1", there.port) as client:
        assert client.send(MESSAGE).code == "AA"
        assert client.send(MESSAGE).code == "AA"
        assert there.connections == 1


def test_an_answer_to_another_message_does_not_count() -> None:
    """Answers with another MSA-2, keep-alives and nonsense are passed over; the right one after them counts."""
    answers = encode(ack(b"OTHER")) + encode(b"") + encode(b"nonsense") + encode(ack())
    with peer(answers) as there, MllpClient("127.0.0.1", there.port) as client:
        assert client.send(MESSAGE).control_id == "ID1"


def test_a_late_answer_never_meets_the_next_message() -> None:
    """After a time-out the socket is closed, so that the late answer dies with it and the next message has its own."""
    with peer(b"", encode(ack())) as there, MllpClient("127.0.0.1", there.port, timeout=0.2) as client:
        with pytest.raises(NoAnswer, match="timeout"):
            client.send(MESSAGE)
        client._timeout = SECONDS
        assert client.send(MESSAGE).positive
        assert there.connections == 2


def test_an_unasked_answer_between_messages_is_thrown_away() -> None:
    """Bytes that came after the last answer belong to nobody: the client starts afresh instead of matching them."""
    with peer(encode(ack()) + encode(ack()), encode(ack())) as there, MllpClient("127.0.0.1", there.port) as client:
        assert client.send(MESSAGE).positive
        time.sleep(0.05)
        assert client.send(MESSAGE).positive
        assert there.connections <= 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n" * 60, encode(ack())[:20]])
def test_a_peer_that_answers_something_else_gives_no_answer(answer: bytes) -> None:
    """Noise and half an answer are no acknowledgement."""
    with (
        peer(answer) as there,
        MllpClient("127.0.0.1", there.port, timeout=0.3) as client,
        pytest.raises(NoAnswer),
    ):
        client.send(MESSAGE)


def test_a_closed_port_gives_no_answer() -> None:
    """Where nobody listens the client says so at once."""
    with peer() as there:
        port = there.port
    with MllpClient("127.0.0.1", port) as client, pytest.raises(NoAnswer, match=r"Connection(Refused|Reset)"):
        client.send(MESSAGE)


def test_a_message_without_control_id_is_not_sent() -> None:
    """Nobody could tell which answer belongs to it."""
    with MllpClient("127.0.0.1", 9) as client, pytest.raises(ValueError, match="MSH-10"):
        client.send(MESSAGE.replace(b"ID1", b""))
