"""An MLLP client: one message out, its acknowledgement back. An answer to anything else never counts.

After a time-out the socket is closed, so that a late acknowledgement cannot meet the next message. Sending again is the
caller's business, and uses the same bytes and so the same MSH-10.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from types import TracebackType
from typing import Self

from inlay_hl7.ack import Acknowledgement, read_acknowledgement
from inlay_hl7.framing import Frame, FrameDecoder, Refused, encode
from inlay_hl7.header import read_header

# An acknowledgement has a few hundred bytes; some echo the message.
_MAX_ACK = 1024 * 1024


class NoAnswer(Exception):
    """Nobody has said that the message was taken: it may or may not have been. `code` is for logs."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class MllpClient:
    """Keeps one connection and opens it when it is needed. Not for several threads at once."""

    def __init__(
        self, host: str, port: int, *, timeout: float = 10.0, tls: ssl.SSLContext | None = None, server_name: str = ""
    ) -> None:
        self._address = (host, port)
        # The name in the receiver's certificate, where it is not the host that is connected to.
        self._server_name = server_name or host
        self._timeout = timeout
        self._tls = tls
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def send(self, payload: bytes) -> Acknowledgement:
        """Send the message and wait for the acknowledgement whose MSA-2 is its MSH-10. Raises NoAnswer."""
        control_id = read_header(payload).control_id
        if not control_id:
            raise ValueError("a message without MSH-10 cannot be acknowledged")
        deadline = time.monotonic() + self._timeout
        try:
            connection = self._connected()
            connection.settimeout(self._timeout)
            connection.sendall(encode(payload))
            return self._answer(connection, control_id, deadline)
        except TimeoutError:
            self.close()
            raise NoAnswer("timeout") from None
        except OSError as error:
            self.close()
            raise NoAnswer(type(error).__name__) from None
        except NoAnswer:
            self.close()
            raise

    def _connected(self) -> socket.socket:
        if self._socket is not None and _was_closed_or_spoke(self._socket):
            self.close()
        if self._socket is None:
            plain = socket.create_connection(self._address, self._timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._tls.wrap_socket(plain, server_hostname=self._server_name) if self._tls else plain
        return self._socket

    def _answer(self, connection: socket.socket, control_id: str, deadline: float) -> Acknowledgement:
        decoder = FrameDecoder(_MAX_ACK)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(64 * 1024)
            for event in decoder.feed(data) if data else decoder.end():
                if isinstance(event, Refused):
                    raise NoAnswer("not-mllp")
                answer = read_acknowledgement(event.payload) if isinstance(event, Frame) else None
                if answer is not None and answer.control_id == control_id:
                    return answer
            if not data:
                raise NoAnswer("closed")


def _was_closed_or_spoke(connection: socket.socket) -> bool:
    """Between two messages the peer has nothing to say: readable means that it closed, or that an answer came late."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)
