"""`inlay send` against a listener on loopback."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inlay_cli.commands.send import with_segment_ends
from inlay_cli.main import main

ORDER = b"MSH|^~\\&|RIS|HOSP|INLAY|INLAY|20260101120000||ORM^O01|CTRL1|P|2.3.1\nPID|1\n"


class Listener:
    """Takes one frame and answers it with the given MSA-1."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.received = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        self._socket.settimeout(60)
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(60)
            while not self.received.endswith(b"\x1c\r"):
                self.received += connection.recv(4096)
            ack = f"MSH|^~\\&|INLAY|INLAY|RIS|HOSP|20260101120000||ACK|A1|P|2.3.1\rMSA|{self.code}|CTRL1\r"
            connection.sendall(b"\x0b" + ack.encode() + b"\x1c\r")


@pytest.fixture(params=["AA", "AE"])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """A listener that accepts, and one that refuses."""
    running = Listener(request.param)
    yield running
    running.close()


def test_send_prints_the_answer_and_exits_by_it(
    listener: Listener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message arrives framed, with CR after each segment; the status is 0 for AA only."""
    file = tmp_path / "order.hl7"
    file.write_bytes(ORDER)
    status = main(["send", str(file), "--to", f"127.0.0.1:{listener.port}"])
    assert listener.received == b"\x0b" + ORDER.replace(b"\n", b"\r") + b"\x1c\r"
    assert capsys.readouterr().out == f"{listener.code} for control id CTRL1\n"
    assert status == (0 if listener.code == "AA" else 1)


def test_send_to_nobody_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port is one line on stderr and status 1."""
    file = tmp_path / "order.hl7"
    file.write_bytes(ORDER)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert main(["send", str(file), "--to", f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err == f"inlay: no answer from 127.0.0.1:{port} (ConnectionRefusedError)\n"


def test_send_of_a_missing_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is one line on stderr and status 1."""
    assert main(["send", "/nowhere/order.hl7", "--to", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "inlay: /nowhere/order.hl7: No such file or directory\n"


@pytest.mark.parametrize("ends", [b"\r", b"\n", b"\r\n"])
def test_segment_ends_become_cr(ends: bytes) -> None:
    """Whatever an editor saved, segments end with CR."""
    assert with_segment_ends(b"MSH" + ends + b"PID" + ends) == b"MSH\rPID\r"
