"""A TCP gate in front of a peer: open, slow, or hanging (connections are accepted, nothing goes through)."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 65_536


class Gate:
    """Forwards connections to a loopback port. `hanging` and `delay_seconds` may change at any time."""

    def __init__(self, target: int, address: str = "127.0.0.1") -> None:
        self._target = target
        self.hanging = threading.Event()
        self.delay_seconds = 0.0
        self.taken = 0
        self._closing = threading.Event()
        self._listening = socket.create_server((address, 0))
        self._open: set[socket.socket] = {self._listening}
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for each in list(self._open):
            _close(each)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listening.accept()
            except OSError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self.taken += 1
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(_CHUNK):
                while self.hanging.is_set() and not self._closing.is_set():
                    self._closing.wait(0.05)
                time.sleep(self.delay_seconds)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, sink):
                _close(each)
                self._open.discard(each)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
