from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hl7
import pytest
from hl7.client import MLLPClient

from inlay_core.application.ports import MessageOutcome
from inlay_core.bootstrap import Services, bootstrap, upgrade_database
from inlay_core.settings import Settings
from inlay_hl7.ack import read_acknowledgement
from inlay_hl7.framing import encode
from inlay_hl7.server import Limits
from inlay_testkit.mllp import SECONDS, Wire, listening, order_message


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Services on a fresh SQLite database."""
    yield from opened(Settings(home=tmp_path))


def opened(settings: Settings) -> Iterator[Services]:
    """Services on a database with the newest schema."""
    upgrade_database(settings)
    services = bootstrap(settings)
    yield services
    services.close()


def code_of(answer: bytes) -> tuple[str, str]:
    """MSA-1 and MSA-2."""
    read_back = read_acknowledgement(answer)
    assert read_back is not None
    return read_back.code, read_back.control_id


def count(services: Services, number: str) -> int:
    """How many orders have that accession number."""
    with services.reader() as uow:
        return len(uow.orders.by_accession(None, f"A{number}"))


def outcome(services: Services, raw: bytes, control_id: str) -> MessageOutcome | None:
    """What became of a message, if it was stored."""
    from inlay_core.application.intake import digest
    from inlay_core.application.ports import Envelope

    key = digest(Envelope(raw, "RIS", "HOSP", control_id))
    with services.reader() as uow:
        stored = uow.messages.find("RIS", "HOSP", control_id, key)
    return stored.outcome if stored else None


def test_python_hl7s_client_gets_a_true_answer(services: Services) -> None:
    """A client written by others sends an order, reads AA with its control id, and the order is on disk."""
    with listening(services) as port, MLLPClient("127.0.0.1", port) as client:
        answer = hl7.parse(client.send_message(order_message("1")).decode().strip("\x0b\x1c\r"))
    assert str(answer["MSA.F1"]) == "AA"
    assert str(answer["MSA.F2"]) == "C1"
    assert count(services, "1") == 1


def test_python_hl7s_client_with_line_feeds_and_no_last_segment_end(services: Services) -> None:
    """LF for CR and a missing last segment end, as real clients send them, are read all the same."""
    with listening(services) as port, MLLPClient("127.0.0.1", port) as client:
        answer = client.send_message(order_message("1").replace(b"\r", b"\n").rstrip(b"\n"))
    assert b"MSA|AA|C1" in answer
    assert count(services, "1") == 1


def test_an_order_byte_by_byte(services: Services) -> None:
    """An order whose bytes come one at a time is one order."""
    with listening(services) as port, Wire(port) as wire:
        for byte in encode(order_message("1")):
            wire.send(bytes([byte]))
        assert code_of(wire.answer()) == ("AA", "C1")
    assert count(services, "1") == 1


def test_orders_sent_without_waiting(services: Services) -> None:
    """Five orders in one write are five answers in order and five orders."""
    with listening(services) as port, Wire(port) as wire:
        wire.send(b"".join(encode(order_message(str(n))) for n in range(5)))
        assert [code_of(wire.answer()) for _ in range(5)] == [("AA", f"C{n}") for n in range(5)]
    assert [count(services, str(n)) for n in range(5)] == [1] * 5


def test_a_duplicate_gets_the_stored_answer_and_stays_one_order(services: Services) -> None:
    """The same message on another connection, and after a restart, gets the same bytes; there is one order."""
    with listening(services) as port:
        with Wire(port) as wire:
            first = wire.ask(order_message("1"))
        with Wire(port) as wire:
            assert wire.ask(order_message("1")) == first
    with listening(services) as port, Wire(port) as wire:
        assert wire.ask(order_message("1")) == first
    assert count(services, "1") == 1


def test_a_duplicate_at_the_same_moment_is_one_order(services: Services) -> None:
    """The same message on eight connections at once gives eight equal answers and one order."""
    with listening(services, threads=4) as port, ThreadPoolExecutor(8) as pool:
        barrier = threading.Barrier(8)

        def send() -> bytes:
            with Wire(port) as wire:
                barrier.wait()
                return wire.ask(order_message("1"))

        answers = {future.result() for future in [pool.submit(send) for _ in range(8)]}
    assert len(answers) == 1
    assert code_of(answers.pop()) == ("AA", "C1")
    assert count(services, "1") == 1


def test_the_same_control_id_with_other_bytes_is_processed(services: Services) -> None:
    """A control id that is used again does not hide another order."""
    with listening(services) as port, Wire(port) as wire:
        assert code_of(wire.ask(order_message("1", "SAME"))) == ("AA", "SAME")
        assert code_of(wire.ask(order_message("2", "SAME"))) == ("AA", "SAME")
    assert (count(services, "1"), count(services, "2")) == (1, 1)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"garbage", "AE"),
        (b"MSH", "AE"),
        (order_message("1")[:100], "AE"),
        (order_message("1").replace(b"ORM^O01", b"MDM^T02"), "AR"),
        (order_message("1").replace(b"Testperson", b"T\xffstperson"), "AE"),
        (order_message("1").replace(b"Testperson", b"Test\x00person"), "AE"),
    ],
)
def test_garbage_is_answered_and_the_connection_goes_on(services: Services, payload: bytes, code: str) -> None:
    """A message that cannot be taken is answered, and the next one on the same connection is an order."""
    with listening(services) as port, Wire(port) as wire:
        assert code_of(wire.ask(payload))[0] == code
        assert code_of(wire.ask(order_message("2"))) == ("AA", "C2")
    assert (count(services, "1"), count(services, "2")) == (0, 1)


def test_a_refused_message_is_kept_raw(services: Services) -> None:
    """The bytes of a refused message can be found again by sender, control id and digest."""
    payload = order_message("1").replace(b"|NW|", b"|QQ|")
    with listening(services) as port, Wire(port) as wire:
        assert code_of(wire.ask(payload)) == ("AE", "C1")
    assert outcome(services, payload, "C1") is MessageOutcome.REFUSED


def test_half_a_message_is_no_order(services: Services) -> None:
    """A frame that its sender cut short leaves nothing, and nothing is answered; sent again it is an order."""
    with listening(services) as port:
        with Wire(port) as wire:
            wire.send(encode(order_message("1"))[:-20])
        with Wire(port) as wire:
            assert count(services, "1") == 0
            assert code_of(wire.ask(order_message("1"))) == ("AA", "C1")
    assert count(services, "1") == 1


def test_an_oversize_order_is_cut_off(services: Services) -> None:
    """An order over the limit costs its connection and leaves nothing; others are served."""
    with listening(services, Limits(max_payload=2000)) as port:
        with Wire(port) as wire:
            wire.send(encode(order_message("1", reason="x" * 5000)))
            assert wire.is_closed()
        with Wire(port) as wire:
            assert code_of(wire.ask(order_message("2"))) == ("AA", "C2")
    assert (count(services, "1"), count(services, "2")) == (0, 1)


def flood(port: int, connections: int, each: int) -> list[tuple[str, str]]:
    """Answers to orders that come on many connections at once."""

    def send(connection: int) -> list[tuple[str, str]]:
        with Wire(port, 60) as wire:
            return [code_of(wire.ask(order_message(f"{connection}x{n}"))) for n in range(each)]

    with ThreadPoolExecutor(connections) as pool:
        return [answer for answers in pool.map(send, range(connections)) for answer in answers]


def test_twenty_connections_at_once(services: Services) -> None:
    """Twenty senders with five orders each get a hundred positive answers, and a hundred orders are there."""
    with listening(services) as port:
        answers = flood(port, 20, 5)
    assert sorted(answers) == sorted(("AA", f"C{c}x{n}") for c in range(20) for n in range(5))
    assert all(count(services, f"{c}x{n}") == 1 for c in range(20) for n in range(5))


@pytest.mark.peers
def test_twenty_connections_at_once_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """The same on PostgreSQL with several threads, where transactions do run at the same time."""
    for services in opened(Settings(home=tmp_path, database_url=postgres_url)):
        with listening(services, threads=8) as port:
            answers = flood(port, 20, 5)
        assert sorted(answers) == sorted(("AA", f"C{c}x{n}") for c in range(20) for n in range(5))
        assert all(count(services, f"{c}x{n}") == 1 for c in range(20) for n in range(5))


def test_a_locked_database_makes_the_sender_wait_and_loses_nothing(services: Services) -> None:
    """While another process holds SQLite's lock the answer is late, not negative and not false."""
    with listening(services) as port, Wire(port) as wire:
        with services.uow():
            wire.send(encode(order_message("1")))
            wire.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                wire.answer()
            assert count(services, "1") == 0
        wire.socket.settimeout(SECONDS)
        assert code_of(wire.answer()) == ("AA", "C1")
    assert count(services, "1") == 1


def test_a_frame_of_two_megabytes_is_one_message(services: Services) -> None:
    """Where the limit allows it, a message of 2 MB (a note, say) is read in its many pieces, and answered once."""
    note = b"NTE|1||" + b"x" * 2_000_000 + b"\r"
    with listening(services, Limits(max_payload=4_000_000)) as port, Wire(port) as wire:
        wire.send(encode(order_message("1") + note))
        assert code_of(wire.answer()) == ("AA", "C1")
    assert count(services, "1") == 1
