"""A positive acknowledgement implies a committed row: the listener is killed with SIGKILL where it hurts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from inlay_core.bootstrap import Services, bootstrap, upgrade_database
from inlay_core.settings import Settings
from inlay_hl7.ack import read_acknowledgement
from inlay_hl7.framing import encode
from inlay_testkit.mllp import GROUP, Wire, order_message


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a fresh database."""
    upgrade_database(Settings(home=tmp_path))
    return tmp_path


@contextmanager
def reading(home: Path) -> Iterator[Services]:
    """Services to look into the database with."""
    services = bootstrap(Settings(home=home))
    try:
        yield services
    finally:
        services.close()


class Child:
    """A listener in a process of its own, which may kill itself at a point of its first message."""

    def __init__(self, home: Path, point: str) -> None:
        command = [sys.executable, "-m", "inlay_testkit.mllp", str(home), point]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def wait_until_begun(self) -> None:
        """The first message is being stored: later ones are not in its group."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n"

    def kill(self) -> int:
        """SIGKILL, unless it did that itself; the exit status."""
        self._process.kill()
        status = self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status


@contextmanager
def child(home: Path, point: str = "never") -> Iterator[Child]:
    """A listener that is gone afterwards."""
    running = Child(home, point)
    try:
        yield running
    finally:
        running.kill()


def stored(home: Path, number: str) -> int:
    """How many orders have that accession number."""
    with reading(home) as services, services.reader() as uow:
        return len(uow.orders.by_accession(None, f"A{number}"))


def code_of(answer: bytes) -> str:
    """MSA-1."""
    read_back = read_acknowledgement(answer)
    assert read_back is not None
    return read_back.code


@pytest.mark.parametrize(("point", "rows"), [("before-commit", 0), ("after-commit", 1)])
def test_killed_around_the_commit(home: Path, point: str, rows: int) -> None:
    """Killed before or after the commit, the listener gives no answer; the message sent again is AA and one order."""
    with child(home, point) as dying, Wire(dying.port) as wire:
        with pytest.raises((EOFError, ConnectionError)):
            wire.ask(order_message("1"))
        assert dying.kill() == -signal.SIGKILL
    assert stored(home, "1") == rows
    with child(home) as living, Wire(living.port) as wire:
        assert code_of(wire.ask(order_message("1"))) == "AA"
    assert stored(home, "1") == 1


@pytest.mark.parametrize(("point", "rows"), [("group-before-commit", 0), ("group-after-commit", 1)])
def test_a_group_is_killed_around_its_commit(home: Path, point: str, rows: int) -> None:
    """Of messages that are stored together all or none are on disk, and none is acknowledged before; again is once."""
    together = [str(number) for number in range(1, GROUP + 1)]
    with child(home, point) as dying, ExitStack() as open_wires:
        first, *others = [open_wires.enter_context(Wire(dying.port)) for _ in range(GROUP + 1)]
        first.send(encode(order_message("0")))
        dying.wait_until_begun()
        for wire, number in zip(others, together, strict=True):
            wire.send(encode(order_message(number)))
        for wire in others:
            with pytest.raises((EOFError, ConnectionError)):
                wire.answer()
        assert dying.kill() == -signal.SIGKILL
    assert stored(home, "0") == 1
    assert [stored(home, number) for number in together] == [rows] * GROUP
    with child(home) as living, Wire(living.port) as wire:
        assert {code_of(wire.ask(order_message(number))) for number in together} == {"AA"}
    assert [stored(home, number) for number in together] == [1] * GROUP


def test_killed_at_any_moment_under_load(home: Path) -> None:
    """Whenever it is killed: every order that was acknowledged is on disk, and those sent again are there once."""
    acknowledged: set[str] = set()
    numbers = [f"{sender}x{n}" for sender in range(4) for n in range(500)]

    def send(port: int, sender: int) -> None:
        try:
            with Wire(port) as wire:
                for number in numbers[sender * 500 : (sender + 1) * 500]:
                    if number not in acknowledged and code_of(wire.ask(order_message(number))) == "AA":
                        acknowledged.add(number)
        except (EOFError, ConnectionError):
            return

    for pause in (0.3, 0.55, 0.4):
        with child(home) as running:
            senders = [threading.Thread(target=send, args=(running.port, sender)) for sender in range(4)]
            for thread in senders:
                thread.start()
            senders[0].join(pause)
            running.kill()
            for thread in senders:
                thread.join(10)
    assert acknowledged
    with reading(home) as services, services.reader() as uow:
        for number in acknowledged:
            assert len(uow.orders.by_accession(None, f"A{number}")) == 1
    some = sorted(acknowledged)[:5] + [number for number in numbers if number not in acknowledged][:5]
    with child(home) as running, Wire(running.port) as wire:
        assert {code_of(wire.ask(order_message(number))) for number in some} == {"AA"}
    assert [stored(home, number) for number in some] == [1] * len(some)
